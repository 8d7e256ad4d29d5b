"""Reads the event files of a run with the tensorboard package and compares them with metrics.jsonl.

    pip install tensorboard
    dbb train configs/quick/resnet20-base.toml --set train.epochs=2 --out runs/board
    python tests/interop/tensorboard_check.py runs/board

Prints a line per curve; a difference is an error. A resumed run must show every step once.
"""

import json
import math
import pathlib
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

# Scalars are stored as float32.
TOLERANCE = 1e-6

# Tag of the curve, key of the record.
EPOCH_CURVES = {
    "train/epoch_loss": "train_loss",
    "train/top1": "train_top1",
    "train/images_per_second": "images_per_second",
    "val/loss": "val_loss",
    "val/top1": "top1",
    "val/top5": "top5",
}


def main(run):
    board = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0})
    board.Reload()
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]

    for tag, key in EPOCH_CURVES.items():
        curve = {event.step: event.value for event in board.Scalars(tag)}
        expected = {record["step"]: record[key] for record in records}
        assert curve.keys() == expected.keys(), f"{tag}: steps {sorted(curve)}, not {sorted(expected)}"
        for step, value in expected.items():
            assert math.isclose(curve[step], value, rel_tol=TOLERANCE), f"{tag} at step {step}"
        assert len(board.Scalars(tag)) == len(records), f"{tag}: a step twice"
        print(f"{tag}: {len(curve)} epochs as in metrics.jsonl")

    for tag in ("train/loss", "train/lr"):
        steps = [event.step for event in board.Scalars(tag)]
        last = records[-1]["step"]
        assert steps == [1, *range(10, last + 1, 10)], f"{tag}: steps {steps}"
        print(f"{tag}: {len(steps)} steps up to {steps[-1]}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(pathlib.Path(sys.argv[1]))
