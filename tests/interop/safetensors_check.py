"""Weights in every number type, read by the safetensors package itself."""

import json

import torch
from safetensors import safe_open

from runs import Run, dbb

TYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}

# Half a unit in the last place.
PRECISION = {"f32": 0.0, "f16": 2.0**-11, "bf16": 2.0**-8}

# Below the smallest normal number of f16 values are spaced evenly.
SPACING = 2.0**-25


def check(run: Run) -> None:
    exact = None
    for name, dtype in TYPES.items():
        path = run.path / f"{name}.safetensors"
        report = dbb("reparam", run.path, "--dtype", name, "--out", path)
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}
            about = json.loads(file.metadata()["dbb_zoo"])
        assert {tensor.dtype for tensor in tensors.values()} == {dtype}, f"{name}: other types"
        assert about["model"]["arch"] == run.arch and about["form"] == "deploy"
        # No tensor but kernels, biases and, in V3, those of squeeze-and-excitation.
        assert not any("running" in key for key in tensors), "a batch norm is left"
        exact = exact or tensors
        for key, tensor in tensors.items():
            difference = (tensor.double() - exact[key].double()).abs()
            bound = exact[key].double().abs() * PRECISION[name] + (name == "f16") * SPACING
            assert (difference <= bound).all(), f"{name}: {key} is not the nearest value"
        if name != "f32":
            cost = f"logits differ by {report['dtype_max_rel_diff']:.1e}"
            size = f"{path.stat().st_size:,} bytes"
            print(f"{run.name:40} {f'safetensors {name}, {size}':50} {cost}")
