"""Quantize models of the zoo as `quantize` does by itself: is the file valid, how near is it, is it ever slower?

    python benchmarks/quantize_zoo.py --sample 60            # so many models, evenly drawn; writes quantize_zoo.md
    python benchmarks/quantize_zoo.py NAME NAME --seconds 60

Each model is a process of its own with a limit of time. Inputs are made up and weights are rounded to nearest, so the
SNR is that of the plainest way; `auto` decides between integers and weights of 16 bits by time, measured in turns.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from coverage import model_file

ROOT = Path(__file__).resolve().parents[1]
ZOO = Path(os.environ.get("ONNXPRUNE_SHARED") or ROOT.parent / "shared") / "zoo"
RESULTS = ROOT / "benchmarks" / "results" / "quantize_zoo.md"
# Two measurements of the same pair of files differ by about this share.
SCATTER = 1.05


def one(name: str) -> dict[str, Any]:
    """What becomes of one model, in this process."""
    with tempfile.TemporaryDirectory() as folder:
        return quantized(model_file(name, Path(folder)), Path(folder) / "quantized.onnx")


def quantized(path: Path, target: Path) -> dict[str, Any]:
    """The file, its distance from float, and its time."""
    import onnxprune as op
    from onnxprune.errors import OnnxpruneError
    from onnxprune.evaluation.benchmark.comparison import compare
    from onnxprune.runtime.latency import Setting, measure_latency
    from onnxprune.runtime.providers import CPU

    warnings.simplefilter("ignore")
    try:
        result = op.quantize(path, rounding="nearest", ranges="minmax", equalize="never", allow_damage=True)
        report = result.save(target)  # checked, and run beside the original
    except OnnxpruneError as error:
        return {"refused": str(error)}
    assert report.quantization is not None
    scores = {score.metric: score.after for score in report.quality.scores} if report.quality else {}
    old, new = measure_latency([path, target], Setting(CPU, 1, 1), seconds=1.0)
    sizes = report.file_bytes
    return {
        "type": report.quantization["type"],
        "snr": scores.get("snr"),
        "ratio": compare(old, new).ratio,
        "bytes": sizes[1] / sizes[0],
    }


def found(name: str, seconds: float) -> dict[str, Any]:
    """The same in a process of its own."""
    command = [sys.executable, __file__, "--one", name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return {"late": True}
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    return json.loads(lines[-1]) if lines else {"failed": (done.stderr.strip().splitlines() or ["nothing said"])[-1]}


def row(name: str, each: dict[str, Any]) -> str:
    """A row of the table."""
    if "type" not in each:
        why = each.get("refused") or each.get("failed") or "out of time"
        return f"| {name} | {'refused' if 'refused' in each else 'no result'} | | | | {why[:160]} |"
    snr = "" if each["snr"] is None else f"{each['snr']:.1f} dB"
    return f"| {name} | {each['type']} | {snr} | {each['ratio']:.2f} | {each['bytes']:.0%} | |"


def summary(all_of: dict[str, dict[str, Any]]) -> list[str]:
    """Shares and medians."""
    made = [each for each in all_of.values() if "type" in each]
    in_time = [each for each in all_of.values() if "late" not in each]
    integers = [each for each in made if each["type"] == "int8"]
    signal = [each["snr"] for each in integers if each["snr"] is not None and np.isfinite(each["snr"])]
    slower = sum(each["ratio"] > SCATTER for each in made)
    refused = sum("refused" in each for each in all_of.values())
    return [
        f"{len(all_of)} models, {len(all_of) - len(in_time)} out of time, {refused} refused with a reason, "
        f"{len(in_time) - len(made) - refused} failed; {len(made)} valid files.",
        f"{len(integers)} run on integers, of median SNR {np.median(signal) if signal else float('nan'):.1f} dB; "
        f"{slower} of all files measured slower than float by more than {SCATTER - 1:.0%}.",
    ]


def main() -> None:
    """Print rows as they come; write the table with a sample."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="*")
    parser.add_argument("--sample", type=int, default=0, help="so many models, evenly drawn")
    parser.add_argument("--seconds", type=float, default=90.0, help="for one model")
    parser.add_argument("--one")
    given = parser.parse_args()
    if given.one:
        print(json.dumps(one(given.one)))
        return
    names = sorted(json.loads((ZOO / "index.json").read_text(encoding="utf-8")))
    if given.models:
        names = given.models
    elif given.sample:
        names = [names[at] for at in np.linspace(0, len(names) - 1, min(given.sample, len(names))).round().astype(int)]
    all_of: dict[str, dict[str, Any]] = {}
    rows = []
    for name in names:
        all_of[name] = found(name, given.seconds)
        rows.append(row(name, all_of[name]))
        print(rows[-1], flush=True)
    print("\n".join(summary(all_of)))
    if given.sample:
        revision = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
        command = " ".join(["python benchmarks/quantize_zoo.py", *sys.argv[1:]])
        head = ["| model | type | SNR | time over float | bytes | why |", "|---|---|---|---|---|---|"]
        said = f"Written by `{command}`, revision {revision.stdout.strip()}."
        RESULTS.write_text("\n".join(["# Quantizing the zoo", "", said, "", *summary(all_of), "", *head, *rows, ""]))


if __name__ == "__main__":
    main()
