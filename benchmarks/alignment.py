"""Axis sizes and time: real and random files cut to a share of their MACs, with sizes as they come and aligned.

    python benchmarks/alignment.py                     # prints the table of results/alignment.md
    python benchmarks/alignment.py model.onnx --target macs=0.5

Every file is cut without recovery at multiples of 1, 4, 8 and 16 and as `compress` does it by itself; the results and
the original are timed interleaved on one thread, and the ratio of the medians is printed. All of them hold the target.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx

import onnxprune as op
from onnxprune.runtime.latency import Latency, Setting, measure_latency
from onnxprune.runtime.providers import CPU

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("ONNXPRUNE_SHARED", ROOT.parent / "shared"))
MULTIPLES = (1, 4, 8, 16)
FILES = (ROOT / "models/digits_resnet.onnx", SHARED / "data/cifar10/resnet20.onnx", SHARED / "real/rfb320.onnx")
ZOO = (
    "tv.mobilenet_v2.ts17",
    "tv.efficientnet_b0.ts17",
    "tv.resnet18.ts17",
    "timm.repvgg_a0.ts17",
    "timm.convnext_atto.ts17",
    "timm.vit_tiny_patch16_224.ts17",
    "hf.distilbert.ts17",
)


def files(folder: Path) -> list[Path]:
    """The files to measure: those of people, and the zoo's with random weights."""
    sys.path.insert(0, str(SHARED / "zoo"))
    import zoo

    made = [folder / f"{name}.onnx" for name in ZOO]
    for path in made:
        onnx.save(zoo.load(path.stem), path)
    return [*(path for path in FILES if path.exists()), *made]


def seconds(found: Latency) -> float:
    """The median, of the thread's own time where that is known: other programs do not count."""
    return float(np.median(found.processor_seconds or found.seconds))


def row(path: Path, target: str, batch: int, folder: Path) -> str:
    """A line of the table."""
    made = []
    for multiple in (*MULTIPLES, None):
        made.append(folder / f"{path.stem}.{multiple}.onnx")
        op.compress(path, criterion="l1", recover="none", target=target, round_to=multiple, allow_damage=True).save(
            made[-1]
        )
    before, *after = map(seconds, measure_latency([path, *made], Setting(CPU, batch, 1), seconds=4))
    shares = " | ".join(f"{each / before:.2f}" for each in after)
    return f"| {path.stem} | {batch} | {1000 * before:.2f} ms | {shares} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--target", default="macs=0.75")
    parser.add_argument("--batch", type=int, default=1)
    options = parser.parse_args()
    print("| model | batch | original | " + " | ".join(f"of {each}" for each in MULTIPLES) + " | default |")
    print("|---|---|---|" + "---|" * (len(MULTIPLES) + 1))
    with tempfile.TemporaryDirectory() as name:
        for path in options.models or files(Path(name)):
            print(row(path, options.target, options.batch, Path(name)), flush=True)


if __name__ == "__main__":
    main()
