"""How near made-up inputs come to real ones: statistics of every convolution of two trained ResNets on CIFAR-10.

    python benchmarks/synthetic_data.py -o benchmarks/results/synthetic_data.md

For each kind of input, against the first 512 test images: the mean distance of channel means in units of the real
standard deviation, and the mean |log| ratio of standard deviations, over all channels of all convolutions. "matched":
the files' BatchNormalizations are folded, so the first one is put back, with its statistics of 2000 training images.
"""

from __future__ import annotations

import os
import runpy
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime

from onnxprune.data.base import NO_HINTS, Hints, load_data
from onnxprune.data.sources.synthetic import hints_of
from onnxprune.model.file import open_model
from onnxprune.model.signature import ports_of

SHARED = Path(os.environ.get("ONNXPRUNE_SHARED", Path(__file__).resolve().parents[2] / "shared"))
SAMPLES = 512

Floats = npt.NDArray[np.float64]


def statistics(session: onnxruntime.InferenceSession, names: list[str], images: Floats) -> list[tuple[Floats, Floats]]:
    """Mean and standard deviation of each channel of each value."""
    arrays = session.run(names, {session.get_inputs()[0].name: images.astype(np.float32)})
    return [(array.mean((0, 2, 3)), array.std((0, 2, 3))) for array in arrays]


def with_first_batchnorm(proto: onnx.ModelProto, train: Floats) -> ir.Model:
    """The first Conv, and behind it the BatchNormalization that training would have left there."""
    conv = next(node for node in proto.graph.node if node.op_type == "Conv")
    part = onnx.ModelProto()
    part.CopyFrom(proto)
    del part.graph.node[:], part.graph.output[:], part.graph.value_info[:]
    part.graph.node.append(conv)
    part.graph.output.add(name=conv.output[0])
    session = onnxruntime.InferenceSession(part.SerializeToString(), providers=["CPUExecutionProvider"])
    ((mean, std),) = statistics(session, [conv.output[0]], train)
    running = {"scale": np.ones_like(mean), "bias": np.zeros_like(mean), "mean": mean, "variance": std**2}
    part.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in running.items())
    part.graph.node.append(onnx.helper.make_node("BatchNormalization", [conv.output[0], *running], ["normal"]))
    part.graph.output[0].name = "normal"
    return ir.from_proto(part)


def rows(path: Path, real: Floats, train: Floats) -> list[str]:
    """A line of the table for each kind of input."""
    proto = onnx.load(path)
    hints = hints_of(with_first_batchnorm(proto, train))
    names = [node.output[0] for node in proto.graph.node if node.op_type == "Conv"]
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    due = statistics(session, names, real)
    kinds = {
        "white noise": np.random.default_rng(0).standard_normal(real.shape),
        "synthetic": synthetic(path, NO_HINTS),
        "synthetic, matched": synthetic(path, hints),
    }
    lines = []
    for kind, images in kinds.items():
        pairs = list(zip(statistics(session, names, images), due, strict=True))
        means = np.mean([np.abs((found[0] - true[0]) / true[1]).mean() for found, true in pairs])
        spreads = np.mean([np.abs(np.log(found[1] / true[1])).mean() for found, true in pairs])
        lines.append(f"| {path.stem} | {kind} | {means:.3f} | {spreads:.3f} |")
    return lines


def synthetic(path: Path, hints: Hints) -> Floats:
    ports = ports_of(open_model(path))
    data = load_data("synthetic", ports, samples=SAMPLES, sizes={ports[0].symbol(0): SAMPLES}, hints=hints)
    return next(data.batches()).feed[ports[0].name]


@click.command()
@click.option("-o", "--output", type=click.Path(path_type=Path))
def main(output: Path | None) -> None:
    onnxruntime.set_default_logger_severity(3)
    folder = SHARED / "data" / "cifar10"
    tensors = runpy.run_path(str(folder / "load.py"))["tensors"]
    (real, _), (train, _) = tensors("test", SAMPLES), tensors("train", 2000)
    lines = ["| model | inputs | error of means | error of spreads |", "|---|---|---|---|"]
    for name in ("resnet20", "resnet56"):
        lines += rows(folder / f"{name}.onnx", real, train)
    table = "\n".join(lines) + "\n"
    click.echo(table, nl=False)
    if output is not None:
        output.write_text(f"`python benchmarks/synthetic_data.py -o {output}`\n\n{table}", encoding="utf-8")


if __name__ == "__main__":
    main()
