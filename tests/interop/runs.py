"""Small runs of the program, and what it says of them."""

import json
import subprocess
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

CONFIG = Path(__file__).parents[2] / "configs/quick/resnet20-dbb.toml"
CLASSES = 10

# Largest difference of logits, relative to the largest.
TOLERANCE = 1e-4

_program: Path


def set_program(path: Path) -> None:
    global _program
    _program = path


def dbb(*args) -> dict:
    """What a command prints as JSON."""
    command = [_program, *map(str, args), "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}: {done.stderr.strip()}")
    return json.loads(done.stdout)


@dataclass
class Run:
    """A run and random images `[3, channels, 64, 64]` for its network."""

    path: Path
    arch: str
    block: str
    keys: dict
    images: np.ndarray

    @classmethod
    def train(cls, path: Path, arch: str, block: str, keys: dict) -> "Run":
        keys = {"in_channels": 3, **keys}
        settings = {f"model.{key}": value for key, value in keys.items()}
        settings |= {"model.arch": arch, "model.block": block, "data.size": 64, "data.resize": 72}
        settings |= {"data.limit_train": 96, "data.limit_val": 32, "train.epochs": 2}
        settings |= {"train.batch_size": 16, "optim.lr": 0.02, "model.width": keys.get("width", 1)}
        sets = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
        dbb("train", CONFIG, *sets, "--out", path)
        shape = (3, keys["in_channels"], 64, 64)
        images = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        save_file({"images": images}, path / "images.safetensors")
        return cls(path, arch, block, keys, images)

    @property
    def name(self) -> str:
        changed = {key: value for key, value in self.keys.items() if (key, value) != ("in_channels", 3)}
        return " ".join([self.arch, self.block, *(f"{key}={v}" for key, v in changed.items())])

    def predict(self, path: Path, value: str, *flags) -> np.ndarray:
        """Logits of the training form, all branches in place, unless flags say otherwise: `[n, classes]`."""
        predictions = dbb("predict", self.path, path, "--top", CLASSES, *flags)["predictions"]
        rows = np.zeros((len(predictions), CLASSES))
        for row, prediction in zip(rows, predictions):
            for choice in prediction["top"]:
                row[choice["index"]] = choice[value]
        return rows

    @cached_property
    def logits(self) -> np.ndarray:
        return self.predict(self.path / "images.safetensors", "logit")

    def compare(self, logits: np.ndarray, what: str) -> None:
        """Another library's logits of the same images."""
        largest = abs(self.logits).max()
        relative = abs(logits - self.logits).max() / largest
        print(f"{self.name:40} {what:50} differs by {relative:.1e} of {largest:.3g}")
        assert relative <= TOLERANCE, f"logits differ by {relative:.1e} of the largest"
