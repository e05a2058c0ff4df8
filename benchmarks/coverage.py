"""Compress every model of the zoo at ratio 0.5 and write what came out, model by model.

    python benchmarks/coverage.py --jobs 2 -o benchmarks/results/coverage.md
    python benchmarks/coverage.py --match 'hf.*'            # some of them, to the terminal

A model counts as done when the file written passes the onnx checker with strict shape inference, runs in ONNX Runtime
with the interface of the original, and has finite outputs: `Result.save` refuses to write any other. The weights of the
zoo are random: this is about structure, not accuracy.
"""

from __future__ import annotations

import fnmatch
import os
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TextIO

import click

SHARED = Path(os.environ.get("ONNXPRUNE_SHARED", Path(__file__).resolve().parents[2] / "shared"))
REAL = ("real/rfb320.onnx", "real/mnist_cntk.onnx", "real/superres_no_opset.onnx")
CIFAR = tuple(f"data/cifar10/resnet{depth}{exporter}.onnx" for depth in (20, 56) for exporter in ("", ".dynamo"))


@dataclass
class Row:
    """The outcome for one model. `error` is empty when a file was written."""

    model: str
    error: str = ""
    nodes: int = 0
    unruled: dict[str, int] = field(default_factory=dict)
    groups: int = 0
    parameters: float = 0.0
    macs: float = 0.0
    untouched: float = 0.0
    why: str = ""
    seconds: float = 0.0


def compress(name: str) -> Row:
    from onnxprune.errors import OnnxpruneError
    from onnxprune.pipeline import run as pipeline

    with tempfile.TemporaryDirectory() as folder:
        path = model_file(name, Path(folder))
        start = time.perf_counter()
        try:
            analysis = pipeline.inspect(path)
            untouched, why = left_alone(analysis)
            row = Row(
                name, nodes=len(analysis.model.graph), unruled=dict(analysis.unruled), untouched=untouched, why=why
            )
            result = pipeline.compress(path, criterion="l1", ratio=0.5, recover="none")
            report = result.save(Path(folder) / "pruned.onnx")
        except OnnxpruneError as error:
            return Row(name, error=f"{type(error).__name__}: {error}".replace(str(path), name))
    row.groups = len(report.groups)
    row.parameters = report.after.parameters / max(1, report.before.parameters)
    row.macs = report.after.macs / max(1, report.before.macs)
    row.seconds = time.perf_counter() - start
    return row


def model_file(name: str, folder: Path) -> Path:
    if name.endswith(".onnx"):
        return SHARED / name
    sys.path.insert(0, str(SHARED / "zoo"))
    import zoo

    return Path(zoo.save(name, str(folder / f"{name}.onnx")))


def left_alone(analysis) -> tuple[float, str]:  # type: ignore[no-untyped-def]
    """The share of parameters in weights without any prunable axis, and the commonest reasons for it."""
    from onnxprune.model.weights import is_weight

    touched = {occurrence.tensor for group in analysis.groups for occurrence in group.occurrences}
    total, alone = 0, 0
    reasons: Counter[str] = Counter()
    for name, value in analysis.model.graph.initializers.items():
        if value.const_value is None or not is_weight(value):
            continue
        total += value.const_value.size
        if name not in touched:
            alone += value.const_value.size
            for frozen in analysis.frozen:
                if frozen.tensor == name:
                    reasons[f"{frozen.reason.text} [{frozen.reason.op_type or 'interface'}]"] += value.const_value.size
    return alone / max(1, total), "; ".join(text for text, _ in reasons.most_common(2))


def to_markdown(rows: list[Row]) -> str:
    done = [row for row in rows if not row.error]
    kept = sorted(row.parameters for row in done)
    lines = [
        "# Coverage at ratio 0.5",
        "",
        f"{len(done)} of {len(rows)} models came out valid; parameters left: median {median(kept):.3f}, "
        f"{sum(value <= 0.4 for value in kept)} models at 0.40 or less, "
        f"{sum(value > 0.75 for value in kept)} above 0.75. "
        f"Written by `python benchmarks/coverage.py --jobs 2 -o benchmarks/results/coverage.md`.",
        "",
        "`untouched`: the share of parameters in weights none of whose axes can be pruned, and why.",
        "",
        "| model | nodes | without a rule | groups | parameters left | MACs left | untouched | why | s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if row.error:
            lines.append(f"| {row.model} | | | | | | | {row.error} | |")
        else:
            unruled = ", ".join(f"{name} {count}" for name, count in sorted(row.unruled.items()))
            lines.append(
                f"| {row.model} | {row.nodes} | {unruled} | {row.groups} | {row.parameters:.3f} | {row.macs:.3f} "
                f"| {row.untouched:.3f} | {row.why.replace('|', '/')} | {row.seconds:.1f} |"
            )
    return "\n".join(lines) + "\n"


@click.command()
@click.option("--match", default="*", help="shell pattern on model names")
@click.option("--jobs", default=1, help="processes")
@click.option("-o", "--output", type=click.File("w"), default="-", help="where to write the table; -: here")
def main(match: str, jobs: int, output: TextIO) -> None:
    """Compress the zoo and write the table."""
    sys.path.insert(0, str(SHARED / "zoo"))
    import zoo

    names = [name for name in (*CIFAR, *REAL, *zoo.names()) if fnmatch.fnmatch(name, match)]
    with ProcessPoolExecutor(jobs) as pool:
        rows = []
        for row in pool.map(compress, names):
            rows.append(row)
            print(f"{row.model:48} {row.error or f'{row.parameters:.3f} left, {row.seconds:.1f} s'}", file=sys.stderr)
    text = to_markdown(rows)
    output.write(text)


if __name__ == "__main__":
    main()
