"""A step of training for every model of the zoo, of `models/` and of `real/`: is there a gradient, does the loss fall?

    python benchmarks/train_coverage.py                  # all that is not measured yet, and the table
    python benchmarks/train_coverage.py --match 'hf.*'

The teacher is the model, the student the model with every trained weight moved by two percent of its deviation; inputs
are made up. The step goes down the gradient by as much as should lower the loss by a fifth, by a tenth of that where it
did not fall, and so on; the first that lowers the loss counts. Each finished model is a line of `train_coverage.jsonl`
beside the table and not measured again. Each has a process of its own.
"""

from __future__ import annotations

import fnmatch
import json
import multiprocessing
import os
import sys
import tempfile
import time
import warnings
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("ONNXPRUNE_SHARED", ROOT.parent / "shared"))
SECONDS = 300
OUTPUT = ROOT / "benchmarks" / "results" / "train_coverage.md"


@dataclass
class Row:
    """The outcome for one model.

    Attributes:
        model: its name.
        error: why there was no step; empty where one lowered the loss.
        trained, left: weights that a step changes, and further floats of more than one entry that stay.
        before, after: the loss.
        seconds: for all of it.
    """

    model: str
    error: str = ""
    trained: int = 0
    left: int = 0
    before: float = 0.0
    after: float = 0.0
    seconds: float = 0.0


def names() -> list[str]:
    """All models: those of the zoo by their names, others by their files."""
    sys.path.insert(0, str(SHARED / "zoo"))
    import zoo

    files = [*(SHARED / "real").rglob("*.onnx"), *(ROOT / "models").glob("*.onnx")]
    return [*zoo.names(), *sorted(str(path) for path in files)]


def opened(name: str, folder: Path) -> tuple[Any, dict[str, Any]]:
    """A model and inputs for it."""
    from onnxprune.model.file import open_model
    from onnxprune.model.signature import ports_of, synthetic_feed

    if name.endswith(".onnx"):
        model = open_model(name)
        return model, synthetic_feed(ports_of(model), {}, seed=0)
    import zoo

    path = zoo.save(name, str(folder / f"{name}.onnx"))
    return open_model(path), zoo.inputs(name, seed=0)


def step(name: str) -> Row:
    """Take the step."""
    import numpy as np
    import torch

    from onnxprune.analysis.inspect import analyze_model
    from onnxprune.errors import OnnxpruneError
    from onnxprune.steps.train.computing import Computing
    from onnxprune.steps.train.distil import Targets, Teacher
    from onnxprune.steps.train.losses import Objective
    from onnxprune.steps.train.network import Network
    from onnxprune.steps.train.options import TrainOptions
    from onnxprune.steps.train.parallel import Processes

    torch.set_num_threads(1)
    start, how = time.perf_counter(), Computing(torch.device("cpu"))
    options = TrainOptions(normalization="none", statistics="frozen")
    with tempfile.TemporaryDirectory() as place:
        try:
            model, arrays = opened(name, Path(place))
            model = analyze_model(model).model
            feed = {key: torch.as_tensor(np.asarray(value)) for key, value in arrays.items()}
            network = Network(model, options, [feed], how, Processes(), {})
            targets = Targets(Teacher(model), [], how, 0)
            said = targets._compute(feed)
            generator = torch.Generator().manual_seed(0)
            with torch.no_grad():
                for weight in network.weights.values():
                    size = float(weight.std(correction=0)) or 1.0
                    weight += 0.02 * size * torch.randn(weight.shape, generator=generator)
            objective = Objective(options, network.module.outputs, labelled=False, targets=targets, sample=said)

            def loss() -> Any:
                return objective(network(feed, training=False), None, said)

            row = Row(name, left=len(network.freeze_unreached(loss())))
            row.trained = len(network.weights)
            descend(network, loss, row)
        except OnnxpruneError as error:
            row = Row(name, error=f"{type(error).__name__}: {error}")
    row.seconds = time.perf_counter() - start
    return row


def descend(network: Any, loss: Any, row: Row) -> None:
    """Steps of falling size, until one lowers the loss."""
    import torch

    first = loss()
    weights = list(network.weights.values())
    slopes = torch.autograd.grad(first, weights)
    row.before = float(first)
    square = float(sum(slope.double().square().sum() for slope in slopes))
    if not square or square != square:
        row.error = f"the gradient is {square:g}, the loss {row.before:g}"
        return
    old = [weight.detach().clone() for weight in weights]
    rate = 0.2 * row.before / square
    for _ in range(6):
        with torch.no_grad():
            for weight, was, slope in zip(weights, old, slopes, strict=True):
                weight.copy_(was - rate * slope)
            row.after = float(loss())
        if row.after < row.before:
            return
        rate /= 10
    row.error = f"no step lowers the loss of {row.before:g}; the last gave {row.after:g}"


def _in_process(name: str, pipe: Any) -> None:
    warnings.simplefilter("ignore")
    try:
        pipe.send(asdict(step(name)))
    except BaseException as error:
        pipe.send(
            asdict(Row(name, error=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"))
        )


def measured(name: str) -> Row:
    """The row of one model, from a process of its own."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(False)
    process = context.Process(target=_in_process, args=(name, theirs))
    process.start()
    theirs.close()
    try:
        row = Row(**ours.recv()) if ours.poll(SECONDS) else Row(name, error=f"takes more than {SECONDS} s")
    except EOFError:
        row = Row(name, error="the process died")
    process.kill()
    process.join()
    return row


def to_markdown(rows: list[Row]) -> str:
    done = [row for row in rows if not row.error]
    lines = [
        "# A step of training for every model",
        "",
        "Written by `python benchmarks/train_coverage.py`, which says how. Weights of the zoo are random.",
        "",
        f"A step lowers the loss of {len(done)} of {len(rows)} models ({len(done) / max(len(rows), 1):.1%}), "
        f"{sum(row.seconds for row in rows) / 60:.0f} minutes in all.",
        "",
        "| model without a step | why |",
        "|---|---|",
        *(f"| {shown(row.model)} | {row.error.replace('|', '/')[:200]} |" for row in rows if row.error),
        "",
        "| model | weights trained | out of reach of the loss | loss before | after |",
        "|---|---|---|---|---|",
        *(
            f"| {shown(row.model)} | {row.trained} | {row.left or ''} | {row.before:.3g} | {row.after:.3g} |"
            for row in done
        ),
    ]
    return "\n".join(lines) + "\n"


def shown(name: str) -> str:
    path = Path(name)
    return f"{path.parent.name}/{path.name}" if name.endswith(".onnx") else name


@click.command()
@click.option("--match", default="*", help="shell pattern on names")
@click.option("-o", "--output", type=Path, default=OUTPUT, show_default=True)
def main(match: str, output: Path) -> None:
    """Measure what is missing and write the table."""
    cache = output.with_suffix(".jsonl")
    rows = [Row(**json.loads(line)) for line in cache.read_text().splitlines()] if cache.exists() else []
    known = {shown(row.model) for row in rows}
    for name in names():
        if shown(name) in known or not fnmatch.fnmatch(shown(name), match):
            continue
        row = measured(name)
        row.model = shown(name)
        rows.append(row)
        with cache.open("a") as file:
            file.write(json.dumps(asdict(row)) + "\n")
        print(f"{row.model:48} {row.seconds:6.1f} s  {row.error or f'{row.before:.3g} -> {row.after:.3g}'}", flush=True)
    rows.sort(key=lambda row: ("/" in row.model, row.model))
    output.write_text(to_markdown(rows), encoding="utf-8")
    print(Counter(bool(row.error) for row in rows), file=sys.stderr)


if __name__ == "__main__":
    main()
