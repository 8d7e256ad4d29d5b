"""ONNX files of this project in the onnx checker and in onnxruntime.

    cargo test --release --workspace --test onnx -- --ignored
    python tests/interop/onnx_check.py

The first command writes a network of every kind with random weights to target/tmp/onnx, and beside
it the logits that the network itself computes in training form. This checks every file, infers its
shapes, and compares onnxruntime's logits for batches of one and three: the largest difference
relative to the largest logit must not exceed 1e-4. Needs the packages onnx, onnxruntime and numpy.
"""

import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

TOLERANCE = 1e-4


def check(path: Path) -> float:
    """The largest relative difference of the logits of one file."""
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    operators = Counter(node.op_type for node in model.graph.node)
    assert operators["BatchNormalization"] == 0, f"{path} holds a batch norm"

    expected = json.loads(path.with_suffix(".json").read_text())
    images = np.array(expected["images"], np.float32).reshape(expected["shape"])
    logits = np.array(expected["logits"]).reshape(len(images), -1)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert "classes" in json.loads(session.get_modelmeta().custom_metadata_map["dbb_zoo"])

    actual = session.run(["logits"], {"images": images})[0]
    first = session.run(["logits"], {"images": images[:1]})[0]
    worst = max(abs(actual - logits).max(), abs(first - logits[:1]).max()) / abs(logits).max()
    print(f"{path.stem:28} opset {model.opset_import[0].version}  {worst:.1e}  {dict(operators)}")
    return worst


def main() -> int:
    default = Path(__file__).parents[2] / "target/tmp/onnx"
    files = sorted((Path(sys.argv[1]) if len(sys.argv) > 1 else default).glob("*.onnx"))
    if not files:
        sys.exit("no ONNX file found; write them with the first command of this script's text")
    return 0 if max(map(check, files)) <= TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())
