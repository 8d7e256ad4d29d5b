"""ResNets and MobileNetV1 with plain convolutions, the blocks of `models/src/blocks` or folded
convolutions, in PyTorch: layer by layer the networks of `models/src/backbones`.

A Diverse Branch Block is written as the paper defines it (Ding et al., CVPR 2021, section 3.3):
four branches over one input, each closed by a batch norm, added up; every operation is carried
out as it stands, by PyTorch's own operators.
"""

import torch
from torch import nn
from torch.nn import functional as F


class ConvBn(nn.Sequential):
    """A convolution without bias, then a batch norm."""

    def __init__(self, inputs, outputs, kernel, stride=1, groups=1):
        super().__init__()
        self.conv = nn.Conv2d(
            inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False
        )
        self.bn = nn.BatchNorm2d(outputs)


class IdentityConv(nn.Module):
    """A 1x1 convolution with kernel I + W, where W starts at zero."""

    def __init__(self, channels, groups):
        super().__init__()
        width = channels // groups
        self.groups = groups
        self.weight = nn.Parameter(torch.zeros(channels, width, 1, 1))
        identity = torch.eye(width).repeat(groups, 1).view(channels, width, 1, 1)
        self.register_buffer("identity", identity, persistent=False)

    def forward(self, x):
        return F.conv2d(x, self.weight + self.identity, groups=self.groups)


class BnPad(nn.Module):
    """A batch norm whose output is padded with what the norm makes of zero.

    The border comes from the running statistics as this forward has left them, and no gradient
    passes through it.
    """

    def __init__(self, channels, padding):
        super().__init__()
        self.bn = nn.BatchNorm2d(channels)
        self.padding = padding

    def forward(self, x):
        y = self.bn(x)
        p = self.padding
        if p == 0:
            return y
        with torch.no_grad():
            bn = self.bn
            scale = bn.weight / torch.sqrt(bn.running_var + bn.eps)
            border = (bn.bias - bn.running_mean * scale).view(1, -1, 1, 1)
        y = F.pad(y, [p] * 4)
        y[:, :, :p] = border
        y[:, :, -p:] = border
        y[:, :, :, :p] = border
        y[:, :, :, -p:] = border
        return y


class DiverseBranchBlock(nn.Module):
    """The training form of a KxK convolution: KxK; 1x1; 1x1 then KxK; 1x1 then average pool."""

    def __init__(self, inputs, outputs, kernel, stride=1, groups=1, internal=None):
        super().__init__()
        depthwise = groups == outputs
        if internal is None:
            internal = 2 * inputs if depthwise else inputs
        padding = kernel // 2
        self.origin = ConvBn(inputs, outputs, kernel, stride, groups)
        self.pointwise = None if depthwise else ConvBn(inputs, outputs, 1, stride, groups)
        self.pointwise_kxk = nn.Sequential()
        if internal == inputs:
            self.pointwise_kxk.conv1 = IdentityConv(inputs, groups)
        else:
            self.pointwise_kxk.conv1 = nn.Conv2d(inputs, internal, 1, groups=groups, bias=False)
        self.pointwise_kxk.bn1 = BnPad(internal, padding)
        self.pointwise_kxk.conv2 = nn.Conv2d(
            internal, outputs, kernel, stride, groups=groups, bias=False
        )
        self.pointwise_kxk.bn2 = nn.BatchNorm2d(outputs)
        self.average = nn.Sequential()
        if depthwise:
            self.average.pool = nn.AvgPool2d(kernel, stride, padding)
        else:
            self.average.conv = nn.Conv2d(inputs, outputs, 1, groups=groups, bias=False)
            self.average.bn = BnPad(outputs, padding)
            self.average.pool = nn.AvgPool2d(kernel, stride)
        self.average.avg_bn = nn.BatchNorm2d(outputs)

    def forward(self, x):
        y = self.origin(x)
        if self.pointwise is not None:
            y = y + self.pointwise(x)
        return y + self.pointwise_kxk(x) + self.average(x)


class AsymmetricConvBlock(nn.Module):
    """ACNet (Ding et al., ICCV 2019): KxK, Kx1 and 1xK, each with a batch norm, added up."""

    def __init__(self, inputs, outputs, kernel, stride=1, groups=1):
        super().__init__()
        half = kernel // 2
        self.square = ConvBn(inputs, outputs, kernel, stride, groups)
        self.strips = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(inputs, outputs, shape, stride, padding, groups=groups, bias=False),
                nn.BatchNorm2d(outputs),
            )
            for shape, padding in [((kernel, 1), (half, 0)), ((1, kernel), (0, half))]
        )

    def forward(self, x):
        return self.square(x) + sum(strip(x) for strip in self.strips)


class MultiBranch(nn.Module):
    """RepVGG (Ding et al., CVPR 2021) with one copy, MobileOne (Vasu et al., CVPR 2023) with more:
    copies of KxK, 1x1 and, where the shape stays, the input, each with a batch norm, added up."""

    def __init__(self, inputs, outputs, kernel, stride=1, groups=1, copies=1):
        super().__init__()
        self.convs = nn.ModuleList(
            ConvBn(inputs, outputs, kernel, stride, groups) for _ in range(copies)
        )
        self.convs.append(ConvBn(inputs, outputs, 1, stride, groups))
        same = inputs == outputs and stride == 1
        self.identity = nn.BatchNorm2d(inputs) if same else None

    def forward(self, x):
        y = sum(conv(x) for conv in self.convs)
        return y if self.identity is None else y + self.identity(x)


class QaRepVgg(nn.Module):
    """QARepVGG (Chu et al., AAAI 2024): a batch norm of BN(KxK) + 1x1 + input."""

    def __init__(self, inputs, outputs, kernel, stride=1, groups=1):
        super().__init__()
        self.origin = ConvBn(inputs, outputs, kernel, stride, groups)
        self.pointwise = nn.Conv2d(inputs, outputs, 1, stride, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(outputs)
        self.same = inputs == outputs and stride == 1

    def forward(self, x):
        y = self.origin(x) + self.pointwise(x)
        return self.bn(y + x if self.same else y)


class Orepa(nn.Module):
    """OREPA (Hu et al., CVPR 2022, section 3): one convolution, whose kernel is the sum of its
    linear branches, computed anew from their weights at every step, and one batch norm."""

    EXPANSION = 8

    def __init__(self, inputs, outputs, kernel, stride=1, groups=1):
        super().__init__()
        self.shape = (outputs, inputs // groups, kernel, kernel)
        self.stride, self.groups, width = stride, groups, inputs // groups
        internal = inputs if groups <= 4 else 2 * inputs

        def fresh(*shape):
            bound = (6 / (shape[1] * shape[2] * shape[3])) ** 0.5
            return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))

        self.origin = fresh(*self.shape)
        self.average = fresh(outputs, width, 1, 1)
        self.frequency = fresh(outputs, width, 1, 1)
        self.first = nn.Parameter(torch.zeros(internal, width, 1, 1))
        self.second = fresh(outputs, internal // groups, kernel, kernel)
        self.pointwise = fresh(outputs, width, 1, 1)
        self.depthwise = fresh(self.EXPANSION * inputs, 1, kernel, kernel)
        self.separable = fresh(outputs, self.EXPANSION * width, 1, 1)
        scales = torch.tensor([0.25, 0.25, 0.0, 0.5, 1.0, 0.5])
        self.vector = nn.Parameter(scales.view(6, 1).repeat(1, outputs))
        rows = -(-internal // width)
        identity = torch.eye(width).repeat(rows, 1)[:internal].view(internal, width, 1, 1)
        self.register_buffer("identity", identity, persistent=False)
        self.register_buffer("prior", self.filters(outputs, kernel), persistent=False)
        self.bn = nn.BatchNorm2d(outputs)

    @staticmethod
    def filters(outputs, kernel):
        """Cosines along the height for the first half of the outputs, along the width for the rest."""
        position = torch.pi * (torch.arange(kernel) + 0.5) / kernel
        frequency = torch.arange(1, outputs + 1).double()
        half = outputs / 2
        rows = torch.cos(position.view(1, -1, 1) * frequency.view(-1, 1, 1))
        columns = torch.cos(position.view(1, 1, -1) * (frequency - half).view(-1, 1, 1))
        first = (frequency - 1 < half).view(-1, 1, 1)
        return torch.where(first, rows, columns).float().expand(-1, kernel, kernel).contiguous()

    def kernel(self):
        outputs, width, size, _ = self.shape
        groups, of_group = self.groups, outputs // self.groups
        v = self.vector.view(6, outputs, 1, 1, 1)
        first = (self.first + self.identity).view(groups, -1, width)
        second = self.second.view(groups, of_group, -1, size, size)
        sequence = torch.einsum("gmi,gomhw->goihw", first, second).reshape(self.shape)
        filters = self.depthwise.view(groups, width, self.EXPANSION, size, size)
        weights = self.separable.view(of_group, groups, width, self.EXPANSION)
        separable = torch.einsum("gitxy,ogit->goixy", filters, weights).reshape(self.shape)
        return (
            v[0] * self.origin
            + v[1] * self.average / size**2
            + v[2] * self.frequency * self.prior.view(outputs, 1, size, size)
            + v[3] * sequence
            + v[4] * F.pad(self.pointwise, [size // 2] * 4)
            + v[5] * separable
        )

    def forward(self, x):
        padding = self.shape[2] // 2
        y = F.conv2d(x, self.kernel(), None, self.stride, padding, groups=self.groups)
        return self.bn(y)


BLOCKS = {
    "base": ConvBn,
    "dbb": DiverseBranchBlock,
    "acb": AsymmetricConvBlock,
    "repvgg": MultiBranch,
    "mobileone": lambda *shape: MultiBranch(*shape, copies=4),
    "orepa": Orepa,
    "qarepvgg": QaRepVgg,
}


def unit(block, inputs, outputs, kernel, stride=1, groups=1):
    """What stands in the place of a convolution: a name of `BLOCKS`, or fused."""
    if block == "fused":
        return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups)
    # As in the papers' code, 1x1 convolutions and the 7x7 stem stay plain.
    if 1 < kernel < 7:
        return BLOCKS[block](inputs, outputs, kernel, stride, groups)
    return ConvBn(inputs, outputs, kernel, stride, groups)


class Residual(nn.Module):
    """Two 3x3 convolutions, or 1x1, 3x3, 1x1, and the shortcut around them."""

    def __init__(self, block, inputs, planes, stride, bottleneck):
        super().__init__()
        outputs = 4 * planes if bottleneck else planes
        if bottleneck:
            shapes = [(inputs, planes, 1, 1), (planes, planes, 3, stride), (planes, outputs, 1, 1)]
        else:
            shapes = [(inputs, planes, 3, stride), (planes, planes, 3, 1)]
        layers = []
        for shape in shapes:
            layers += [unit(block, *shape), nn.ReLU(inplace=True)]
        self.body = nn.Sequential(*layers[:-1])
        self.shortcut = None
        if stride != 1 or inputs != outputs:
            self.shortcut = unit(block, inputs, outputs, 1, stride)

    def forward(self, x):
        shortcut = x if self.shortcut is None else self.shortcut(x)
        return F.relu(self.body(x) + shortcut, inplace=True)


def resnet(block, classes, depths, bottleneck, imagenet_stem, width):
    """A residual network of four stages."""
    channels = int(64 * width)
    if imagenet_stem:
        layers = [unit(block, 3, channels, 7, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)]
    else:
        layers = [unit(block, 3, channels, 3), nn.ReLU(inplace=True)]
    for stage, depth in enumerate(depths):
        planes = int(64 * 2**stage * width)
        for index in range(depth):
            stride = 2 if stage > 0 and index == 0 else 1
            layers.append(Residual(block, channels, planes, stride, bottleneck))
            channels = 4 * planes if bottleneck else planes
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


# Output channels and stride of the separable convolutions.
MOBILENET = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)]
MOBILENET += [(512, 1)] * 5 + [(1024, 2), (1024, 1)]


def mobilenet_v1(block, classes, width):
    """MobileNet version 1 with ReLU."""
    channels = int(32 * width)
    layers = [unit(block, 3, channels, 3, 2), nn.ReLU(inplace=True)]
    for outputs, stride in MOBILENET:
        outputs = int(outputs * width)
        layers += [unit(block, channels, channels, 3, stride, channels), nn.ReLU(inplace=True)]
        layers += [unit(block, channels, outputs, 1), nn.ReLU(inplace=True)]
        channels = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


def build(arch, block, classes=None, width=1.0):
    """A network by the name that `dbb` gives it."""
    if classes is None:
        classes = 10 if arch == "resnet18-cifar" else 1000
    if arch == "mobilenet_v1":
        return mobilenet_v1(block, classes, width)
    depths, bottleneck = ([3, 4, 6, 3], True) if arch == "resnet50" else ([2, 2, 2, 2], False)
    return resnet(block, classes, depths, bottleneck, arch != "resnet18-cifar", width)


ARCHS = ["resnet18", "resnet18-cifar", "resnet50", "mobilenet_v1"]
