"""The folder of a folded network in timm: weights, classes and preprocessing."""

import json

import numpy as np
import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from timm.utils import reparameterize_model

from runs import CLASSES, Run, dbb

NETWORKS = ["resnet18", "resnet50", "mobilenet_v1", "mobilenet_v2", "repvgg_a0", "mobileone_s0"]

# A larger and a smaller side than the input's; Pillow rounds resized pixels to 8 bits.
IMAGE = (150, 90)
PIXEL_TOLERANCE = 0.02


def check_blocks(run: Run) -> None:
    """Blocks in training form in timm's own network, and what timm folds them into."""
    path = run.path / "timm-train.safetensors"
    dbb("export", run.path, "--format", "safetensors", "--form", "train", "--keys", "timm", "--out", path)
    options = {"in_chans": run.images.shape[1], "num_classes": CLASSES}
    network = timm.create_model(run.arch, **options).eval()
    network.load_state_dict(load_file(path), strict=True)
    for network, form in ((network, "training form"), (reparameterize_model(network), "folded there")):
        with torch.no_grad():
            run.compare(network(torch.from_numpy(run.images)).numpy(), f"timm {run.arch}, {form}")


def check(run: Run) -> None:
    if run.arch not in NETWORKS:
        return
    folder = run.path / "timm"
    dbb("export", run.path, "--format", "timm", "--out", folder)
    # timm loads with strict=True unless it is told to adapt the classifier.
    network = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    with torch.no_grad():
        logits = network(torch.from_numpy(run.images)).numpy()
    if run.block in ("repvgg", "mobileone") and run.arch.startswith(run.block):
        check_blocks(run)
    size = f"{(folder / 'model.safetensors').stat().st_size:,} bytes"
    run.compare(logits, f"timm {network.pretrained_cfg['architecture']}, {size}")

    classes = json.loads((folder / "config.json").read_text())["label_names"]
    assert list(network.pretrained_cfg["label_names"]) == classes, "other class names"
    assert classes[0] == "T-shirt/top", f"class 0 is {classes[0]}"

    # A photograph through timm's own preprocessing, and through ours.
    path = run.path / "photograph.png"
    random = np.random.default_rng(1).integers(0, 256, (6, 10, 3), np.uint8)
    photograph = Image.fromarray(random).resize(IMAGE, Image.Resampling.BICUBIC)
    photograph.save(path)
    config = timm.data.resolve_data_config(model=network)
    mode = "RGB" if config["input_size"][0] == 3 else "L"
    image = timm.data.create_transform(**config)(photograph.convert(mode))
    with torch.no_grad():
        probabilities = network(image.unsqueeze(0)).softmax(1).numpy()
    difference = abs(probabilities - run.predict(path, "probability")).max()
    assert difference <= PIXEL_TOLERANCE, f"preprocessing changes probabilities by {difference:.3f}"
