"""Checks the blocks of networks.py against outputs and gradients of the papers' own code:
`python check.py ../../tests/fixtures` (needs safetensors)."""

import json
import pathlib
import sys

import torch
from safetensors import safe_open

from networks import AsymmetricConvBlock, DiverseBranchBlock, MultiBranch, Orepa, QaRepVgg

# Beginnings of names there and here, by kind; the first that fits is taken. `{copies}` is the place of
# the 1x1 convolution behind the copies.
NAMES = {
    "dbb": [
        ("dbb_origin.", "origin."),
        ("dbb_1x1_kxk.idconv1.", "pointwise_kxk.conv1."),
        ("dbb_1x1_kxk.", "pointwise_kxk."),
        ("dbb_1x1.", "pointwise."),
        ("dbb_avg.avgbn.", "average.avg_bn."),
        ("dbb_avg.", "average."),
    ],
    "acb": [
        ("square_conv.", "square.conv."),
        ("square_bn.", "square.bn."),
        ("ver_conv.", "strips.0.0."),
        ("ver_bn.", "strips.0.1."),
        ("hor_conv.", "strips.1.0."),
        ("hor_bn.", "strips.1.1."),
    ],
    "repvgg": [
        ("rbr_dense.", "convs.0."),
        ("rbr_1x1.", "convs.1."),
        ("rbr_identity.", "identity."),
    ],
    "mobileone": [
        ("rbr_conv.", "convs."),
        ("rbr_scale.", "convs.{copies}."),
        ("rbr_skip.", "identity."),
    ],
    "qarepvgg": [("rbr_dense.", "origin."), ("rbr_1x1.", "pointwise."), ("bn.", "bn.")],
    "orepa": [
        ("weight_orepa_origin", "origin"),
        ("weight_orepa_avg_conv", "average"),
        ("weight_orepa_pfir_conv", "frequency"),
        ("weight_orepa_1x1_kxk_idconv1", "first"),
        ("weight_orepa_1x1_kxk_conv2", "second"),
        ("weight_orepa_1x1", "pointwise"),
        ("weight_orepa_gconv_dw", "depthwise"),
        ("weight_orepa_gconv_pw", "separable"),
        ("vector", "vector"),
        ("bn.", "bn."),
    ],
}


def renamed(config, tensors):
    """The tensors of the block, by the names of networks.py."""
    result = {}
    for name, tensor in tensors.items():
        for there, here in NAMES[config["kind"]]:
            if name.startswith(there):
                here = here.format(copies=config.get("num_conv_branches"))
                result[here + name[len(there) :]] = tensor
                break
    return result


def build(config, tensors):
    """The block of networks.py, or None where it has no such form."""
    kind, kernel = config["kind"], config["kernel_size"]
    shape = [config[key] for key in ("in_channels", "out_channels")]
    shape += [kernel, config["stride"], config["groups"]]
    if kind == "dbb":
        return DiverseBranchBlock(*shape, config["internal_channels"])
    if kind == "acb" and config["padding"] == kernel // 2:
        return AsymmetricConvBlock(*shape)
    if kind == "repvgg":
        return MultiBranch(*shape)
    if kind == "mobileone" and kernel > 1:
        return MultiBranch(*shape, copies=config["num_conv_branches"])
    if kind == "qarepvgg":
        return QaRepVgg(*shape)
    if kind == "orepa" and kernel > 1 and config["internal_channels"] is None:
        block = Orepa(*shape)
        if kernel == 3:
            assert difference(block.prior, tensors["weight_orepa_prior"]) < 1e-6, "the filters differ"
        # For other sizes the authors' code leaves a part of them undefined.
        block.prior.copy_(tensors["weight_orepa_prior"])
        return block
    return None


def difference(a, b):
    """Largest difference relative to the largest value, which counts as at least 1."""
    return float((a.detach() - b).abs().max() / b.abs().max().clamp(min=1))


def check(path):
    """Largest relative differences of outputs, gradients and running statistics."""
    with safe_open(path, "pt") as file:
        config = json.loads(file.metadata()["config"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    if config["kind"] not in NAMES or config["relu"]:
        return None
    block = build(config, tensors)
    if block is None:
        return None
    block.load_state_dict(renamed(config, tensors))
    images = tensors["input"].clone().requires_grad_()
    found = {"eval": difference(block.eval()(images), tensors["output_eval"])}
    output = block.train()(images)
    found["train"] = difference(output, tensors["output_train"])
    (output * tensors["loss_weight"]).sum().backward()
    grads = {name: parameter.grad for name, parameter in block.named_parameters()}
    reference = renamed(config, {k[5:]: v for k, v in tensors.items() if k.startswith("grad.")})
    assert grads.keys() == reference.keys(), "the parameters differ"
    pairs = [(grads[name], reference[name]) for name in grads]
    pairs.append((images.grad, tensors["grad.input"]))
    found["gradients"] = max(difference(a, b) for a, b in pairs)
    after = renamed(config, {k[6:]: v for k, v in tensors.items() if k.startswith("after.")})
    state = block.state_dict()
    found["statistics"] = max(difference(state[n].float(), v.float()) for n, v in after.items())
    return found


def main():
    folder = pathlib.Path(sys.argv[1])
    files = sorted([*folder.glob("*_k*.safetensors"), *folder.glob("family/*_k*.safetensors")])
    if not files:
        raise SystemExit(f"error: no file *_k*.safetensors in {folder}")
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
