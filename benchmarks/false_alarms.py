"""Does the benchmark see differences where there are none, and miss those that there are?

    python benchmarks/false_alarms.py -o benchmarks/results/false_alarms.md

Real runs. The same file twice has to come out as "no real difference", with at most one false alarm in twenty tries. A
chain of 21 equal convolutions takes 5% longer than one of 20, which has to be found in at least sixteen tries of
twenty. `--load` keeps so many processes busy meanwhile, to see what a shared machine does to the answers.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnxprune.evaluation.benchmark.comparison import Comparison, compare
from onnxprune.runtime.latency import Latency, Setting, measure_latency

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("ONNXPRUNE_SHARED", ROOT.parent / "shared"))
BUSY = "while True: sum(range(10**6))"


def chain(length: int, channels: int, side: int, path: Path) -> Path:
    """So many equal convolutions, one after the other; nothing between them that could be merged."""
    shape = ["batch", channels, side, side]
    rng = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(
            (rng.standard_normal((channels, channels, 3, 3)) / (3 * channels**0.5)).astype(np.float32), f"w{i}"
        )
        for i in range(length)
    ]
    nodes = [helper.make_node("Conv", [f"h{i}", f"w{i}"], [f"h{i + 1}"], pads=[1, 1, 1, 1]) for i in range(length)]
    ends = [helper.make_tensor_value_info(f"h{i}", TensorProto.FLOAT, shape) for i in (0, length)]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@contextlib.contextmanager
def busy(processes: int) -> Iterator[None]:
    """Keep so many processes computing."""
    children = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(processes)]
    try:
        yield
    finally:
        for child in children:
            child.kill()


def subjects(folder: Path) -> dict[str, tuple[Path, Path]]:
    """Pairs of files by name; a name that ends in 5% is a true difference."""
    digits = ROOT / "models" / "digits_transformer.onnx"
    pairs = {"digits_transformer twice": (digits, digits)}
    for name in ("resnet20", "resnet56"):
        path = SHARED / "data" / "cifar10" / f"{name}.onnx"
        if path.exists():
            pairs[f"{name} twice"] = (path, path)
    for channels, side in ((16, 16), (32, 32)):
        files = [chain(length, channels, side, folder / f"{length}x{channels}.onnx") for length in (20, 21)]
        pairs[f"chain of {channels} channels, 5%"] = (files[0], files[1])
    return pairs


def row(name: str, tries: list[tuple[Latency, Comparison]]) -> str:
    ratios = [comparison.ratio for _, comparison in tries]
    widths = [comparison.high / comparison.low - 1 for _, comparison in tries]
    right = [comparison.real == name.endswith("5%") for _, comparison in tries]
    # The difference is not only to be seen but to be seen in the right direction.
    if name.endswith("5%"):
        right = [ok and comparison.ratio > 1 for ok, (_, comparison) in zip(right, tries, strict=True)]
    median = np.median([latency.median for latency, _ in tries]) * 1e3
    return (
        f"| {name} | {median:.2f} ms | {min(ratios):.3f} to {max(ratios):.3f} | {np.median(widths):.1%} "
        f"| {sum(right)} of {len(tries)} |"
    )


@click.command()
@click.option("--tries", default=20, show_default=True)
@click.option(
    "--seconds", default=3.0, show_default=True, help="Of measuring per model, as onnxprune benchmark has it."
)
@click.option("--load", default=0, show_default=True, help="Processes to keep busy meanwhile.")
@click.option("--only", default="", help="Pairs whose name has this in it.")
@click.option("-o", "--output", type=click.Path(path_type=Path))
def main(tries: int, seconds: float, load: int, only: str, output: Path | None) -> None:
    """Write the table."""
    lines = [
        f"`python benchmarks/false_alarms.py {' '.join(sys.argv[1:])}`: {seconds:g} s per model and try, 1 thread, "
        f"batch 1, {os.cpu_count()} cores, {load} other processes kept busy; load average at the start "
        f"{os.getloadavg()[0]:.1f}.",
        "",
        "| models | median | ratios found | width of the interval | right |",
        "|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as folder, busy(load):
        for name, pair in subjects(Path(folder)).items():
            if only in name:
                found = []
                for seed in range(tries):
                    first, other = measure_latency(pair, Setting(), seconds=seconds, seed=seed)
                    found.append((first, compare(first, other)))
                    click.echo(f"{name}: {found[-1][1].words}", err=True)
                lines.append(row(name, found))
                click.echo(lines[-1], err=True)
    text = "\n".join(lines) + "\n"
    click.echo(text)
    if output:
        output.write_text(text)


if __name__ == "__main__":
    main()
