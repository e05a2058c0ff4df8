"""Which measure of harm goes with the boxes that a detector finds: RFB-320 with channels removed at random.

python benchmarks/detector.py -o benchmarks/results/detector.md

Each cut takes a few channels of one to three groups, without a recovery. F1 is of its boxes against the original's
(score above 0.6, overlap above 0.5, after suppression), on photographs. Beside it, measures of the error of both
outputs, and how their order agrees with that of 1 - F1 (Spearman); and the error at cuts that cost about a twentieth.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from damage import correlation
from real import faces
from recovery_common import SHARED

from onnxprune.analysis.inspect import inspect
from onnxprune.runtime.session import Session
from onnxprune.steps.prune.allocation.base import weakest
from onnxprune.steps.state import State

MODEL = SHARED / "real" / "rfb320.onnx"
IMAGES, CUTS = 10, 24
SCORE, OVERLAP, SUPPRESSED = 0.6, 0.5, 0.4
Arrays = Sequence[np.ndarray]


def outputs(model: object, images: np.ndarray) -> list[np.ndarray]:
    """Scores [images, boxes, 2] and boxes [images, boxes, 4]."""
    session = Session(model, optimized=True)  # type: ignore[arg-type]
    names = [port.name for port in session.outputs]
    found = [session.run({"input": images[at : at + 1]}, names) for at in range(len(images))]
    return [np.concatenate([each[name] for each in found]) for name in names]


def overlap(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    low = np.maximum(one[:, None, :2], other[None, :, :2])
    high = np.minimum(one[:, None, 2:], other[None, :, 2:])
    both = np.prod(np.clip(high - low, 0, None), -1)
    areas = [np.prod(np.clip(each[:, 2:] - each[:, :2], 0, None), -1) for each in (one, other)]
    shared: np.ndarray = both / (areas[0][:, None] + areas[1][None] - both + 1e-9)
    return shared


def boxes(scores: np.ndarray, places: np.ndarray) -> np.ndarray:
    """What a detector finds in one image: boxes [found, 4]."""
    order = np.argsort(-scores[:, 1])
    kept: list[int] = []
    for at in order[scores[order, 1] > SCORE]:
        if not kept or overlap(places[[at]], places[kept]).max() < SUPPRESSED:
            kept.append(int(at))
    return places[kept]


def f1(due: Arrays, given: Arrays) -> float:
    matched = missed = wrong = 0
    for wanted, found in zip(*(list(map(boxes, *each)) for each in (due, given)), strict=True):
        shared, hits = overlap(wanted, found), 0
        while shared.size and shared.max() > OVERLAP:
            row, column = np.unravel_index(shared.argmax(), shared.shape)
            shared[row], shared[:, column], hits = 0, 0, hits + 1
        matched, missed, wrong = matched + hits, missed + len(wanted) - hits, wrong + len(found) - hits
    return 2 * matched / max(2 * matched + missed + wrong, 1)


def measures(due: Arrays, given: Arrays) -> dict[str, float]:
    """Shares of the variance that come out wrong, about several means."""
    found: dict[str, list[float]] = {}
    for one, other in zip(due, given, strict=True):
        wanted, made = one.astype(np.float64), other.astype(np.float64)
        noise = np.square(made - wanted)
        about = {"one mean": None, "a mean per channel": (0, 1), "a mean per entry": 0}
        for name, axes in about.items():
            away = np.square(wanted - wanted.mean(axes, keepdims=True))
            found.setdefault(name, []).append(float(noise.sum() / away.sum()))
        largest = np.maximum(away, np.square(made - wanted.mean(0)))
        found.setdefault("large ones weighted", []).append(float((largest * noise).sum() / (largest * away).sum()))
    worst = {f"{name}, worst output": max(each) for name, each in found.items()}
    return {**worst, **{f"{name}, mean of outputs": float(np.mean(each)) for name, each in found.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        images = np.load(faces(Path(folder))[1])["input"][:IMAGES]
    state, rng = State.of(inspect(MODEL), MODEL), np.random.default_rng(0)
    groups = [group for group in state.original.groups if group.units >= 8]
    due = outputs(MODEL, images)
    rows: list[tuple[float, dict[str, float]]] = []
    for _ in range(CUTS):
        left = {}
        for at in rng.choice(len(groups), rng.integers(1, 4), replace=False):
            group = groups[at]
            count = max(1, int(group.units * rng.choice([0.03, 0.06, 0.12, 0.25])))
            left[group.atom] = weakest(rng.random(group.units), count)
        given = outputs(state.cut(left).model, images)
        rows.append((1 - f1(due, given), measures(due, given)))
    lines = [
        "# A detector: error of the outputs and boxes found",
        "",
        f"Written by `python benchmarks/detector.py -o benchmarks/results/detector.md`: RFB-320, {CUTS} random cuts, "
        f"{IMAGES} photographs. Rank correlation of the error of the outputs, as a share of their variance about some "
        "mean, with the boxes that are not found as before (1 - F1); and the median error where that is 0.02 to 0.12.",
        "",
        "| variance about | rank correlation | error where 2-12% of the boxes differ |",
        "|---|---|---|",
    ]
    harm = [each for each, _ in rows]
    for name in rows[0][1]:
        values = [found[name] for _, found in rows]
        some = [value for value, each in zip(values, harm, strict=True) if 0.02 <= each <= 0.12]
        lines.append(f"| {name} | {correlation(values, harm):.2f} | {np.median(some) if some else float('nan'):.4f} |")
    text = "\n".join(lines) + "\n"
    if asked.output:
        asked.output.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
