"""Checks the Diverse Branch Block of networks.py against outputs and gradients of the paper's
own code: `python check.py ../../tests/fixtures` (needs safetensors)."""

import json
import pathlib
import sys

import torch
from safetensors import safe_open

from networks import DiverseBranchBlock

# Beginnings of names there and here; the first that fits is taken.
NAMES = [
    ("dbb_origin.", "origin."),
    ("dbb_1x1_kxk.idconv1.", "pointwise_kxk.conv1."),
    ("dbb_1x1_kxk.", "pointwise_kxk."),
    ("dbb_1x1.", "pointwise."),
    ("dbb_avg.avgbn.", "average.avg_bn."),
    ("dbb_avg.", "average."),
]


def renamed(tensors):
    """The tensors of the block, by the names of networks.py."""
    result = {}
    for name, tensor in tensors.items():
        for there, here in NAMES:
            if name.startswith(there):
                result[here + name[len(there) :]] = tensor
                break
    return result


def difference(a, b):
    """Largest difference relative to the largest value, which counts as at least 1."""
    return float((a.detach() - b).abs().max() / b.abs().max().clamp(min=1))


def check(path):
    """Largest relative differences of outputs, gradients and running statistics."""
    with safe_open(path, "pt") as file:
        config = json.loads(file.metadata()["config"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    if config["kind"] != "dbb" or config["relu"]:
        return None
    block = DiverseBranchBlock(
        config["in_channels"],
        config["out_channels"],
        config["kernel_size"],
        config["stride"],
        config["groups"],
        config["internal_channels"],
    )
    block.load_state_dict(renamed(tensors))
    images = tensors["input"].clone().requires_grad_()
    found = {"eval": difference(block.eval()(images), tensors["output_eval"])}
    output = block.train()(images)
    found["train"] = difference(output, tensors["output_train"])
    (output * tensors["loss_weight"]).sum().backward()
    grads = {name: parameter.grad for name, parameter in block.named_parameters()}
    reference = renamed({k[5:]: v for k, v in tensors.items() if k.startswith("grad.")})
    assert grads.keys() == reference.keys(), "the parameters differ"
    pairs = [(grads[name], reference[name]) for name in grads]
    pairs.append((images.grad, tensors["grad.input"]))
    found["gradients"] = max(difference(a, b) for a, b in pairs)
    after = renamed({k[6:]: v for k, v in tensors.items() if k.startswith("after.")})
    state = block.state_dict()
    found["statistics"] = max(difference(state[n].float(), v.float()) for n, v in after.items())
    return found


def main():
    files = sorted(pathlib.Path(sys.argv[1]).glob("dbb_*.safetensors"))
    if not files:
        raise SystemExit(f"error: no file dbb_*.safetensors in {sys.argv[1]}")
    failed = 0
    for path in files:
        found = check(path)
        if found is None:
            continue
        worst = max(found.values())
        failed += worst > 5e-5
        print(f"{path.stem:40}", ", ".join(f"{k} {v:.1e}" for k, v in found.items()))
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
