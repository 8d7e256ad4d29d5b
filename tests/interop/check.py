"""What is written here in the libraries it is written for: every check of this folder.

    pip install -r tests/interop/requirements.txt
    cargo build --release
    python tests/interop/check.py

trains a small run of every kind of network on the bundled images, folds and exports it with the
program, and gives the files to torchvision, timm, onnxruntime, safetensors and TensorBoard, and to deploy
networks with the names of the papers' code. Some minutes
on two cores. With published weights and images it measures their accuracy as well:

    python tests/interop/check.py --weights FOLDER --imagenette FOLDER --cifar10 FOLDER

FOLDER holds mobilenet_v2-b0353104.pth and resnet20-12fca82f.th; Imagenette and CIFAR-10 are folders
of class folders. A line is printed for each file; the exit code is 0 if all is well.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import authors_check
import int8_check
import onnx_check
import published_check
import safetensors_check
import tensorboard_check
import timm_check
import torchvision_check
from runs import Run, set_program

ROOT = Path(__file__).parents[2]

# Architecture, block, further keys.
RUNS = [
    ("resnet18", "dbb", {}),
    ("resnet50", "dbb", {}),
    ("resnet18-cifar", "acb", {"width": 0.25}),
    ("resnet20", "dbb", {}),
    ("mobilenet_v1", "dbb", {}),
    ("mobilenet_v1", "dbb", {"activation": "relu6"}),
    ("mobilenet_v2", "dbb", {}),
    ("mobilenet_v2", "dbb", {"width": 0.5, "in_channels": 1}),
    ("mobilenet_v3_large", "base", {}),
    ("mobilenet_v3_small", "dbb", {}),
    *[
        (arch, block, keys)
        for block in ("repvgg", "mobileone", "orepa", "qarepvgg")
        for arch, keys in (("resnet18-cifar", {"width": 0.25}), ("mobilenet_v1", {}))
    ],
    ("repvgg_a0", "repvgg", {}),
    ("mobileone_s0", "mobileone", {}),
    ("vgg16-cifar", "orepa", {"width": 0.25}),
    ("alexnet", "acb", {"width": 0.25}),
]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dbb", type=Path, default=ROOT / "target/release/dbb", help="the program")
    parser.add_argument("--weights", type=Path, help="folder of published weights")
    parser.add_argument("--imagenette", type=Path, help="folder with train/ and val/")
    parser.add_argument("--cifar10", type=Path, help="folder with train/ and val/")
    args = parser.parse_args()
    if not args.dbb.is_file():
        sys.exit(f"{args.dbb} does not exist; build it with `cargo build --release`, or give --dbb")
    set_program(args.dbb)

    failures = []
    with tempfile.TemporaryDirectory() as folder:
        for number, (arch, block, keys) in enumerate(RUNS):
            run = Run.train(Path(folder) / f"{number}-{arch}", arch, block, keys)
            for check in (
                authors_check,
                torchvision_check,
                timm_check,
                onnx_check,
                int8_check,
                safetensors_check,
                tensorboard_check,
            ):
                try:
                    check.check(run)
                except Exception as error:  # what a library says is the result
                    failures.append(f"{run.name}: {check.__name__}: {error}")
                    print(f"FAILED {failures[-1]}")
    if args.weights:
        failures += published_check.check(args.weights, args.imagenette, args.cifar10)
    print("\n".join([f"{len(failures)} checks failed", *failures]) if failures else "all is well")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
