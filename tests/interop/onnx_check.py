"""The ONNX file of a folded network in the onnx checker and in onnxruntime."""

import json
from collections import Counter

import numpy as np
import onnx
import onnxruntime

from runs import Run, dbb


def check(run: Run) -> None:
    path = run.path / "network.onnx"
    dbb("export", run.path, "--format", "onnx", "--out", path)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    operators = Counter(node.op_type for node in model.graph.node)
    assert operators["BatchNormalization"] == 0, "it holds a batch norm"

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert len(json.loads(session.get_modelmeta().custom_metadata_map["dbb_zoo"])["classes"]) == 10
    logits = session.run(["logits"], {"images": run.images})[0]
    opset = model.opset_import[0].version
    what = f"onnxruntime, opset {opset}, {operators['Conv']} Conv, {path.stat().st_size:,} bytes"
    run.compare(logits, what)
    # Any batch size.
    single = session.run(["logits"], {"images": run.images[:1]})[0]
    assert np.allclose(single, logits[:1], atol=1e-5 * abs(logits).max()), "a single image differs"
