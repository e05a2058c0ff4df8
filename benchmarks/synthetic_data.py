"""How near made-up inputs come to real ones: statistics of every convolution of two trained ResNets on CIFAR-10.

    python benchmarks/synthetic_data.py -o benchmarks/results/synthetic_data.md

For each kind of input, against the first 512 test images: the mean distance of channel means in units of the real
standard deviation, and the mean |log| ratio of standard deviations, over all channels of all convolutions.
"""

from __future__ import annotations

import os
import runpy
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

from onnxprune.calibration.base import load_data
from onnxprune.model import open_model
from onnxprune.signature import ports_of

SHARED = Path(os.environ.get("ONNXPRUNE_SHARED", Path(__file__).resolve().parents[2] / "shared"))
SAMPLES = 512

Floats = npt.NDArray[np.float64]


def statistics(session: onnxruntime.InferenceSession, names: list[str], images: Floats) -> list[tuple[Floats, Floats]]:
    """Mean and standard deviation of each channel of each value."""
    arrays = session.run(names, {session.get_inputs()[0].name: images.astype(np.float32)})
    return [(array.mean((0, 2, 3)), array.std((0, 2, 3))) for array in arrays]


def rows(path: Path, real: Floats) -> list[str]:
    """A line of the table for each kind of input."""
    proto = onnx.load(path)
    names = [node.output[0] for node in proto.graph.node if node.op_type == "Conv"]
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    ports = ports_of(open_model(path))
    sizes = {ports[0].symbol(0): SAMPLES}
    synthetic = next(load_data("synthetic", ports, samples=SAMPLES, sizes=sizes).batches()).feed[ports[0].name]
    due = statistics(session, names, real)
    lines = []
    for kind, images in (
        ("white noise", np.random.default_rng(0).standard_normal(real.shape)),
        ("synthetic", synthetic),
    ):
        pairs = list(zip(statistics(session, names, images), due, strict=True))
        means = np.mean([np.abs((found[0] - true[0]) / true[1]).mean() for found, true in pairs])
        spreads = np.mean([np.abs(np.log(found[1] / true[1])).mean() for found, true in pairs])
        lines.append(f"| {path.stem} | {kind} | {means:.3f} | {spreads:.3f} |")
    return lines


@click.command()
@click.option("-o", "--output", type=click.Path(path_type=Path))
def main(output: Path | None) -> None:
    folder = SHARED / "data" / "cifar10"
    real, _ = runpy.run_path(str(folder / "load.py"))["tensors"]("test", SAMPLES)
    lines = ["| model | inputs | error of means | error of spreads |", "|---|---|---|---|"]
    for name in ("resnet20", "resnet56"):
        lines += rows(folder / f"{name}.onnx", real)
    table = "\n".join(lines) + "\n"
    click.echo(table, nl=False)
    if output is not None:
        output.write_text(f"`python benchmarks/synthetic_data.py -o {output}`\n\n{table}", encoding="utf-8")


if __name__ == "__main__":
    main()
