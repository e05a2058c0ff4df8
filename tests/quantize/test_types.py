"""Every type promises the same: a valid file with the same interface, near the original; and the way back to floats."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

import onnxprune as op
from onnxprune.errors import UsageError
from onnxprune.steps.quantize.base import TYPES
from tests.conftest import ROOT, Build

NETWORK = """
    net (float[batch, 3, 8, 8] x) => (float[batch, 4] y)
    <float[8, 3, 3, 3] w, float[8] b, float[8, 64] v, float[64] d, float[4, 64] u, float[4] c>
    {
        h = Conv<pads = [1, 1, 1, 1]>(x, w, b)  r = Relu(h)  p = GlobalAveragePool(r)  f = Flatten(p)
        m = MatMul(f, v)  a = Add(m, d)  t = Tanh(a)  y = Gemm<transB = 1>(t, u, c)
    }
"""
X = np.random.default_rng(0).standard_normal((64, 3, 8, 8)).astype(np.float32)


def run(path: Path, x: np.ndarray = X, *, as_written: bool = False) -> np.ndarray:
    """`as_written`: ONNX Runtime rearranges nothing; else it may round activations of products with integer weights."""
    options = onnxruntime.SessionOptions()
    if as_written:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: x})[0])


def snr(exact: np.ndarray, found: np.ndarray) -> float:
    return float(10 * np.log10(np.square(exact).sum() / max(np.square(exact - found).sum(), 1e-30)))


def operators(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(path).graph.node)


def made(path: Path, to: str, name: str = "small.onnx") -> Path:
    target = path.with_name(name)
    op.quantize(path, to, data=X).save(target)
    return target


@pytest.mark.parametrize("name", [name for name in TYPES if name != "float"])
def test_each_type(name: str, build: Build) -> None:
    path = build(NETWORK)
    small = made(path, name)
    assert snr(run(path), run(small)) > (18 if name == "int4-weights" else 25)
    assert small.read_bytes() == made(path, name, "again.onnx").read_bytes()
    back = made(small, "float", "back.onnx") if "16" not in name else small
    assert not {each for each in operators(back) if "Quant" in each or "Integer" in each or "NBits" in each}
    assert snr(run(path), run(back)) > (18 if name == "int4-weights" else 25)


@pytest.mark.parametrize("name", ["int8-weights", "int4-weights"])
def test_weights_alone_come_back_exactly(name: str, build: Build) -> None:
    small = made(build(NETWORK), name)
    assert operators(small)["MatMulNBits"] >= 1
    back = made(small, "float", "back.onnx")
    np.testing.assert_allclose(run(back, as_written=True), run(small, as_written=True), rtol=1e-4, atol=1e-5)


def test_weights_of_pairs_come_back_exactly(build: Build) -> None:
    """What each DequantizeLinear gives, written out, is a weight of the float file."""
    small = made(build(NETWORK), "int8")
    graph = onnx.load(small).graph
    arrays = {each.name: onnx.numpy_helper.to_array(each) for each in graph.initializer}
    back = [onnx.numpy_helper.to_array(each) for each in onnx.load(made(small, "float", "back.onnx")).graph.initializer]
    weights = [node for node in graph.node if node.op_type == "DequantizeLinear" and node.input[0] in arrays]
    assert len(weights) >= 4
    for node in weights:
        integers, scale = arrays[node.input[0]], arrays[node.input[1]]
        axis = next((each.i for each in node.attribute if each.name == "axis"), 1)
        wide = scale.reshape([-1 if at == axis else 1 for at in range(integers.ndim)]) if scale.ndim else scale
        exact = integers.astype(np.float32) * wide
        assert any(each.shape == exact.shape and np.array_equal(each, exact) for each in back)


class Samples(CalibrationDataReader):
    def __init__(self, name: str) -> None:
        self._batches = iter([{name: X[at : at + 16]} for at in range(0, 64, 16)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._batches, None)


@pytest.mark.parametrize("form", [QuantFormat.QOperator, QuantFormat.QDQ])
def test_files_of_the_quantizer_of_onnxruntime(form: QuantFormat, build: Build, tmp_path: Path) -> None:
    path = build(NETWORK)
    quantize_static(path, tmp_path / "theirs.onnx", Samples("x"), quant_format=form, per_channel=True)
    back = tmp_path / "back.onnx"
    op.quantize(tmp_path / "theirs.onnx", "float").save(back)
    assert not {name for name in operators(back) if "Quant" in name or "QLinear" in name or name == "QGemm"}
    assert snr(run(path), run(back)) > 25


def test_a_float_file_is_told_so(build: Build) -> None:
    with pytest.raises(UsageError, match="holds no integers"):
        op.quantize(build(NETWORK), "float")


@pytest.mark.parametrize("name", ["int8-dynamic", "int8-weights"])
def test_lstm(name: str, tmp_path: Path) -> None:
    path, data = ROOT / "models/digits_lstm.onnx", ROOT / "models/digits_calibration.npz"
    report = op.quantize(path, name, data=data).save(tmp_path / "small.onnx")
    assert report.file_bytes[1] < 0.3 * report.file_bytes[0]
    assert next(score.after for score in report.quality.scores if score.metric == "agreement") > 0.97
    back = op.quantize(tmp_path / "small.onnx", "float").save(tmp_path / "back.onnx")
    assert not {each for each in operators(tmp_path / "back.onnx") if "Quant" in each}
    assert back.file_bytes[1] > 0.9 * report.file_bytes[0]


def test_numbers_beyond_float16_stay_in_float32(build: Build, tmp_path: Path) -> None:
    weights = np.full((4, 32), 1e6, np.float32)
    path = build(
        "net (float[batch, 4] x) => (float[batch, 32] y) <float[4, 32] w, float[32, 32] v> "
        "{ h = MatMul(x, w)  y = MatMul(h, v) }",
        w=weights,
    )
    report = op.quantize(path, "fp16-weights").save(tmp_path / "small.onnx")
    assert any("beyond the range" in note for note in report.notes)
    assert any("beyond" in note for note in report.notes)
    kinds = Counter(each.data_type for each in onnx.load(tmp_path / "small.onnx").graph.initializer)
    assert kinds == {onnx.TensorProto.FLOAT: 1, onnx.TensorProto.FLOAT16: 1}
