"""Folded networks under the names of the papers' own code, computed in PyTorch as their deploy
networks are: every tensor by its name, and none left over."""

import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from runs import Run, dbb

# The module of the folded convolution in the authors' code.
MODULES = {
    "base": "conv",
    "dbb": "dbb_reparam",
    "acb": "fused_conv",
    "repvgg": "rbr_reparam",
    "qarepvgg": "rbr_reparam",
    "mobileone": "reparam_conv",
    "orepa": "orepa_reparam",
}


class Network:
    """A state dict that remembers what was read."""

    def __init__(self, state: dict, module: str):
        self.state, self.module, self.read = state, module, set()

    def get(self, key: str) -> torch.Tensor:
        self.read.add(key)
        return self.state[key]

    def layer(self, x, name: str, stride: int = 1, groups: int = 1, plain: bool = False):
        """A folded convolution; layers that no block stands in are called `conv`."""
        key = f"{name}.{'conv' if plain else self.module}"
        weight = self.get(f"{key}.weight")
        padding = weight.shape[2] // 2
        return F.conv2d(x, weight, self.get(f"{key}.bias"), stride, padding, groups=groups)

    def head(self, x):
        return F.linear(x.mean((2, 3)), self.get("linear.weight"), self.get("linear.bias"))

    def has(self, name: str) -> bool:
        return any(key.startswith(f"{name}.") for key in self.state)


def resnet18_cifar(net: Network, x):
    x = F.relu(net.layer(x, "stage0.conv1"))
    for stage in range(1, 5):
        for index in range(2):
            name, stride = f"stage{stage}.{index}", 2 if stage > 1 and index == 0 else 1
            y = F.relu(net.layer(x, f"{name}.conv1", stride))
            y = net.layer(y, f"{name}.conv2")
            if net.has(f"{name}.shortcut"):
                x = net.layer(x, f"{name}.shortcut", stride, plain=True)
            x = F.relu(x + y)
    return net.head(x)


def mobilenet_v1(net: Network, x):
    x = F.relu(net.layer(x, "conv1", 2))
    for index in range(13):
        stride = 2 if index in (1, 3, 5, 11) else 1
        x = F.relu(net.layer(x, f"stem.{index}.depthwise", stride, x.shape[1]))
        x = F.relu(net.layer(x, f"stem.{index}.pointwise", plain=True))
    return net.head(x)


def stages(net: Network):
    """The layers of the stages, `stage1.0` and so on."""
    for stage in range(1, 5):
        index = 0
        while net.has(f"stage{stage}.{index}"):
            yield f"stage{stage}.{index}", index
            index += 1


def repvgg(net: Network, x):
    x = F.relu(net.layer(x, "stage0", 2))
    for name, index in stages(net):
        x = F.relu(net.layer(x, name, 2 if index == 0 else 1))
    return net.head(x)


def mobileone(net: Network, x):
    x = F.relu(net.layer(x, "stage0", 2))
    for name, index in stages(net):
        depthwise = index % 2 == 0
        x = net.layer(x, name, 2 if index == 0 else 1, x.shape[1] if depthwise else 1)
        x = F.relu(x)
    return net.head(x)


NETWORKS = {
    "resnet18-cifar": resnet18_cifar,
    "mobilenet_v1": mobilenet_v1,
    "repvgg_a0": repvgg,
    "mobileone_s0": mobileone,
}


def check(run: Run) -> None:
    if run.arch not in NETWORKS or "activation" in run.keys:
        return
    path = run.path / "official.safetensors"
    dbb("reparam", run.path, "--keys", "official", "--out", path)
    net = Network(load_file(path), MODULES[run.block])
    with torch.inference_mode():
        logits = NETWORKS[run.arch](net, torch.from_numpy(run.images))
    assert net.read == set(net.state), f"tensors left over: {set(net.state) - net.read}"
    run.compare(logits.numpy(), f"names of the authors, {len(net.state)} tensors")
