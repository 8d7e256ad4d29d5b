"""The folder of a folded network in timm: weights, classes and preprocessing."""

import json

import numpy as np
import timm
import torch
from PIL import Image

from runs import Run, dbb

NETWORKS = ["resnet18", "resnet50", "mobilenet_v1", "mobilenet_v2"]

# A larger and a smaller side than the input's; Pillow rounds resized pixels to 8 bits.
IMAGE = (150, 90)
PIXEL_TOLERANCE = 0.02


def check(run: Run) -> None:
    if run.arch not in NETWORKS:
        return
    folder = run.path / "timm"
    dbb("export", run.path, "--format", "timm", "--out", folder)
    # timm loads with strict=True unless it is told to adapt the classifier.
    network = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    with torch.no_grad():
        logits = network(torch.from_numpy(run.images)).numpy()
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
