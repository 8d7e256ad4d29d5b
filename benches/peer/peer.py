"""Measures in PyTorch what `dbb bench` measures: a whole training step, or inference of the
folded network, on random images; prints one JSON object.

    pip install -r requirements.txt
    python peer.py train --arch resnet18-cifar --block dbb --batch 64
    python peer.py infer --arch mobilenet_v1 --batch 1 --channels-last
    python peer.py infer --arch mobilenet_v1 --batch 1 --engine onnxruntime
    python peer.py empty        # the memory of the libraries alone
    python check.py FIXTURES    # that the block is the paper's
    python compare.py --help    # both programs in turns, one table

Two steps warm up; the rest is timed one by one. A step is forward, cross-entropy, backward and
SGD with momentum 0.9 and weight decay 1e-4. Inference is eager under `torch.inference_mode`, or
onnxruntime on the exported network.
"""

import argparse
import io
import json
import platform
import statistics
import time

import torch
from torch.nn import functional as F

from networks import ARCHS, BLOCKS, build

WARM_UP = 2
LEARNING_RATE = 0.01


def peak_rss_mib():
    """Most memory this process has held, where Linux tells."""
    try:
        with open("/proc/self/status") as status:
            line = next(line for line in status if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        return None
    return int(line.split()[1]) / 1024


def measure(step, steps):
    """Milliseconds of each step after the warm-up."""
    times = []
    for _ in range(WARM_UP + steps):
        started = time.perf_counter()
        step()
        times.append((time.perf_counter() - started) * 1000)
    return times[WARM_UP:]


def training_step(args):
    """The network and a function that trains it by a step."""
    model = build(args.arch, args.block, args.classes, args.width).train()
    model = model.to(memory_format=args.memory_format)
    classes = model[-1].out_features
    images = torch.randn(args.batch, 3, args.res, args.res)
    images = images.contiguous(memory_format=args.memory_format)
    labels = torch.randint(classes, (args.batch,))
    optimizer = torch.optim.SGD(
        model.parameters(), LEARNING_RATE, momentum=0.9, weight_decay=1e-4
    )

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(model(images), labels)
        value = loss.item()
        if value != value:
            raise SystemExit("error: the loss is not finite")
        loss.backward()
        optimizer.step()

    return model, step


def inference_step(args):
    """The network and a function that runs it once."""
    block = "fused" if args.form == "deploy" else args.block
    model = build(args.arch, block, args.classes, args.width).eval()
    images = torch.randn(args.batch, 3, args.res, args.res)
    if args.engine == "onnxruntime":
        return model, onnxruntime_step(model, images, args.threads)
    model = model.to(memory_format=args.memory_format)
    images = images.contiguous(memory_format=args.memory_format)

    def step():
        with torch.inference_mode():
            model(images)

    return model, step


def onnxruntime_step(model, images, threads):
    """A function that runs the exported network in onnxruntime."""
    import onnxruntime

    file = io.BytesIO()
    torch.onnx.export(model, (images,), file, input_names=["images"], dynamo=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        file.getvalue(), options, providers=["CPUExecutionProvider"]
    )
    feed = {"images": images.numpy()}
    return lambda: session.run(None, feed)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["train", "infer", "empty"])
    parser.add_argument("--arch", choices=ARCHS, default="resnet18-cifar")
    parser.add_argument("--block", choices=sorted(BLOCKS), default="base")
    parser.add_argument("--form", choices=["deploy", "train"], default="deploy", help="of infer")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--res", type=int, help="height and width; by default the paper's")
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--classes", type=int)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--engine", choices=["eager", "onnxruntime"], default="eager")
    args = parser.parse_args()
    args.res = args.res or (32 if args.arch == "resnet18-cifar" else 224)
    args.memory_format = torch.channels_last if args.channels_last else torch.contiguous_format
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    result = {"torch": torch.__version__, "machine": platform.machine(), "threads": args.threads}
    if args.what != "empty":
        model, step = (training_step if args.what == "train" else inference_step)(args)
        times = measure(step, args.steps)
        median = statistics.median(times)
        result |= {
            "images_per_second": args.batch * 1000 / median,
            "step_ms_median": median,
            "step_ms_min": min(times),
            "params": sum(p.numel() for p in model.parameters()),
        }
    result["peak_rss_mib"] = peak_rss_mib()
    print(json.dumps(result))


if __name__ == "__main__":
    main()
