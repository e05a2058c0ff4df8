"""A cut asked for by latency, measured again: ResNet-56 of CIFAR-10 at `--target latency=0.6`, batch 1 and batch 64.

    python benchmarks/latency_target.py -o benchmarks/results/latency_target.md

One thread on the CPU. The ratio is that of `onnxprune benchmark`: processor time of interleaved runs in sessions made
anew, with its confidence interval; accuracy on the 10,000 test images; 500 unlabeled images to score and recover with.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
CIFAR = ROOT.parent / "shared" / "data" / "cifar10"
MODEL = CIFAR / "resnet56.onnx"
IMAGES = 500
LIMIT = 0.6


def measured(batch: int, folder: Path) -> str:
    """A row of the table."""
    from onnxprune.data.base import load_data
    from onnxprune.evaluation.benchmark.comparison import compare
    from onnxprune.evaluation.metrics import evaluate, metric
    from onnxprune.model.file import open_model
    from onnxprune.model.signature import ports_of
    from onnxprune.pipeline import run as pipeline
    from onnxprune.runtime.latency import Setting, measure_latency

    ports = ports_of(open_model(MODEL))
    setting, target = Setting(batch=batch), folder / f"batch{batch}.onnx"
    started = time.perf_counter()
    result = pipeline.compress(
        MODEL, data=load_data(str(folder / "train.npz"), ports), target=[f"latency={LIMIT}"], setting=setting
    )
    result.save(target)
    seconds = time.perf_counter() - started
    found = compare(*measure_latency([MODEL, target], setting, seconds=5.0))
    test = load_data(str(folder / "test.npz"), ports, labels="labels", batch=500)
    accuracy = evaluate(target, test, metric("accuracy", True))
    macs = result.report.after.macs / result.report.before.macs
    ratio = f"{found.ratio:.3f} ({found.low:.3f} to {found.high:.3f})"
    return f"| {batch} | {LIMIT} | {ratio} | {macs:.3f} | {accuracy:.2%} | {seconds:.0f} |"


@click.command()
@click.option("-o", "--output", type=click.Path(path_type=Path))
@click.option("--batch", multiple=True, type=int, default=(1, 64), show_default=True)
def main(output: Path | None, batch: tuple[int, ...]) -> None:
    sys.path.insert(0, str(CIFAR))
    from load import tensors

    rows = ["| batch | asked | measured | MACs left | accuracy | seconds |", "|---|---|---|---|---|---|"]
    with tempfile.TemporaryDirectory() as name:
        for split, count in (("train", IMAGES), ("test", 10_000)):
            images, labels = tensors(split, count)
            np.savez(Path(name) / f"{split}.npz", input=images, labels=labels)
        rows += [measured(size, Path(name)) for size in batch]
    text = "\n".join(["# A cut asked for by latency: ResNet-56", "", (__doc__ or "").split("\n\n", 1)[1], *rows, ""])
    click.echo(text)
    if output is not None:
        output.write_text(text)


if __name__ == "__main__":
    main()
