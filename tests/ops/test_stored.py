"""What integers represent, against what ONNX Runtime computes with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune.model.file import open_model
from onnxprune.ops.dequantize import entries_each, is_scale, real_weights
from onnxprune.pipeline.scores import score
from tests.conftest import Build

RNG = np.random.default_rng(0)
# Type of the weights, shapes of scale and zero point.
PRODUCTS = {
    "8 bits per tensor": ("int8", (), ()),
    "8 bits per column": ("uint8", (6,), (6,)),
    "8 bits, no zero point": ("int8", (6,), None),
}


def write(path: Path, nodes: list[onnx.NodeProto], arrays: dict[str, np.ndarray], opset: int = 21) -> Path:
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", None])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    onnx.save_model(helper.make_model(graph, opset_imports=imports, ir_version=10), path)
    return path


def real(path: Path, name: str = "q") -> np.ndarray:
    value = open_model(path).graph.initializers[name]
    found = real_weights(value, value.const_value.numpy())
    assert found is not None
    return found


def by_runtime(path: Path) -> np.ndarray:
    """What the model multiplies with: its answer to the identity."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": np.eye(8, dtype=np.float32)})[0]


@pytest.mark.parametrize("form", PRODUCTS)
def test_dequantize_linear(tmp_path: Path, form: str) -> None:
    dtype, scale, zero = PRODUCTS[form]
    arrays = {"q": RNG.integers(0, 100, (8, 6)).astype(dtype), "s": RNG.random(scale, np.float32) + np.float32(0.1)}
    if zero is not None:
        arrays["z"] = RNG.integers(0, 100, zero).astype(dtype)
    nodes = [helper.make_node("DequantizeLinear", list(arrays), ["w"]), helper.make_node("MatMul", ["x", "w"], ["y"])]
    path = write(tmp_path / "m.onnx", nodes, arrays)
    np.testing.assert_allclose(real(path), by_runtime(path), rtol=1e-5)
    initializers = open_model(path).graph.initializers
    assert [is_scale(initializers[name]) for name in arrays] == [False, True, True][: len(arrays)]


def test_dequantize_linear_in_blocks(tmp_path: Path) -> None:
    arrays = {"q": RNG.integers(-100, 100, (8, 6)).astype(np.int8), "s": RNG.random((4, 6), np.float32)}
    nodes = [
        helper.make_node("DequantizeLinear", list(arrays), ["w"], axis=0, block_size=2),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    path = write(tmp_path / "m.onnx", nodes, arrays)
    np.testing.assert_allclose(real(path), by_runtime(path), rtol=1e-5)


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("bits", [4, 8])
def test_matmul_n_bits(tmp_path: Path, bits: int, zeros: bool) -> None:
    """Two rows of 3 blocks of 16; the model multiplies with the transpose."""
    arrays = {
        "q": RNG.integers(0, 256, (5, 3, 16 * bits // 8)).astype(np.uint8),
        "s": RNG.random(15, np.float32),
    }
    if zeros:
        arrays["z"] = RNG.integers(0, 256, 5 * -(-3 * bits // 8)).astype(np.uint8)
    node = helper.make_node(
        "MatMulNBits", ["x", *arrays], ["y"], domain="com.microsoft", K=48, N=5, bits=bits, block_size=16
    )
    path = write(tmp_path / "m.onnx", [node], arrays)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    expected = session.run(None, {"x": np.eye(48, dtype=np.float32)})[0]
    found = real(path)
    assert found.shape == (5, 3, 16 * bits // 8, 8 // bits)
    np.testing.assert_allclose(found.reshape(5, 48).T, expected, rtol=1e-4, atol=1e-5)
    assert entries_each(open_model(path).graph.initializers["q"]) == 8 // bits


@pytest.mark.parametrize("criterion", ["l1", "l2"])
def test_quantized_weights_score_as_the_real_ones(build: Build, criterion: str) -> None:
    """The large integers of a channel with a small scale are small weights."""
    q = RNG.integers(-127, 128, (8, 4)).astype(np.int8)
    scale = np.linspace(2, 0.01, 8).astype(np.float32)
    quantized = build(
        """
        net (float[n, 4] x) => (float[n, 3] y)
        <int8[8, 4] q, float[8] s, float[8, 3] v>
        { w = DequantizeLinear<axis = 0>(q, s)  h = Gemm<transB = 1>(x, w)  y = MatMul(h, v) }
        """,
        name="quantized",
        q=q,
        s=scale,
    )
    plain = build(
        """
        net (float[n, 4] x) => (float[n, 3] y)
        <float[8, 4] w, float[8, 3] v>
        { h = Gemm<transB = 1>(x, w)  y = MatMul(h, v) }
        """,
        name="plain",
        w=q * scale[:, None],
        v={t.name: numpy_helper.to_array(t) for t in onnx.load(quantized).graph.initializer}["v"],
    )
    np.testing.assert_allclose(score(quantized, criterion)["q"], score(plain, criterion)["w"], rtol=1e-5)
