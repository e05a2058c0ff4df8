"""Models quantized by ONNX Runtime's own tools, from end to end.

With weights of 7 bits: where a machine has no VNNI, ONNX Runtime adds pairs of products in 16 bits, 8 bits overflow
there, and which products are paired changes with the units that are left.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
from onnxruntime.quantization.shape_inference import quant_pre_process

from onnxprune.analysis.groups import Analysis
from onnxprune.model.weights import is_weight
from onnxprune.pipeline.result import Report
from onnxprune.pipeline.run import compress, inspect
from tests.oracle import every_other_unit, judge

ROOT = Path(__file__).resolve().parents[1]


class Batches(CalibrationDataReader):  # type: ignore[misc]
    """A few real images."""

    def __init__(self, name: str, images: npt.NDArray[Any]) -> None:
        self.batches = iter([{name: images[i : i + 8]} for i in range(0, 64, 8)])

    def get_next(self) -> dict[str, npt.NDArray[Any]] | None:
        return next(self.batches, None)


@pytest.fixture(scope="session")
def images() -> npt.NDArray[Any]:
    """Digits as the models want them: float32 [n, 1, 8, 8]."""
    with np.load(ROOT / "models" / "digits_test.npz", allow_pickle=False) as arrays:
        found = next(array for array in arrays.values() if array.ndim >= 2)
    return (found.reshape(-1, 1, 8, 8) / found.max()).astype(np.float32)


@pytest.fixture(scope="session")
def prepared(digits: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The models with their norms folded and shapes inferred, as the tools recommend."""
    folder = tmp_path_factory.mktemp("prepared")
    for name, path in digits.items():
        quant_pre_process(str(path), str(folder / f"{name}.onnx"), skip_symbolic_shape=True)
    return {name: folder / f"{name}.onnx" for name in digits}


FORMS: dict[str, dict[str, Any]] = {
    "qdq": {"quant_format": QuantFormat.QDQ, "per_channel": False},
    "qdq-per-channel": {"quant_format": QuantFormat.QDQ, "per_channel": True},
    "qdq-int8-symmetric": {"activation_type": QuantType.QInt8, "extra_options": {"ActivationSymmetric": True}},
    "qdq-uint8-weights": {"weight_type": QuantType.QUInt8},
    "qdq-uint16": {"activation_type": QuantType.QUInt16},
    "qdq-int4-weights": {"weight_type": QuantType.QInt4, "per_channel": True},
    "qoperator": {"quant_format": QuantFormat.QOperator, "per_channel": False},
    "qoperator-per-channel": {"quant_format": QuantFormat.QOperator, "per_channel": True},
}


def quantized(path: Path, target: Path, form: str, images: npt.NDArray[Any]) -> Path:
    reader = Batches(onnx.load(path).graph.input[0].name, images)
    types = {"weight_type": QuantType.QInt8, "activation_type": QuantType.QUInt8}
    quantize_static(str(path), str(target), reader, reduce_range=True, **{**types, **FORMS[form]})
    return target


@functools.cache
def halved(plain: Path) -> Report:
    """What half of a model comes to before it is quantized."""
    return compress(plain, scope="uniform", ratio=0.5, recover="none").report


def spread(quick: dict[str, set[str]], forms: Iterable[str]) -> list[Any]:
    """Each form on each model; those that are not named are slow."""
    return [
        pytest.param(form, model, marks=[] if form in quick[model] else [pytest.mark.slow])
        for form in forms
        for model in quick
    ]


# Each form on one of the models; all pairs with `-m slow`.
STATIC = {
    "resnet": {"qdq-per-channel", "qdq-int8-symmetric", "qdq-uint8-weights", "qoperator-per-channel"},
    "transformer": {"qdq", "qdq-uint16", "qdq-int4-weights", "qoperator"},
}
OPTIMIZED = {
    "resnet": {"qdq-per-channel ORT_ENABLE_ALL", "dynamic ORT_ENABLE_EXTENDED"},
    "transformer": {"qdq-per-channel ORT_ENABLE_EXTENDED", "dynamic ORT_ENABLE_ALL"},
}


def check(path: Path, plain: Path, images: npt.NDArray[Any], folder: Path, exact: bool = True) -> Analysis:
    """Compress at 0.5: valid, as deep as the model was before quantization; and exact."""
    analysis = inspect(path)
    assert not analysis.unruled
    if exact:
        name = onnx.load(path).graph.input[0].name
        verdict = judge(path, every_other_unit(analysis), {name: images[:5]}, folder)
        assert verdict.difference < 1e-4
        assert verdict.effect > 1e-2
    report = compress(path, scope="uniform", ratio=0.5, recover="none").save(folder / "half.onnx")
    before = halved(plain)
    assert (
        report.after.parameters / report.before.parameters < before.after.parameters / before.before.parameters + 0.02
    )
    assert report.before.macs == before.before.macs
    return analysis


@pytest.mark.parametrize(("form", "model"), spread(STATIC, FORMS))
def test_static(form: str, model: str, prepared: dict[str, Path], images: npt.NDArray[Any], tmp_path: Path) -> None:
    path = quantized(prepared[model], tmp_path / "quantized.onnx", form, images)
    analysis = check(path, prepared[model], images, tmp_path)
    plain = inspect(prepared[model])
    assert len(analysis.groups) == len(plain.groups)
    assert sum(group.statistics for group in analysis.groups) == sum(group.statistics for group in plain.groups)


@pytest.mark.parametrize("model", ["resnet", "transformer", "lstm"])
def test_dynamic(model: str, prepared: dict[str, Path], images: npt.NDArray[Any], tmp_path: Path) -> None:
    """Scales follow from the extremes of activations: removing units changes those of all groups they lie in."""
    quantize_dynamic(str(prepared[model]), str(tmp_path / "quantized.onnx"), reduce_range=True)
    analysis = check(tmp_path / "quantized.onnx", prepared[model], images, tmp_path, exact=model != "lstm")
    assert all(group.statistics for group in analysis.groups)


@pytest.mark.parametrize(
    ("form", "model"),
    spread(
        OPTIMIZED,
        [
            f"{form} {level}"
            for form in ("qdq-per-channel", "dynamic")
            for level in ("ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL")
        ],
    ),
)
def test_optimized(form: str, model: str, prepared: dict[str, Path], images: npt.NDArray[Any], tmp_path: Path) -> None:
    """QLinear operators in place of pairs, channels last where that is faster."""
    path = tmp_path / "quantized.onnx"
    form, level = form.split()
    if form == "dynamic":
        quantize_dynamic(str(prepared[model]), str(path), reduce_range=True)
    else:
        quantized(prepared[model], path, form, images)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    check(tmp_path / "optimized.onnx", prepared[model], images, tmp_path)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("form", [QuantFormat.QOperator, QuantFormat.QDQ], ids=lambda form: form.name)
def test_four_bit_weights(
    form: QuantFormat, symmetric: bool, digits: dict[str, Path], images: npt.NDArray[Any], tmp_path: Path
) -> None:
    """Rows go in whole blocks, so fewer dimensions are free than in the model before."""
    path = tmp_path / "quantized.onnx"
    model = onnx.load(digits["transformer"])
    quantizer = MatMulNBitsQuantizer(model, block_size=16, is_symmetric=symmetric, quant_format=form)
    quantizer.process()
    quantizer.model.save_model_to_file(str(path), False)
    analysis = inspect(path)
    verdict = judge(path, every_other_unit(analysis), {model.graph.input[0].name: images[:5]}, tmp_path)
    assert verdict.difference < 1e-4
    assert verdict.effect > 1e-2
    report = compress(path, scope="uniform", ratio=0.5, recover="none").save(tmp_path / "half.onnx")
    assert report.after.parameters < 0.4 * report.before.parameters


def test_everything_of_a_channel_goes(prepared: dict[str, Path], images: npt.NDArray[Any], tmp_path: Path) -> None:
    """Weight, scale, zero point, and the bias of int32 with its own scale and zero point, lose the same channels."""
    path = quantized(prepared["resnet"], tmp_path / "quantized.onnx", "qdq-per-channel", images)
    compress(path, scope="uniform", ratio=0.5, recover="none").save(tmp_path / "half.onnx")
    graph = onnx.load(tmp_path / "half.onnx").graph
    shapes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    made = {name: node for node in graph.node for name in node.output}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert convolutions
    for node in convolutions:
        weight, bias = made[node.input[1]], made[node.input[2]]
        channels = shapes[weight.input[0]][0]
        assert [shapes[name] for name in (*weight.input[1:], *bias.input)] == [[channels]] * 5
    before = {tensor.name: list(tensor.dims) for tensor in onnx.load(path).graph.initializer}
    halved = [name for name, shape in shapes.items() if len(shape) == 4 and shape[0] * 2 == before.get(name, [0])[0]]
    assert len(halved) == len(convolutions)


def test_weights_stay_quantized(prepared: dict[str, Path], images: npt.NDArray[Any], tmp_path: Path) -> None:
    """Small weights under a DequantizeLinear are not folded into floats on the way."""
    path = quantized(prepared["resnet"], tmp_path / "quantized.onnx", "qdq", images)
    compress(path, scope="uniform", ratio=0.5, recover="none").save(tmp_path / "half.onnx")

    def kinds(file: Path) -> dict[str, int]:
        return {tensor.name: tensor.data_type for tensor in onnx.load(file).graph.initializer}

    before, after = kinds(path), kinds(tmp_path / "half.onnx")
    assert all(before[name] == kind for name, kind in after.items() if name in before)
    floats = [value for value in inspect(path).model.graph.initializers.values() if is_weight(value)]
    assert max(value.const_value.size for value in floats if value.dtype == 1) == 1
