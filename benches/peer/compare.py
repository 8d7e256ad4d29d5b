"""Runs `dbb bench` and peer.py in turns on the same work and tabulates both.

    cargo build --release --workspace
    pip install -r requirements.txt
    python compare.py --out results.json
    python compare.py --rows train/mobilenet --rounds 5

A round measures every variant of a row once, each in a process of its own, one after the other;
the figure of a variant is the median of its rounds. The ratio is ours to the faster of PyTorch's
memory formats. The memory of PyTorch is its peak less that of a process that has only imported
it; ours is the whole peak. With --calm a measurement waits until the machine is idle, and is
repeated, twice at most, where other processes took more than a tenth of it meanwhile (Linux).
Figures that were disturbed all the same stand in brackets.
"""

import argparse
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
DBB = HERE.parent.parent / "target" / "release" / ("dbb.exe" if os.name == "nt" else "dbb")

# What is done, architecture, block, size, batch.
ROWS = [
    ("train", "mobilenet_v1", "base", 224, 16),
    ("train", "mobilenet_v1", "dbb", 224, 16),
    ("train", "mobilenet_v1", "base", 96, 16),
    ("train", "mobilenet_v1", "dbb", 96, 16),
    ("train", "resnet18-cifar", "base", 32, 64),
    ("train", "resnet18-cifar", "dbb", 32, 64),
    *[
        ("train", arch, block, res, batch)
        for block in ("acb", "repvgg", "mobileone", "orepa", "qarepvgg")
        for arch, res, batch in (("resnet18-cifar", 32, 64), ("mobilenet_v1", 96, 16))
    ],
    ("train", "resnet18", "base", 224, 16),
    ("train", "resnet18", "dbb", 224, 16),
    ("train", "resnet50", "base", 224, 8),
    ("train", "resnet50", "dbb", 224, 8),
    ("infer", "resnet18", "base", 224, 1),
    ("infer", "resnet18", "base", 224, 32),
    ("infer", "mobilenet_v1", "base", 224, 1),
    ("infer", "mobilenet_v1", "base", 224, 32),
    ("infer", "resnet50", "base", 224, 1),
    ("infer", "resnet50", "base", 224, 32),
]

# The part of the machine that others may take from a measurement.
DISTURBED = 0.1

OURS, CONTIGUOUS, LAST, ONNX = "dbb", "torch", "torch channels-last", "onnxruntime"


def name_of(row):
    """A row in a word, for --rows and the JSON."""
    what, arch, block, res, batch = row
    return f"{what}/{arch}/{block}/{res}/b{batch}"


def clock():
    """Seconds of all cores, those of them busy, and those of our children; None where the system
    does not tell."""
    try:
        with open("/proc/stat") as file:
            ticks = [int(word) for word in file.readline().split()[1:9]]
    except OSError:
        return None
    unit = os.sysconf("SC_CLK_TCK")
    idle = ticks[3] + ticks[4]
    spent = os.times()
    children = spent.children_user + spent.children_system
    return sum(ticks) / unit, (sum(ticks) - idle) / unit, children


def others_since(start):
    """The part of the machine that other processes have taken since `start`."""
    now = clock()
    if start is None or now is None or now[0] <= start[0]:
        return None
    whole, busy, ours = (b - a for a, b in zip(start, now))
    return max(0.0, (busy - ours) / whole)


def wait_for_calm(patience):
    """Returns when other processes take less than a tenth of the machine, or after `patience`
    seconds."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        start = clock()
        time.sleep(1)
        others = others_since(start)
        if others is None or others < DISTURBED:
            return


class Failed(Exception):
    """A program that ended with an error."""


def call(command, patience=0):
    """The JSON object that a program prints, with the part of the machine others took."""
    for _ in range(3):
        wait_for_calm(patience)
        start = clock()
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise Failed(f"{' '.join(map(str, command))} failed:\n{done.stderr.strip()}")
        others = others_since(start)
        if patience == 0 or others is None or others < DISTURBED:
            break
    return json.loads(done.stdout) | {"others": others}


def command_of(variant, row, args):
    """The call that measures a row in one way."""
    what, arch, block, res, batch = row
    steps = args.steps * (4 if what == "infer" and batch == 1 else 1)
    work = ["--arch", arch, "--block", block, "--res", str(res), "--batch", str(batch)]
    work += ["--steps", str(steps), "--threads", str(args.threads)]
    if variant == OURS:
        return [args.dbb, "bench", what, *work, "--impl", args.impl, "--json"]
    extra = {CONTIGUOUS: [], LAST: ["--channels-last"], ONNX: ["--engine", "onnxruntime"]}
    return [sys.executable, HERE / "peer.py", what, *work, *extra[variant]]


def variants_of(row, args):
    """The ways in which a row is measured."""
    variants = [OURS] if args.only != "peer" else []
    if args.only != "dbb":
        variants += [CONTIGUOUS] if args.no_channels_last else [CONTIGUOUS, LAST]
        variants += [ONNX] if args.onnxruntime and row[0] == "infer" else []
    return variants


def summarise(results, empty):
    """Median, extremes and memory of the rounds of one variant."""
    rates = [result["images_per_second"] for result in results]
    peaks = [result["peak_rss_mib"] for result in results if result["peak_rss_mib"]]
    return {
        "images_per_second": statistics.median(rates),
        "lowest": min(rates),
        "highest": max(rates),
        "step_ms_min": min(result["step_ms_min"] for result in results),
        "peak_mib": max(peaks) - empty if peaks else None,
        "rounds": len(rates),
        "others": max((result["others"] or 0 for result in results), default=0),
    }


def figure(summary):
    """A rate with half its spread; in brackets where others disturbed it."""
    if summary is None:
        return "-"
    rate = summary["images_per_second"]
    spread = (summary["highest"] - summary["lowest"]) / 2 / rate * 100
    text = f"{rate:.3g} ±{spread:.0f}%" if rate < 100 else f"{rate:.0f} ±{spread:.0f}%"
    return f"({text})" if summary["others"] > DISTURBED else text


def table(rows):
    """Markdown."""
    lines = [
        "| images/s | dbb | torch | torch, channels last | onnxruntime | dbb / torch | peak MiB dbb / torch |",
        "|---|---|---|---|---|---|---|",
    ]
    for row, variants in rows.items():
        get = variants.get
        torch = [v for v in (get(CONTIGUOUS), get(LAST)) if v]
        best = max(torch, key=lambda v: v["images_per_second"], default=None)
        ours = get(OURS)
        ratio = "-"
        if ours and best:
            ratio = f"**{ours['images_per_second'] / best['images_per_second']:.2f}**"
        peaks = [f"{v['peak_mib']:.0f}" if v and v["peak_mib"] else "-" for v in (ours, best)]
        cells = [figure(get(v)) for v in (OURS, CONTIGUOUS, LAST, ONNX)]
        lines.append(f"| {row} | {' | '.join(cells)} | {ratio} | {' / '.join(peaks)} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dbb", type=pathlib.Path, default=DBB, help="the program")
    parser.add_argument("--impl", default="fast", help="of dbb: fast or plain")
    parser.add_argument("--rows", nargs="+", default=[""], help="beginnings of rows to measure")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=5, help="a process (four times for batch 1)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=["dbb", "peer"])
    parser.add_argument("--no-channels-last", action="store_true")
    parser.add_argument("--onnxruntime", action="store_true", help="for inference")
    parser.add_argument(
        "--calm", type=float, default=0, metavar="SECONDS", help="wait up to that long for calm"
    )
    parser.add_argument("--out", type=pathlib.Path, help="the measurements as JSON")
    args = parser.parse_args()
    rows = [row for row in ROWS if name_of(row).startswith(tuple(args.rows))]
    if not rows:
        raise SystemExit("error: no such row; there are " + ", ".join(map(name_of, ROWS)))
    if args.only != "peer" and not args.dbb.exists():
        raise SystemExit(f"error: {args.dbb} does not exist; build it or give --dbb")

    environment = {"machine": platform.machine(), "cores": os.cpu_count()}
    empty = 0
    if args.only != "dbb":
        try:
            bare = call([sys.executable, HERE / "peer.py", "empty"])
        except Failed as failure:
            raise SystemExit(f"error: {failure}") from None
        empty = bare["peak_rss_mib"] or 0
        environment |= {"torch": bare["torch"], "torch_import_mib": empty}
    environment |= {"threads": args.threads, "steps": args.steps}
    measured = {}
    for row in rows:
        results = {variant: [] for variant in variants_of(row, args)}
        for _ in range(args.rounds):
            for variant, found in results.items():
                try:
                    found.append(call(command_of(variant, row, args), args.calm))
                except Failed as failure:
                    if variant == OURS:
                        raise SystemExit(f"error: {failure}") from None
                    # PyTorch has been seen to crash with channels last; the other figures stand.
                    print(f"warning: {failure}", file=sys.stderr)
        variants = {}
        for variant, found in results.items():
            if found:
                variants[variant] = summarise(found, 0 if variant == OURS else empty)
        # The export takes place in the same process and outweighs the run.
        if ONNX in variants:
            variants[ONNX]["peak_mib"] = None
        measured[name_of(row)] = variants
        others = max(found["others"] for found in variants.values())
        rates = ", ".join(f"{name} {figure(found)}" for name, found in variants.items())
        print(f"{name_of(row)}: {rates} (others took up to {others:.0%})", file=sys.stderr)
        if args.out:
            # Written after every row, so that nothing is lost by stopping early.
            result = {"environment": environment, "rows": measured}
            args.out.write_text(json.dumps(result, indent=1) + "\n")
    print(table(measured))


if __name__ == "__main__":
    main()
