"""Measures in torchvision what `dbb bench loader` measures: training images of class folders read,
decoded, randomly cropped, mirrored and normalised; prints one JSON object.

    pip install -r requirements.txt
    python loader.py DATA --batch 32 --workers 2
    python loader.py DATA --dbb ../../target/release/dbb --rounds 5    # both in turns, one table

DATA holds `train/<class>/*.jpg`. Two batches warm up; of the others the whole time counts.
"""

import argparse
import json
import statistics
import subprocess
import time

import torch
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

WARM_UP = 2
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def batches(args):
    """Batches of epoch after epoch; the workers stay from one to the next."""
    transform = transforms.Compose([
        transforms.RandomResizedCrop(args.res),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize(MEAN, STD),
    ])
    loader = DataLoader(
        datasets.ImageFolder(f"{args.data}/train", transform),
        batch_size=args.batch,
        shuffle=True,
        num_workers=args.workers,
        persistent_workers=args.workers > 0,
    )
    while True:
        yield from loader


def torchvision(args):
    """Images per second of torchvision."""
    stream = batches(args)
    for _ in range(WARM_UP):
        next(stream)
    images, started = 0, time.perf_counter()
    for _ in range(args.steps):
        images += len(next(stream)[1])
    return images / (time.perf_counter() - started)


def dbb(args):
    """Images per second of `dbb bench loader`."""
    numbers = {"data": args.data, "workers": args.workers, "batch": args.batch}
    numbers |= {"res": args.res, "steps": args.steps}
    flags = [text for key, value in numbers.items() for text in (f"--{key}", str(value))]
    command = [args.dbb, "bench", "loader", "--json", *flags]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(output)["images_per_second"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="folder with train/<class>/*.jpg")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--res", type=int, default=224)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--dbb", help="the program to compare with")
    parser.add_argument("--rounds", type=int, default=3, help="with --dbb: turns of each")
    args = parser.parse_args()
    torch.set_num_threads(1)  # of the main process; workers have one anyway

    if not args.dbb:
        print(json.dumps({"images_per_second": torchvision(args)}))
        return
    rows = []
    for number in range(1, args.rounds + 1):
        ours, theirs = dbb(args), torchvision(args)
        rows.append((ours, theirs, ours / theirs))
        print(f"round {number}: dbb {ours:.0f}, torchvision {theirs:.0f} images/s")
    ours, theirs, ratio = (statistics.median(column) for column in zip(*rows))
    print(f"median: dbb {ours:.0f}, torchvision {theirs:.0f} images/s, ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
