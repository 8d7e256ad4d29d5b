"""Accuracy of published weights, as the program measures it.

The images are Imagenette's reduced to 128x128, and CIFAR-10's as JPEG files of quality 75, which costs
ten points.
"""

from pathlib import Path

from runs import dbb

# Top-1 and top-5 in percent that other code measured on the same images.
MOBILENET_V2 = (59.6, 83.5)
RESNET20_TOP1 = 81.0
TOLERANCE = 0.3


def check(weights: Path, imagenette: Path | None, cifar10: Path | None) -> list[str]:
    """The failures."""
    failures = []

    def compare(name: str, found: float, expected: float) -> None:
        print(f"{name}: {found:.2f} %, expected {expected} %")
        if abs(found - expected) > TOLERANCE:
            failures.append(f"{name} is {found:.2f} %, not {expected} %")

    if imagenette:
        file = weights / "mobilenet_v2-b0353104.pth"
        flags = ["--arch", "mobilenet_v2", "--block", "base", "--classes", 1000]
        result = dbb("eval", file, *flags, "--data", imagenette, "--split", "val")
        compare("MobileNetV2 on Imagenette, top-1", result["top1"], MOBILENET_V2[0])
        compare("MobileNetV2 on Imagenette, top-5", result["top5"], MOBILENET_V2[1])
    if cifar10:
        file = weights / "resnet20-12fca82f.th"
        flags = ["--arch", "resnet20", "--block", "base", "--classes", 10]
        result = dbb("eval", file, *flags, "--data", cifar10, "--split", "val")
        compare("ResNet-20 on CIFAR-10, top-1", result["top1"], RESNET20_TOP1)
    return failures
