"""The cost of a run, as ratios to the part that nobody can avoid: reading and writing the file, and the imports.

    python benchmarks/speed.py -o benchmarks/results/speed.md
    python benchmarks/speed.py --before ../another/checkout

For each model: the time of the analysis alone (opened file in, groups out); the wall clock of `onnxprune compress` as a
process of its own, over that of importing the same packages plus copying the file; and the peak resident memory of that
process less that of the imports, over the size of the file. Best of several runs, taken in turn so that noise hits all.
Modules are compiled before, as those of an installed package are.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import click

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("ONNXPRUNE_SHARED", ROOT.parent / "shared"))
MODELS = ("tv.resnet50.ts17", "tv.swin_t.dy", "tv.swin_t.ts17", "tv.convnext_tiny.dy", "timm.mixer_s32_224.dy")
# The cut alone, the same work in every revision: what compress does by default beside it has changed over time.
OPTIONS = ("--criterion", "l1", "--ratio", "0.5", "--recover", "none")
# What a run without data loads; onnxprune first, which has onnx_ir loaded without sympy.
IMPORTS = "import onnxprune, onnx, onnx_ir, onnxruntime, numpy, click"


# A child's peak counts from the memory of the process that starts it, so a small one does.
LAUNCHER = """
import os, sys, time
start = time.perf_counter()
_, status, usage = os.wait4(os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ), 0)
print(time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)
sys.exit(os.waitstatus_to_exitcode(status))
"""


@dataclass(frozen=True)
class Cost:
    """Of a child process: seconds on the clock and on the processor, and peak resident bytes."""

    wall: float
    processor: float
    peak: int

    def least(self, other: Cost) -> Cost:
        """The better of each."""
        return Cost(min(self.wall, other.wall), min(self.processor, other.processor), min(self.peak, other.peak))


def in_process(tree: Path, folder: Path, *arguments: str) -> Cost:
    """Time Python with these arguments, with the package of a checkout and its modules compiled."""
    paths = {"PYTHONPATH": str(tree), "PYTHONPYCACHEPREFIX": str(folder / "compiled"), "PYTHONDONTWRITEBYTECODE": ""}
    command = [sys.executable, "-S", "-c", LAUNCHER, sys.executable, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, **paths}, cwd=folder)
    wall, processor, peak = done.stdout.split()[-3:]
    return Cost(float(wall), float(processor), int(peak))


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


@dataclass(frozen=True)
class Figures:
    """The best of several runs: in seconds, and what each process cost."""

    analysis: float
    copy: float
    imports: Cost
    compress: Cost
    before: Cost | None

    def least(self, other: Figures) -> Figures:
        """The better of each."""
        return Figures(
            min(self.analysis, other.analysis),
            min(self.copy, other.copy),
            self.imports.least(other.imports),
            self.compress.least(other.compress),
            self.before.least(other.before) if self.before and other.before else None,
        )


def measure(path: Path, folder: Path, repeats: int, before: Path | None) -> Figures:
    compress = ("-m", "onnxprune", "compress", str(path), "-o", str(folder / "pruned.onnx"), "-q", *OPTIONS)

    def once() -> Figures:
        return Figures(
            analysis_seconds(path),
            copy_seconds(path, folder),
            in_process(ROOT, folder, "-c", IMPORTS),
            in_process(ROOT, folder, *compress),
            in_process(before, folder, *compress) if before else None,
        )

    once()  # compiles the modules
    return functools.reduce(Figures.least, (once() for _ in range(repeats)))


def row(name: str, path: Path, nodes: int, best: Figures) -> str:
    size, compress = path.stat().st_size, best.compress
    cells = [
        name,
        str(nodes),
        f"{size / 1e6:.0f}",
        f"{best.analysis * 1e3:.0f}",
        f"{best.copy:.2f}",
        f"{best.imports.wall:.2f}",
        f"{compress.wall:.2f}",
        f"{compress.processor:.2f}",
        f"{compress.wall / (best.imports.wall + best.copy):.2f}",
        f"{compress.peak / size:.2f}",
        f"{(compress.peak - best.imports.peak) / size:.2f}",
    ]
    if best.before is not None:
        wall, processor = compress.wall / best.before.wall, compress.processor / best.before.processor
        cells += [f"{best.before.wall:.2f}", f"{best.before.processor:.2f}", f"{wall:.2f}", f"{processor:.2f}"]
    return f"| {' | '.join(cells)} |"


@click.command()
@click.option("-o", "--output", type=click.File("w"), default="-", help="where to write the table; -: here")
@click.option("--repeats", default=5, help="runs of each")
@click.option("--before", type=click.Path(path_type=Path), help="another checkout, measured in the same turns")
@click.argument("names", nargs=-1)
def main(output: TextIO, repeats: int, before: Path | None, names: tuple[str, ...]) -> None:
    """Measure and write the table."""
    sys.path.insert(0, str(SHARED / "zoo"))
    import onnx
    import zoo

    head = ["model", "nodes", "MB", "analysis ms", "copy s", "imports s", "compress s", "processor s", "ratio"]
    head += ["memory, all", "less imports"]
    head += ["before s", "its processor s", "compress / before", "processor / before"] if before else []
    lines = [
        "# Speed and memory",
        "",
        f"Best of {repeats}; `python benchmarks/speed.py -o benchmarks/results/speed.md`; "
        f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, onnx {onnx.__version__}.",
        "",
        "ratio: compress / (imports + copying the file). processor: seconds of the processor. memory: peak resident / "
        "file, in all and less the imports'.",
        "",
        f"| {' | '.join(head)} |",
        f"|{'---|' * len(head)}",
    ]
    for name in names or MODELS:
        with tempfile.TemporaryDirectory() as text:
            folder = Path(text)
            path = Path(zoo.save(name, str(folder / "model.onnx")))
            lines.append(row(name, path, zoo.info(name)["nodes"], measure(path, folder, repeats, before)))
            print(lines[-1], file=sys.stderr)
    text = "\n".join(lines) + "\n"
    output.write(text)


if __name__ == "__main__":
    main()
