"""Files with integer weights: scored and recovered as the same file with its weights made real by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from onnxprune.pipeline.run import compress
from onnxprune.pipeline.scores import score
from onnxprune.runtime.session import Session
from onnxprune.steps.recover.reconstruct import Reconstruct
from tests.conftest import Build
from tests.recovery.pruned import error, feeds, outputs, outputs_of, pair

Array = npt.NDArray[Any]
ROOT = Path(__file__).resolve().parents[2]


class Batches(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, images: Array) -> None:
        self.batches = iter([{"input": images[i : i + 16]} for i in range(0, 128, 16)])

    def get_next(self) -> dict[str, Array] | None:
        return next(self.batches, None)


@pytest.fixture(scope="module")
def samples() -> dict[str, Array]:
    """Images to learn from."""
    with np.load(ROOT / "models" / "digits_calibration.npz") as arrays:
        return {"input": arrays["input"][:256]}


@pytest.fixture(scope="module", params=["per tensor", "per channel"])
def qdq(request: pytest.FixtureRequest, samples: dict[str, Array], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The residual network with QuantizeLinear and DequantizeLinear, in seven bits (see test_quantized_models)."""
    folder = tmp_path_factory.mktemp("qdq")
    quant_pre_process(str(ROOT / "models" / "digits_resnet.onnx"), str(folder / "plain.onnx"), skip_symbolic_shape=True)
    quantize_static(
        str(folder / "plain.onnx"),
        str(folder / "qdq.onnx"),
        Batches(samples["input"]),
        quant_format=QuantFormat.QDQ,
        per_channel=request.param == "per channel",
        weight_type=QuantType.QInt8,
        reduce_range=True,
    )
    return folder / "qdq.onnx"


def real_weights(path: Path) -> dict[str, Array]:
    """What each DequantizeLinear of initializers gives: scale * (integers - zero), by the name of its output."""
    graph = onnx.load(path).graph
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    found = {}
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in arrays:
            integers, scale, *zero = (arrays[name] for name in node.input)
            axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
            shape = [-1 if i == axis else 1 for i in range(integers.ndim)] if scale.size > 1 else [1] * integers.ndim
            scale, *zero = (array.astype(np.float64).reshape(shape) for array in (scale, *zero))
            found[node.output[0]] = ((integers - (zero[0] if zero else 0)) * scale).astype(np.float32)
    return found


def with_real_weights(path: Path, target: Path) -> Path:
    """The same network with the weights that its integers represent; activations stay quantized."""
    model, weights = onnx.load(path), real_weights(path)
    nodes = [node for node in model.graph.node if node.output[0] not in weights]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    onnx.save(model, target)
    return target


def answers(path: Path, images: Array) -> Array:
    return next(iter(Session(path).run({"input": images}).values()))


@pytest.mark.parametrize("criterion", ["obs", "wanda", "fluctuation", "l1"])
def test_scores_are_those_of_the_real_weights(
    criterion: str, qdq: Path, samples: dict[str, Array], tmp_path: Path
) -> None:
    """With integers the runtime rounds otherwise; behind many layers that decides what the surgeon's inverses make of
    few samples, so of those scores the groups in front are compared.
    """
    float_file, few = with_real_weights(qdq, tmp_path / "float.onnx"), {"input": samples["input"][:64]}
    found, due = (score(path, criterion, data=few) for path in (qdq, float_file))
    assert len(found) == len(due)
    compared = list(zip(found.values(), due.values(), strict=True))
    compared = [pair for pair in compared if criterion != "obs" or len(pair[0]) == 16]
    assert len(compared) >= 3
    for one, other in compared:
        np.testing.assert_allclose(one, other, rtol=0.03)


def test_recovered_weights_are_those_of_the_real_ones(qdq: Path, samples: dict[str, Array], tmp_path: Path) -> None:
    """Rounded to the new scales. The fit of the first layers is the same; those behind see what rounding left."""
    float_file = with_real_weights(qdq, tmp_path / "float.onnx")
    options: dict[str, Any] = {"data": samples, "scope": "uniform", "ratio": 0.25, "criterion": "l1"}
    for path, name in ((qdq, "a.onnx"), (float_file, "b.onnx")):
        compress(path, **options, allow_damage=True).save(tmp_path / name)
    found = real_weights(tmp_path / "a.onnx")
    due = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(tmp_path / "b.onnx").graph.initializer}
    weights = [name for name, array in found.items() if array.ndim == 4]
    assert len(weights) > 4
    for name in weights:
        assert found[name].shape == due[name].shape
        assert np.linalg.norm(found[name] - due[name]) < 0.1 * np.linalg.norm(due[name])


def test_integers_come_back_with_the_scales_that_the_runtime_expects(
    qdq: Path, samples: dict[str, Array], tmp_path: Path
) -> None:
    """Types and zero points stay; the scale of a bias is that of its input times that of its weight."""
    compress(qdq, data=samples, scope="uniform", ratio=0.25, criterion="l1", allow_damage=True).save(
        tmp_path / "c.onnx"
    )
    before, after = onnx.load(qdq).graph, onnx.load(tmp_path / "c.onnx").graph
    types = {tensor.name: tensor.data_type for tensor in before.initializer}
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in after.initializer}
    kept = [tensor for tensor in after.initializer if tensor.name in types]
    assert len(kept) > 50
    assert all(tensor.data_type == types[tensor.name] for tensor in kept)
    made = {name: node for node in after.node for name in node.output}
    convolutions = [node for node in after.node if node.op_type == "Conv"]
    assert len(convolutions) == sum(node.op_type == "Conv" for node in before.node)
    for node in convolutions:
        x, weight, bias = (made[name] for name in node.input)
        assert arrays[bias.input[0]].dtype == np.int32
        due = arrays[x.input[1]] * arrays[weight.input[1]]
        np.testing.assert_allclose(arrays[bias.input[1]], np.broadcast_to(due, arrays[bias.input[1]].shape), rtol=1e-6)
        stored = arrays[weight.input[0]].astype(int)
        assert np.abs(stored).max() == 64
        assert not arrays[weight.input[2]].any()


@pytest.mark.parametrize(("ratio", "least"), [pytest.param(0.25, 98.5, marks=pytest.mark.slow), (0.5, 96.0)])
def test_accuracy_of_a_quantized_file_is_kept(
    ratio: float, least: float, qdq: Path, samples: dict[str, Array], tmp_path: Path
) -> None:
    compress(qdq, data=samples, ratio=ratio, allow_damage=True).save(tmp_path / "c.onnx")
    with np.load(ROOT / "models" / "digits_test.npz") as test:
        right = answers(tmp_path / "c.onnx", test["input"]).argmax(1) == test["labels"]
    assert 100 * right.mean() > least


PRODUCTS = {
    "QDQ": """q = QuantizeLinear(r, xs, xz)  d = DequantizeLinear(q, xs, xz)
        v = DequantizeLinear<axis = 1>(w, ws, wz)  m = MatMul(d, v)""",
    "QLinearMatMul": """q = QuantizeLinear(r, xs, xz)  p = QLinearMatMul(q, xs, xz, w, ws, wz, ys, yz)
        m = DequantizeLinear(p, ys, yz)""",
    "MatMulInteger": """q, s, z = DynamicQuantizeLinear(r)  p = MatMulInteger(q, w, z, wz)  f = Cast<to = 1>(p)
        t = Mul(s, ws)  m = Mul(f, t)""",
    "DynamicQuantizeMatMul": "m = com.microsoft.DynamicQuantizeMatMul(r, w, ws, wz)",
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_products_of_integers_are_fitted(name: str, build: Build, tmp_path: Path) -> None:
    """Two units are copies of others: what read them is added to what reads those, and next to nothing is lost."""
    rng = np.random.default_rng(0)
    first = rng.standard_normal((4, 8))
    first[:, [2, 5]] = first[:, [0, 1]]
    path = build(
        f"""
        net (float[n, 4] x) => (float[n, 3] y)
        <float[4, 8] a, int8[8, 3] w, float[3] ws = {{0.01, 0.02, 0.015}}, int8[3] wz, float xs = {{0.03}}, uint8 xz,
         float ys = {{0.1}}, uint8 yz = {{128}}>
        {{ h = MatMul(x, a)  r = Relu(h)  {PRODUCTS[name]}  y = Identity(m) }}
        """,
        a=first,
        w=rng.integers(-60, 61, (8, 3)),
        wz=np.zeros(3),
        xz=np.array(0),
    )
    data = feeds()
    due = outputs(path, data)
    pairing = pair(path, {"a": (2, 5)})
    before = error(outputs_of(pairing, tmp_path, data), due)
    made = Reconstruct(pairing, data)
    notes = made(pairing.pruned.model).notes
    assert error(outputs_of(pairing, tmp_path, data), due) < 0.1 * before < 0.1
    assert not notes
    assert pairing.pruned.model.graph.initializers["w"].dtype == ir.DataType.INT8


def test_of_quantized_files_that_cannot_be_fitted_the_user_is_told_what_to_do(build: Build) -> None:
    path = build(
        """
        net (float[n, 4] x) => (float[n, 3] y)
        <float[4, 8] a, int8[8, 3] w, float[3] ws = {0.01, 0.02, 0.015}>
        { h = MatMul(x, a)  q, s, z = DynamicQuantizeLinear(h)  p = MatMulInteger(q, w, z)  y = Cast<to = 1>(p) }
        """,
        w=np.random.default_rng(0).integers(-60, 61, (8, 3)),
    )
    pairing = pair(path, {"a": (2, 5)})
    assert Reconstruct(pairing, feeds())(pairing.pruned.model).notes == [
        "layers that recovery left as they are: w (MatMulInteger: integers in a form that cannot be fitted)",
        "more is kept the other way round: prune the model in floats first, and quantize then",
    ]
