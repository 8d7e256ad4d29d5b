"""A folded network in the stock networks of torchvision, loaded with strict=True."""

import torch
import torchvision
from safetensors.torch import load_file

from runs import CLASSES, Run, dbb

NETWORKS = {
    "resnet18": "resnet18",
    "resnet50": "resnet50",
    "mobilenet_v2": "mobilenet_v2",
    "mobilenet_v3_large": "mobilenet_v3_large",
    "mobilenet_v3_small": "mobilenet_v3_small",
}


def check(run: Run) -> None:
    # torchvision's networks have three channels, and width 1 is the only one without an option.
    if run.arch not in NETWORKS or run.images.shape[1] != 3:
        return
    path = run.path / "torchvision.safetensors"
    report = dbb("reparam", run.path, "--keys", "torchvision", "--out", path)
    network = torchvision.models.get_model(NETWORKS[run.arch], weights=None, num_classes=CLASSES)
    network.load_state_dict(load_file(path), strict=True)
    with torch.no_grad():
        logits = network.eval()(torch.from_numpy(run.images)).numpy()
    size = f"{path.stat().st_size:,} bytes"
    run.compare(logits, f"torchvision, {report['blocks_folded']} folded, {size}")
