"""What lies between an initializer and the operator that reads it, against ONNX Runtime, and the way back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from onnxprune.analysis.layers import layers
from onnxprune.ops.weight_paths import weight_path
from onnxprune.pipeline.run import inspect
from tests.conftest import Build
from tests.recovery.pruned import outputs

RNG = np.random.default_rng(0)
# What makes the weight [6, 4] of the product, and what is stored.
LINKS: dict[str, tuple[str, str]] = {
    "transpose": ("v = Transpose(w)", "float[4, 6] w"),
    "three axes in another order": (
        "u = Transpose<perm = [2, 0, 1]>(w)  v = Reshape(u, s)",
        "float[3, 4, 2] w, int64[2] s = {6, -1}",
    ),
    "cast": ("v = Cast<to = 1>(w)", "float16[6, 4] w"),
    "reshape": ("v = Reshape(w, s)", "float[2, 3, 4] w, int64[2] s = {6, -1}"),
    "squeeze": ("v = Squeeze(w, s)", "float[6, 1, 4] w, int64[1] s = {1}"),
    "unsqueeze": ("u = Unsqueeze(w, s)  v = Flatten<axis = 2>(u)", "float[6, 4] w, int64[1] s = {0}"),
    "scaled": ("v = Mul(w, c)", "float[6, 4] w, float[4] c = {0.5, 2, -3, 0.25}"),
    "scaled from the left": ("v = Mul(c, w)", "float[6, 4] w, float[6, 1] c = {0.5, 2, -3, 0.25, 1, 7}"),
    "divided": ("v = Div(w, c)", "float[6, 4] w, float c = {0.3}"),
    "permuted": ("v = Gather(w, s)", "float[6, 4] w, int64[6] s = {5, 0, -2, 1, 2, 3}"),
    "part": ("v = Gather<axis = 1>(w, s)", "float[6, 7] w, int64[4] s = {5, 0, 3, 1}"),
    "one of a stack": ("v = Gather(w, s)", "float[3, 6, 4] w, int64 s = {1}"),
    "several": ("a = Cast<to = 1>(w)  b = Mul(a, c)  v = Transpose(b)", "float16[4, 6] w, float c = {0.3}"),
    "integers": ("v = DequantizeLinear(w, c)", "int8[6, 4] w, float c = {0.01}"),
    "integers turned": (
        "u = DequantizeLinear<axis = 0>(w, c, z)  v = Transpose(u)",
        "uint8[4, 6] w, float[4] c = {0.01, 0.02, 0.1, 0.3}, uint8[4] z = {120, 130, 100, 128}",
    ),
}


def written(build: Build, name: str) -> Path:
    nodes, stored = LINKS[name]
    kind, _, shape = stored.partition(" w")[0].partition("[")
    shape = tuple(int(size) for size in shape.rstrip("]").split(","))
    weight = RNG.integers(-90, 90, shape) + 128 * (kind == "uint8") if "int" in kind else RNG.standard_normal(shape)
    graph = f"net (float[n, 6] x) => (float[n, 4] y) <{stored}> {{ {nodes}  y = MatMul(x, v) }}"
    return build(graph, w=weight)


@pytest.mark.parametrize("name", LINKS)
def test_weight_is_what_the_operator_sees(name: str, build: Build) -> None:
    path = written(build, name)
    (layer,) = layers(inspect(path))
    seen = outputs(path, [{"x": np.eye(6, dtype=np.float32)}])
    np.testing.assert_allclose(layer.path.read(), seen, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", LINKS)
def test_way_back(name: str, build: Build) -> None:
    """Another weight, stored and read again, is that weight, to the precision of its type."""
    (layer,) = layers(inspect(written(build, name)))
    before, stored = layer.path.read(), layer.stored.const_value.numpy().copy()
    wanted = before + 0.1 * RNG.standard_normal(before.shape)
    array, beside = layer.path.back(wanted)
    for node, slot, other in beside:
        node.inputs[slot].const_value = ir.Tensor(other)
    layer.stored.const_value = ir.Tensor(array.astype(stored.dtype))
    step = float(np.abs(wanted).max()) / 80 if layer.path.quantized else 2e-3
    np.testing.assert_allclose(layer.path.read(), wanted, atol=step)
    assert (name in ("part", "one of a stack")) == (wanted.size < stored.size)
    if wanted.size < stored.size:
        changed = (layer.stored.const_value.numpy() != stored).sum()
        assert changed == wanted.size < stored.size


@pytest.mark.parametrize(
    "nodes",
    [
        "v = Mul(w, w)",  # no product with a constant
        "n = ReduceL2<axes = [0]>(w)  v = Div(w, n)",  # the factor depends on the weight
        "v = Gather(w, twice)",  # an entry that is there twice cannot be two numbers
        "i = Cast<to = 6>(w)  v = Cast<to = 1>(i)",  # rounded to integers
        "v = Exp(w)",
    ],
)
def test_what_cannot_be_led_back(nodes: str, build: Build) -> None:
    graph = f"""
        net (float[n, 6] x) => (float[n, 6] y) <float[6, 6] w, int64[6] twice = {{0, 0, 1, 2, 3, 4}}>
        {{ {nodes}  y = MatMul(x, v) }}
    """
    analysis = inspect(build(graph, w=RNG.standard_normal((6, 6))))
    (product,) = (node for _, node in analysis.operators if node.op_type == "MatMul")
    shapes = analysis.shapes.shapes
    assert weight_path(product.inputs[1], lambda value: shapes.get(value.name or "")) is None
