"""int8 end to end: what is in the file, what ONNX Runtime makes of it, and how near it is to float."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

import onnxprune as op
from onnxprune.errors import UsageError
from onnxprune.steps.quantize import processor
from tests.conftest import ROOT, Build

NETWORK = """
    net (float[batch, 3, 8, 8] x) => (float[batch, 4] y)
    <float[8, 3, 3, 3] w, float[8] b, float[8, 8, 3, 3] v, float[4, 8] u, float[4] c>
    {
        h = Conv<pads = [1, 1, 1, 1]>(x, w, b)  r = Relu(h)
        k = Conv<pads = [1, 1, 1, 1]>(r, v)  s = Add(k, r)  t = Relu(s)
        p = GlobalAveragePool(t)  f = Flatten(p)  y = Gemm<transB = 1>(f, u, c)
    }
"""


def images(count: int = 64, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 3, 8, 8)).astype(np.float32)


def quantized(path: Path, folder: Path, data: Any = None, to: str = "int8", **options: Any) -> tuple[op.Report, Path]:
    target = folder / "small.onnx"
    report = op.quantize(path, to, data=images() if data is None else data, **options).save(target)
    return report, target


def as_run(path: Path, folder: Path) -> Counter[str]:
    """The operators that ONNX Runtime runs."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(folder / "as_run.onnx")
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(folder / "as_run.onnx").graph.node)


def run(path: Path, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: x})[0])


def snr(exact: np.ndarray, found: np.ndarray) -> float:
    return float(10 * np.log10(np.square(exact).sum() / np.square(exact - found).sum()))


def test_every_operator_runs_on_integers(build: Build, tmp_path: Path) -> None:
    path = build(NETWORK)
    report, target = quantized(path, tmp_path)
    found = as_run(target, tmp_path)
    assert found["QLinearConv"] == 2
    assert found["QLinearAdd"] == found["QLinearGlobalAveragePool"] == found["QGemm"] == 1
    assert not found["Conv"] + found["Gemm"] + found["Relu"]
    assert [layer["bits"] for layer in report.quantization["layers"]] == [report.quantization["weight_bits"]] * 3
    x = images(seed=1)
    assert snr(run(path, x), run(target, x)) > 25


def test_the_file_holds_integers_and_no_float_weights(build: Build, tmp_path: Path) -> None:
    _, target = quantized(build(NETWORK), tmp_path)
    graph = onnx.load(target).graph
    sizes = {each.data_type: 0 for each in graph.initializer}
    for each in graph.initializer:
        sizes[each.data_type] += int(np.prod(each.dims))
    assert sizes[onnx.TensorProto.INT8] == 8 * 27 + 8 * 72 + 32 + (8 + 4)  # weights and zero points
    assert sizes[onnx.TensorProto.INT32] == 8 + 8 + 4
    assert sizes[onnx.TensorProto.FLOAT] < 80  # scales


def test_fitting_beats_rounding_to_nearest(build: Build, tmp_path: Path) -> None:
    path, x = build(NETWORK), images(seed=1)
    exact = run(path, x)
    found = {
        rounding: snr(exact, run(quantized(path, tmp_path, rounding=rounding, weight_bits=3)[1], x))
        for rounding in ("fitted", "nearest")
    }
    assert found["fitted"] > found["nearest"] + 3


def test_the_same_again_gives_the_same_bytes(build: Build, tmp_path: Path) -> None:
    path = build(NETWORK)
    first = quantized(path, tmp_path)[1].read_bytes()
    assert quantized(path, tmp_path)[1].read_bytes() == first


def test_layers_that_are_to_stay_in_float_do(build: Build, tmp_path: Path) -> None:
    path = build(NETWORK)
    report, target = quantized(path, tmp_path, keep_float="u*")
    kept = [layer for layer in report.quantization["layers"] if not layer["bits"]]
    assert [(layer["operator"], layer["why"]) for layer in kept] == [("Gemm", "--keep-float u*")]
    assert as_run(target, tmp_path)["QGemm"] == 0
    with pytest.raises(UsageError, match="no layer of this model is called 'conv7'"):
        quantized(path, tmp_path, keep_float="conv7")


def test_the_output_of_a_convolution_keeps_its_name(build: Build, tmp_path: Path) -> None:
    path = build(
        "net (float[1, 3, 8, 8] x) => (float[1, 4, 8, 8] y) <float[4, 3, 1, 1] w> { h = Conv(x, w)  y = Relu(h) }"
    )
    _, target = quantized(path, tmp_path, data=images()[:16])
    assert [output.name for output in onnx.load(target).graph.output] == ["y"]
    assert as_run(target, tmp_path)["QLinearConv"] == 1


@pytest.mark.parametrize("opset", [9, 11, 13, 21])
def test_old_opsets_stay_as_they_are(build: Build, tmp_path: Path, opset: int) -> None:
    path = build(NETWORK, opset=opset)
    report, target = quantized(path, tmp_path)
    assert {each.domain: each.version for each in onnx.load(target).opset_import}[""] == (opset if opset > 9 else 13)
    assert any("opset raised" in note for note in report.notes) == (opset == 9)
    assert as_run(target, tmp_path)["QLinearConv"] == 2
    x = images(seed=1)
    assert snr(run(path, x), run(target, x)) > 25


def test_products_that_feed_a_softmax_stay_float_between(build: Build, tmp_path: Path) -> None:
    """Of a product with a bias behind it the result is not quantized: what reads it is in float."""
    path = build("""
        net (float[batch, 16] x) => (float[batch, 4] y) <float[16, 8] w, float[8] b, float[8, 4] v>
        { h = MatMul(x, w)  s = Add(h, b)  g = Softmax(s)  y = MatMul(g, v) }
    """)
    _, target = quantized(path, tmp_path, data=np.random.default_rng(0).standard_normal((64, 16)).astype(np.float32))
    found = as_run(target, tmp_path)
    assert found["QGemm"] == found["MatMulIntegerToFloat"] == 1
    assert found["QuantizeLinear"] == 2


def test_signed_activations_on_arm(build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor.platform, "machine", lambda: "aarch64")
    path, x = build(NETWORK), images(seed=1)
    report, target = quantized(path, tmp_path)
    assert (report.quantization["activations"], report.quantization["weight_bits"]) == ("int8", 8)
    assert snr(run(path, x), run(target, x)) > 25


def test_shared_weights_stay_shared(build: Build, tmp_path: Path) -> None:
    path = build("""
        net (float[batch, 8] x) => (float[batch, 8] y) <float[8, 8] w>
        { h = MatMul(x, w)  r = Relu(h)  y = MatMul(r, w) }
    """)
    x = np.random.default_rng(0).standard_normal((64, 8)).astype(np.float32)
    _, target = quantized(path, tmp_path, data=x)
    integers = [each for each in onnx.load(target).graph.initializer if each.data_type == onnx.TensorProto.INT8]
    assert sum(int(np.prod(each.dims)) for each in integers) <= 2 * 64 + 2
    assert snr(run(path, x), run(target, x)) > 20


def test_without_data_inputs_are_made_up_and_that_is_said(build: Build, tmp_path: Path) -> None:
    path = build(NETWORK)
    report = op.quantize(path, "int8").save(tmp_path / "small.onnx")
    assert any("made-up inputs" in note for note in report.notes)


def test_a_model_without_weights_is_refused(build: Build) -> None:
    path = build("net (float[batch, 4] x) => (float[batch, 4] y) { y = Relu(x) }")
    with pytest.raises(UsageError, match="nothing in this model can run on integers"):
        op.quantize(path, "int8", data=np.ones((8, 4), np.float32))


def test_prune_recover_quantize(tmp_path: Path) -> None:
    """What was pruned is quantized, and compared with the original."""
    result = op.compress(
        ROOT / "models/digits_resnet.onnx", data=ROOT / "models/digits_calibration.npz", ratio=0.25, quantize="int8"
    )
    report = result.save(tmp_path / "small.onnx")
    assert report.quantization["type"] == "int8"
    assert [step["step"] for step in result.recipe["step"]] == ["prune", "recover", "quantize", "clean"]
    assert report.file_bytes[1] < 0.25 * report.file_bytes[0]
    assert next(score.after for score in report.quality.scores if score.metric == "agreement") > 0.9


def test_lstm(tmp_path: Path) -> None:
    path, data = ROOT / "models/digits_lstm.onnx", ROOT / "models/digits_calibration.npz"
    report = op.quantize(path, "int8", data=data).save(tmp_path / "small.onnx")
    assert Counter(node.op_type for node in ir.load(tmp_path / "small.onnx").graph)["DynamicQuantizeLSTM"]
    assert report.file_bytes[1] < 0.3 * report.file_bytes[0]
    assert next(score.after for score in report.quality.scores if score.metric == "agreement") > 0.97


def test_entries_that_have_to_stay_zero_do(build: Build) -> None:
    """Fitting would fill them."""
    from onnxprune.data.given import as_data
    from onnxprune.model.signature import ports_of
    from onnxprune.pipeline.run import inspect
    from onnxprune.steps.base import Context
    from onnxprune.steps.state import State

    w = np.random.default_rng(0).standard_normal((8, 3, 3, 3)).astype(np.float32)
    mask = np.random.default_rng(1).random(w.shape) < 0.5
    path = build(NETWORK, w=w * mask)
    analysis = inspect(path)
    state = replace(State.of(analysis, path), zeros={"w": mask})
    context = Context(data=as_data(images(), ports_of(analysis.model)))
    model = op.Quantize("int8")(state, context).model
    integers = model.graph.initializers["w/integers"].const_value.numpy()
    assert not integers[~mask].any()
    assert integers[mask].any()
