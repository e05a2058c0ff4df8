"""What a run costs, as ratios to what nobody can avoid: reading and writing the file, and the imports.

    python benchmarks/speed.py -o benchmarks/results/speed.md

For each model: the time of the analysis alone (opened file in, groups out); the wall clock of `onnxprune compress` as a
process of its own, over that of importing the same packages plus copying the file; and the peak resident memory of that
process less that of the imports, over the size of the file. Best of several runs, taken in turn so that noise hits all.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TextIO

import click

SHARED = Path(os.environ.get("ONNXPRUNE_SHARED", Path(__file__).resolve().parents[2] / "shared"))
MODELS = ("tv.resnet50.ts17", "tv.swin_t.dy", "tv.swin_t.ts17", "tv.convnext_tiny.dy", "timm.mixer_s32_224.dy")
IMPORTS = "import onnx, onnx_ir, onnxruntime, numpy, networkx, click, rich.console, rich.table"


# A child's peak counts from the memory of the process that starts it, so a small one does.
LAUNCHER = """
import os, sys, time
start = time.perf_counter()
_, status, usage = os.wait4(os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ), 0)
print(time.perf_counter() - start, usage.ru_maxrss * 1024)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def in_process(command: list[str]) -> tuple[float, int]:
    """Seconds and peak resident bytes of a child process."""
    done = subprocess.run([sys.executable, "-S", "-c", LAUNCHER, *command], capture_output=True, text=True, check=True)
    seconds, peak = done.stdout.split()[-2:]
    return float(seconds), int(peak)


def copy_seconds(path: Path, folder: Path) -> float:
    start = time.perf_counter()
    (folder / "copy").write_bytes(path.read_bytes())
    return time.perf_counter() - start


def analysis_seconds(path: Path) -> float:
    """Opened model in, groups out, in this process."""
    from onnxprune.analysis.inspect import analyze_model
    from onnxprune.model.file import open_model

    model = open_model(path)
    start = time.perf_counter()
    analyze_model(model)
    return time.perf_counter() - start


def measure(path: Path, folder: Path, repeats: int) -> dict[str, float]:
    compress = [sys.executable, "-m", "onnxprune", "compress", str(path), "-o", str(folder / "pruned.onnx"), "-q"]
    best = dict.fromkeys(("analysis", "copy", "imports", "compress", "peak", "base"), float("inf"))
    for _ in range(repeats):
        imports, base = in_process([sys.executable, "-c", IMPORTS])
        wall, peak = in_process(compress)
        figures = {
            "analysis": analysis_seconds(path),
            "copy": copy_seconds(path, folder),
            "imports": imports,
            "compress": wall,
            "peak": float(peak),
            "base": float(base),
        }
        best = {key: min(best[key], value) for key, value in figures.items()}
    return best


def row(name: str, path: Path, nodes: int, best: dict[str, float]) -> str:
    size = path.stat().st_size
    unavoidable = best["imports"] + best["copy"]
    memory = (best["peak"] - best["base"]) / size
    return (
        f"| {name} | {nodes} | {size / 1e6:.0f} | {best['analysis'] * 1e3:.0f} | {best['copy']:.2f} "
        f"| {best['imports']:.2f} "
        f"| {best['compress']:.2f} | {best['compress'] / unavoidable:.2f} | {best['peak'] / size:.2f} | {memory:.2f} |"
    )


@click.command()
@click.option("-o", "--output", type=click.File("w"), default="-", help="where to write the table; -: here")
@click.option("--repeats", default=5, help="runs of each")
@click.argument("names", nargs=-1)
def main(output: TextIO, repeats: int, names: tuple[str, ...]) -> None:
    """Measure and write the table."""
    sys.path.insert(0, str(SHARED / "zoo"))
    import onnx
    import zoo

    lines = [
        "# Speed and memory",
        "",
        f"Best of {repeats}; `python benchmarks/speed.py -o benchmarks/results/speed.md`; "
        f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, onnx {onnx.__version__}.",
        "",
        "ratio: compress / (imports + copying the file). memory: peak resident / file, in all and less the imports'.",
        "",
        "| model | nodes | MB | analysis ms | copy s | imports s | compress s | ratio | memory, all | less imports |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name in names or MODELS:
        with tempfile.TemporaryDirectory() as text:
            folder = Path(text)
            path = Path(zoo.save(name, str(folder / "model.onnx")))
            lines.append(row(name, path, zoo.info(name)["nodes"], measure(path, folder, repeats)))
            print(lines[-1], file=sys.stderr)
    text = "\n".join(lines) + "\n"
    output.write(text)


if __name__ == "__main__":
    main()
