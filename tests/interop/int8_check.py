"""The ONNX file of a network in 8 bits in the onnx checker and in onnxruntime: every layer becomes one
operator on integers, and the logits are those that the program computes in integers itself."""

from collections import Counter

import onnx
import onnxruntime

from runs import Run, dbb

CALIBRATION = ("--int8", "--calibrate", "sample", "--images", 32)

# Largest difference of logits, relative to the largest: where a sum of two maps lies exactly between two
# integers, or hard-swish differs in its last bit, a unit of 8 bits is rounded otherwise.
TOLERANCE = 1e-2


def check(run: Run) -> None:
    # A last bit of a first layer in `f32` could change every integer after it.
    for flags in ([], ["--reduce-range"], ["--keep-float", "linear"]):
        check_file(run, flags)


def check_file(run: Run, flags: list[str]) -> None:
    path = run.path / "int8.onnx"
    report = dbb(
        "export", run.path, "--format", "onnx", *CALIBRATION, *flags, "--sensitivity", 0, "--out", path
    )
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    layers = Counter(node.op_type for node in model.graph.node)

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(run.path / "optimized.onnx")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    fused = Counter(node.op_type for node in onnx.load(run.path / "optimized.onnx").graph.node)
    floats = len(report["float_layers"])
    assert fused["QLinearConv"] == layers["Conv"], fused
    assert fused["QLinearAdd"] == layers["Add"], fused
    assert fused["QGemm"] == layers["Gemm"] - floats, fused
    assert fused["GlobalAveragePool"] == 0, fused
    assert fused["MaxPool"] + fused["NhwcMaxPool"] == layers["MaxPool"], fused

    logits = session.run(["logits"], {"images": run.images})[0]
    own = run.predict(run.path / "images.safetensors", "logit", *CALIBRATION, *flags)
    difference = abs(logits - own).max() / abs(own).max()
    print(
        f"{run.name:40} {' '.join(['int8', *flags]):50} differs by {difference:.1e} from the program's "
        f"integers, {fused['QLinearConv']} QLinearConv, {path.stat().st_size:,} bytes"
    )
    assert difference <= TOLERANCE, f"logits differ by {difference:.1e} of the largest"
