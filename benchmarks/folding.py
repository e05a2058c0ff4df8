"""What folding saves when there is no data at all: accuracy of trained models at 1.25x, 1.5x and 2x fewer MACs.

    python benchmarks/folding.py -o benchmarks/results/folding.md

The same plan each time (criterion l1): units dropped; folded into those that stay; and, for comparison, recovered on
made-up inputs. Accuracy on the 450 test digits, and on the first 2000 test images of CIFAR-10.
"""

from __future__ import annotations

import os
import runpy
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt

from onnxprune.analysis import inspect as opening
from onnxprune.model.file import save
from onnxprune.passes.remove_dead import RemoveDead
from onnxprune.passes.remove_units import RemoveUnits
from onnxprune.pipeline import run as pipeline
from onnxprune.runtime.session import Session
from onnxprune.steps.plan import Plan
from onnxprune.steps.recover.methods import recover_layers

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("ONNXPRUNE_SHARED", ROOT.parent / "shared"))
TARGETS = (1.25, 1.5, 2.0)

Array = npt.NDArray[Any]


def models(images: int) -> Iterator[tuple[Path, Array, Array]]:
    """Each file with test images and labels."""
    with np.load(ROOT / "models" / "digits_test.npz") as digits:
        yield ROOT / "models" / "digits_resnet.onnx", digits["input"], digits["labels"]
    cifar = SHARED / "data" / "cifar10"
    tensors = runpy.run_path(str(cifar / "load.py"))["tensors"]
    yield cifar / "resnet20.onnx", *tensors("test", images)


def accuracy(path: Path, images: Array, labels: Array) -> float:
    session = Session(path, optimized=True)
    parts = np.array_split(images, -(-len(images) // 500))
    found = [next(iter(session.run({session.inputs[0].name: part}).values())).argmax(1) for part in parts]
    return float(np.mean(np.concatenate(found) == labels))


def cut(path: Path, plan: Plan, how: str, folder: Path) -> Path:
    """The model with the plan applied in one of the ways."""
    analysis = pipeline.inspect(path)
    RemoveUnits(analysis, plan.keep(analysis))(analysis.model)
    RemoveDead()(analysis.model)
    model = analysis.model
    if how != "drop":
        original, pruned = pipeline.inspect(path), opening.analyze_model(model)
        recover_layers(original, pruned, plan.keep(original), how.split()[-1], None)
    save(model, folder / "cut.onnx")
    return folder / "cut.onnx"


WAYS = ("drop", "fold", "synthetic batchnorm", "synthetic reconstruct")


@click.command()
@click.option("-o", "--output", type=click.Path(path_type=Path))
@click.option("--images", default=2_000, show_default=True, help="Test images of CIFAR-10.")
def main(output: Path | None, images: int) -> None:
    lines = [f"| model | fewer MACs | whole | {' | '.join(WAYS)} |", f"|---|---|{'---|' * (len(WAYS) + 1)}"]
    with tempfile.TemporaryDirectory() as folder:
        for path, *test in models(images):
            whole = accuracy(path, *test)
            for target in TARGETS:
                plan = pipeline.compress(path, criterion="l1", target=[f"macs={1 / target:.4f}"]).plan
                found = [accuracy(cut(path, plan, way, Path(folder)), *test) for way in WAYS]
                lines.append(
                    f"| {path.stem} | {target}x | {whole:.1%} | {' | '.join(f'{each:.1%}' for each in found)} |"
                )
                click.echo(lines[-1])
    if output is not None:
        output.write_text(f"# Folding, without data\n\n{(__doc__ or '').strip()}\n\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
