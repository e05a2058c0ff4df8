"""How long kernels on integers take by the number of channels: what `prune` aligns to where a quantization follows.

    python benchmarks/integer_kernels.py        # writes benchmarks/results/integer_kernels.md

Three convolutions of 3x3 with as many inputs as outputs, on floats and on integers, one thread, batch 1: medians of the
thread's own time over 40 rounds, all models in turns.
"""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from onnxprune.runtime.providers import CPU
from onnxprune.steps.quantize.processor import find_processor

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "integer_kernels.md"
# Channels that are tried, by the size of the image.
CHANNELS = {
    32: (4, 8, 12, 14, 16, 20, 24, 32),
    16: (12, 15, 16, 17, 18, 20, 24, 28, 32),
    8: (32, 33, 36, 40, 48, 56, 64),
}
LAYERS, ROUNDS = 3, 40
RANDOM = np.random.default_rng(0)


def session(channels: int, size: int, *, integers: bool) -> tuple[onnxruntime.InferenceSession, np.ndarray]:
    """A chain of convolutions and an input for it."""
    nodes, x = [], "x"
    weights = {"s": np.array(0.02, np.float32), "z": np.array(0, np.uint8)}
    weights |= {"k": np.full(channels, 0.01, np.float32), "n": np.zeros(channels, np.int8)}
    for at in range(LAYERS):
        kernel = RANDOM.integers(-127, 128, (channels, channels, 3, 3))
        weights[f"w{at}"] = kernel.astype(np.int8 if integers else np.float32)
        weights[f"b{at}"] = np.zeros(channels, np.int32 if integers else np.float32)
        if integers:
            read = [x, "s", "z", f"w{at}", "k", "n", "s", "z", f"b{at}"]
            nodes.append(helper.make_node("QLinearConv", read, [f"y{at}"], pads=[1] * 4))
        else:
            nodes.append(helper.make_node("Conv", [x, f"w{at}", f"b{at}"], [f"h{at}"], pads=[1] * 4))
            nodes.append(helper.make_node("Relu", [f"h{at}"], [f"y{at}"]))
        x = f"y{at}"
    kind = onnx.TensorProto.UINT8 if integers else onnx.TensorProto.FLOAT
    ports = [helper.make_tensor_value_info(name, kind, [1, channels, size, size]) for name in ("x", x)]
    constants = [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "kernels", ports[:1], ports[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    shape = (1, channels, size, size)
    given = RANDOM.integers(0, 256, shape).astype(np.uint8) if integers else RANDOM.random(shape).astype(np.float32)
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=[CPU]), given


def measured(size: int) -> dict[tuple[int, bool], float]:
    """Median milliseconds by channels, and whether on integers."""
    tried = [(channels, kind) for channels in CHANNELS[size] for kind in (False, True)]
    made = {(channels, kind): session(channels, size, integers=kind) for channels, kind in tried}
    times: dict[tuple[int, bool], list[float]] = {key: [] for key in made}
    for _ in range(ROUNDS):
        for key, (run, given) in made.items():
            start = time.thread_time()
            run.run(None, {"x": given})
            times[key].append(time.thread_time() - start)
    return {key: 1000 * float(np.median(each)) for key, each in times.items()}


def main() -> None:
    """Print the table and write it."""
    revision = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout
    lines = [
        "# Kernels on integers by their width",
        "",
        f"Written by `python benchmarks/integer_kernels.py` on {find_processor([CPU]).name}, ONNX Runtime "
        f"{onnxruntime.__version__}, revision {revision.strip()}. {LAYERS} convolutions of 3x3, one thread, batch 1.",
        "",
        "| image | channels | floats | integers |",
        "|---|---|---|---|",
    ]
    for size, channels in CHANNELS.items():
        found = measured(size)
        lines += [f"| {size}x{size} | {n} | {found[n, False]:.3f} ms | {found[n, True]:.3f} ms |" for n in channels]
    print("\n".join(lines))
    RESULTS.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
