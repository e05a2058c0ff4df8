"""What data costs: processor seconds and memory of `compress --data`, beside one forward pass over the samples.

    python benchmarks/data_cost.py -o benchmarks/results/data_cost.md
    python benchmarks/data_cost.py bert-base rfb320 --options "--memory 1GB"

Every row is a process of its own: `onnxprune compress MODEL --target macs=0.75 --data SAMPLES`. The forward pass is
ONNX Runtime over the same samples, eight at a time, loading left out. Memory is the peak of the process beyond that of
`onnxprune --version` and beyond the size of the model file. One thread, unless --threads says more.

BERT-base, ViT-B and the wide network have random weights: they say something of cost only.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import onnx
import onnxruntime
from large import MemoryWatch
from recovery_common import CIFAR, ROOT, SHARED, calibration
from row_tables import revision
from synthetic_networks import bert, vit, wide

TARGET = "--target macs=0.75"
AT_ONCE = 8
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Case:
    """A network and its samples, made when they are asked for."""

    model: Callable[[Path], Path]
    samples: Callable[[int], Arrays]
    counts: tuple[int, ...]


def cifar(count: int) -> Arrays:
    return {"input": calibration(0, count)}


def images(size: int, name: str = "input") -> Callable[[int], Arrays]:
    """Smooth random pictures."""

    def make(count: int) -> Arrays:
        rng = np.random.default_rng(0)
        small = rng.standard_normal((count, 3, size // 16, size // 16)).astype(np.float32)
        return {name: small.repeat(16, 2).repeat(16, 3)}

    return make


def tokens(count: int) -> Arrays:
    return {"tokens": np.random.default_rng(0).integers(0, 30_000, (count, 128))}


def features(count: int) -> Arrays:
    return {"input": np.random.default_rng(0).standard_normal((count, 8192)).astype(np.float32)}


def saved(*names: str, folder: Path) -> Callable[[int], Arrays]:
    return lambda count: {name: np.load(folder)[name][:count] for name in names}


def zoo(name: str) -> Callable[[Path], Path]:
    def load(folder: Path) -> Path:
        sys.path.insert(0, str(SHARED / "zoo"))
        import zoo

        onnx.save(zoo.load(name), folder / f"{name}.onnx")
        return folder / f"{name}.onnx"

    return load


def file(path: Path) -> Callable[[Path], Path]:
    return lambda _: path


TRAINED = SHARED / "real" / "trained"
CASES = {
    "digits_transformer": Case(
        file(ROOT / "models" / "digits_transformer.onnx"),
        saved("input", folder=ROOT / "models" / "digits_calibration.npz"),
        (512,),
    ),
    "resnet20": Case(file(CIFAR / "resnet20.onnx"), cifar, (125, 250, 500)),
    "resnet56": Case(file(CIFAR / "resnet56.onnx"), cifar, (500,)),
    "rfb320": Case(file(SHARED / "real" / "rfb320.onnx"), lambda count: _of_rfb(count), (40,)),
    "dtln_2": Case(
        file(TRAINED / "dtln_2.onnx"), saved("input_4", "input_5", folder=TRAINED / "dtln_2.calibration.npz"), (512,)
    ),
    "fcn_resnet50, 320 x 320, sizes not known": Case(zoo("tv.fcn_resnet50.ts17hw"), images(320, "x"), (24,)),
    "mobilenet_v2": Case(zoo("tv.mobilenet_v2.ts17"), images(64, "x"), (128,)),
    "wide, 8192 features": Case(wide, features, (512,)),
    "bert-base": Case(bert, tokens, (32, 128)),
    "vit-b": Case(vit, images(224), (64,)),
}


def _of_rfb(count: int) -> Arrays:
    pixels = images(320)(count)["input"]
    return {"input": pixels[:, :, :240]}


def spent(command: list[str], threads: int) -> tuple[float, float, float, str]:
    """Processor seconds, seconds on the clock and peak megabytes of a process, and its last line."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, env=environment, stdout=said, stderr=subprocess.STDOUT)
        watch = MemoryWatch(process.pid)  # what the system adds up for a child begins with the size of its parent
        watch.start()
        _, status, used = os.wait4(process.pid, 0)
        said.seek(0)
        text = said.read().strip()
    if status:
        raise click.ClickException(f"{shlex.join(command)}: {text[-400:]}")
    return used.ru_utime + used.ru_stime, time.perf_counter() - start, watch.resident / 1e6, text


def forward(model: Path, samples: Arrays) -> float:
    """Processor seconds of one pass over the samples."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    fixed = [each.shape[0] for each in session.get_inputs() if each.shape and isinstance(each.shape[0], int)]
    step = fixed[0] if fixed else AT_ONCE
    count = len(next(iter(samples.values())))
    start = time.process_time()
    for first in range(0, count, step):
        session.run(None, {name: array[first : first + step] for name, array in samples.items()})
    return time.process_time() - start


def bytes_of(model: Path) -> int:
    return sum(path.stat().st_size for path in model.parent.glob(f"{model.name}*"))


def rows(names: tuple[str, ...], options: str, threads: int) -> Iterator[str]:
    program = [sys.executable, "-m", "onnxprune"]
    _, _, idle, _ = spent([*program, "--version"], 1)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        for name in names or CASES:
            case = CASES[name]
            model = case.model(folder)
            for count in case.counts:
                samples = case.samples(count)
                np.savez(folder / "samples.npz", **samples)
                command = [*program, "compress", str(model), "--data", str(folder / "samples.npz")]
                command += [*shlex.split(f"{TARGET} {options}"), "-o", str(folder / "out" / "out.onnx")]
                (folder / "out").mkdir(exist_ok=True)
                cpu, clock, peak, _ = spent(command, threads)
                once = forward(model, samples)
                size = bytes_of(model) / 1e6
                cells = [name, f"{size:.0f}", str(count), f"{cpu:.0f}", f"{clock:.0f}", f"{once:.1f}"]
                cells += [f"{cpu / once:.0f}", f"{peak - idle - size:.0f}"]
                yield f"| {' | '.join(cells)} |"


@click.command(help=__doc__)
@click.argument("names", nargs=-1, type=click.Choice(list(CASES)))
@click.option("--options", default="", help="Further options of compress.")
@click.option("--threads", default=1, help="OMP_NUM_THREADS of compress.")
@click.option("-o", "--output", type=click.Path(path_type=Path))
def main(names: tuple[str, ...], options: str, threads: int, output: Path | None) -> None:
    lines = [
        "# What data costs",
        "",
        f"Written by `python benchmarks/data_cost.py -o benchmarks/results/data_cost.md` at {revision()}, which says "
        f"how it is measured; {threads} thread{'s' if threads > 1 else ''}{f', {options}' if options else ''}.",
        "",
        "| network | MB | samples | processor s | clock s | one forward pass s | passes | MB beyond the file |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for line in rows(names, options, threads):
        lines.append(line)
        print(line, file=sys.stderr, flush=True)
        if output:
            output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
