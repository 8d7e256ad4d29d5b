"""The event files of a run, read with the tensorboard package and compared with metrics.jsonl."""

import json
import math

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from runs import Run

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


def check(run: Run) -> None:
    board = EventAccumulator(str(run.path / "tensorboard"), size_guidance={"scalars": 0})
    board.Reload()
    records = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]

    for tag, key in EPOCH_CURVES.items():
        curve = {event.step: event.value for event in board.Scalars(tag)}
        expected = {record["step"]: record[key] for record in records}
        assert curve.keys() == expected.keys(), f"{tag}: steps {sorted(curve)}, not {sorted(expected)}"
        for step, value in expected.items():
            assert math.isclose(curve[step], value, rel_tol=TOLERANCE), f"{tag} at step {step}"
        assert len(board.Scalars(tag)) == len(records), f"{tag}: a step twice"

    last = records[-1]["step"]
    for tag in ("train/loss", "train/lr", "train/grad_norm"):
        steps = [event.step for event in board.Scalars(tag)]
        assert steps == [1, *range(10, last + 1, 10)], f"{tag}: steps {steps}"
    print(f"{run.name:40} {f'tensorboard, {len(EPOCH_CURVES) + 3} curves':50} {last} steps as in metrics.jsonl")
