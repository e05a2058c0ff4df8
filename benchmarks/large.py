"""A transformer of several gigabytes through `onnxprune compress`: time against copying the file, and peak memory.

    python benchmarks/large.py --gigabytes 4 --folder /tmp/large -o benchmarks/results/large.md

The model is synthetic (random weights, external data) and written layer by layer; it takes its size in disk twice over.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from pathlib import Path

import click
import numpy as np
import onnx
from onnx import TensorProto, helper

HIDDEN, HEADS, FEED_FORWARD, VOCABULARY, SEQUENCE = 2048, 16, 8192, 32_000, 8
LAYER_WEIGHTS = {
    "query": (HIDDEN, HIDDEN),
    "key": (HIDDEN, HIDDEN),
    "value": (HIDDEN, HIDDEN),
    "output": (HIDDEN, HIDDEN),
    "up": (HIDDEN, FEED_FORWARD),
    "down": (FEED_FORWARD, HIDDEN),
    "scale": (HIDDEN,),
    "shift": (HIDDEN,),
}
LAYER_BYTES = sum(4 * int(np.prod(shape)) for shape in LAYER_WEIGHTS.values())


def write_model(path: Path, gigabytes: float) -> None:
    """Write the model and its external data, one weight at a time."""
    layers = max(1, round((gigabytes * 1e9 - 8 * HIDDEN * VOCABULARY) / LAYER_BYTES))
    tensors, nodes = [], [helper.make_node("Gather", ["embedding", "tokens"], ["x0"])]
    rng = np.random.default_rng(0)
    block = (rng.standard_normal(1 << 22) * 0.02).astype(np.float32)
    with open(f"{path}.data", "wb") as out:
        tensors.append(weight(out, "embedding", (VOCABULARY, HIDDEN), block, rng))
        for layer in range(layers):
            tensors += [weight(out, f"{name}{layer}", shape, block, rng) for name, shape in LAYER_WEIGHTS.items()]
            nodes += layer_nodes(layer)
        tensors.append(weight(out, "head", (HIDDEN, VOCABULARY), block, rng))
    nodes.append(helper.make_node("MatMul", [f"x{layers}", "head"], ["logits"]))
    targets = {"split": [0, 0, HEADS, HIDDEN // HEADS], "merge": [0, 0, HIDDEN]}
    constants = [onnx.numpy_helper.from_array(np.array(value), name) for name, value in targets.items()]
    graph = helper.make_graph(
        nodes,
        "large",
        [helper.make_tensor_value_info("tokens", TensorProto.INT64, ["batch", SEQUENCE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", SEQUENCE, VOCABULARY])],
        tensors + constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())


def weight(out, name: str, shape: tuple[int, ...], block: np.ndarray, rng: np.random.Generator) -> TensorProto:  # type: ignore[no-untyped-def, type-arg]
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape, data_location=TensorProto.EXTERNAL)
    left = int(np.prod(shape))
    place = {"location": Path(out.name).name, "offset": out.tell(), "length": 4 * left}
    for key, value in place.items():
        tensor.external_data.add(key=key, value=str(value))
    while left:
        part = np.roll(block, int(rng.integers(len(block))))[:left]
        out.write(part.tobytes())
        left -= len(part)
    return tensor


def layer_nodes(i: int) -> list[onnx.NodeProto]:
    """Pre-norm attention and feed-forward with residuals."""

    def node(op: str, inputs: list[str], output: str, **attributes: object) -> onnx.NodeProto:
        return helper.make_node(
            op, [f"{name}{i}" if name[-1] != "_" else name[:-1] for name in inputs], [f"{output}{i}"], **attributes
        )

    nodes = [node("LayerNormalization", ["x", "scale", "shift"], "n", axis=-1)]
    for part, perm in (("query", [0, 2, 1, 3]), ("key", [0, 2, 3, 1]), ("value", [0, 2, 1, 3])):
        nodes += [
            node("MatMul", ["n", part], f"{part}_flat"),
            node("Reshape", [f"{part}_flat", "split_"], f"{part}_split"),
            node("Transpose", [f"{part}_split"], f"{part}_heads", perm=perm),
        ]
    return [
        *nodes,
        node("MatMul", ["query_heads", "key_heads"], "scores"),
        node("Softmax", ["scores"], "attention", axis=-1),
        node("MatMul", ["attention", "value_heads"], "mixed"),
        node("Transpose", ["mixed"], "mixed_back", perm=[0, 2, 1, 3]),
        node("Reshape", ["mixed_back", "merge_"], "merged"),
        node("MatMul", ["merged", "output"], "projected"),
        node("Add", ["x", "projected"], "middle"),
        node("MatMul", ["middle", "up"], "wide"),
        node("Relu", ["wide"], "active"),
        node("MatMul", ["active", "down"], "narrow"),
        helper.make_node("Add", [f"middle{i}", f"narrow{i}"], [f"x{i + 1}"]),
    ]


class MemoryWatch(threading.Thread):
    """Peak of a child's resident memory, in all and without pages of mapped files, sampled every 10 ms."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.status = Path(f"/proc/{pid}/status")
        self.resident = self.anonymous = 0

    def run(self) -> None:
        while True:
            try:
                fields = dict(line.split(":", 1) for line in self.status.read_text().splitlines() if ":" in line)
                self.resident = max(self.resident, int(fields["VmRSS"].split()[0]) * 1024)
                self.anonymous = max(self.anonymous, int(fields["RssAnon"].split()[0]) * 1024)
            except (OSError, KeyError):
                return
            time.sleep(0.01)


def compress(path: Path, target: Path) -> tuple[float, MemoryWatch]:
    command = [sys.executable, "-m", "onnxprune", "compress", str(path), "-o", str(target), "-q"]
    start = time.perf_counter()
    pid = os.posix_spawn(command[0], command, os.environ)
    watch = MemoryWatch(pid)
    watch.start()
    _, status = os.waitpid(pid, 0)
    if status:
        raise SystemExit("compress failed")
    return time.perf_counter() - start, watch


@click.command()
@click.option("--gigabytes", default=4.0)
@click.option("--folder", type=Path, default=Path("/tmp/large"), help="where the files go; removed afterwards")
@click.option("-o", "--output", type=Path)
def main(gigabytes: float, folder: Path, output: Path | None) -> None:
    """Write the model, copy it, compress it."""
    folder.mkdir(parents=True)
    try:
        path = folder / "model.onnx"
        write_model(path, gigabytes)
        size = Path(f"{path}.data").stat().st_size
        start = time.perf_counter()
        shutil.copyfile(f"{path}.data", folder / "copy.data")
        copying = time.perf_counter() - start
        (folder / "copy.data").unlink()
        wall, watch = compress(path, folder / "pruned.onnx")
        left = Path(f"{folder / 'pruned.onnx'}.data").stat().st_size
    finally:
        shutil.rmtree(folder)
    text = (
        "# A large model\n\n"
        f"`python benchmarks/large.py --gigabytes {gigabytes:g}`\n\n"
        "| GB | GB left | copying s | compress s | ratio | peak resident GB | of it not mapped files GB |\n"
        "|---|---|---|---|---|---|---|\n"
        f"| {size / 1e9:.2f} | {left / 1e9:.2f} | {copying:.1f} | {wall:.1f} | {wall / copying:.2f} "
        f"| {watch.resident / 1e9:.2f} | {watch.anonymous / 1e9:.2f} |\n"
    )
    if output:
        output.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
