"""Parameters, MACs and bytes, against figures worked out by hand and published ones."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from onnxprune.analysis import cost
from onnxprune.pipeline.run import compress, inspect
from tests.conftest import Build

MACS = {
    "Conv": (
        "(float[2, 3, 8, 9] x) => (float[2, 6, 8, 9] y) <float[6, 3, 3, 3] w> { y = Conv<pads = [1, 1, 1, 1]>(x, w) }",
        (2 * 6 * 8 * 9) * (3 * 3 * 3),
    ),
    "Conv with a stride": (
        "(float[2, 3, 8, 9] x) => (float[2, 6, 3, 4] y) <float[6, 3, 3, 3] w> { y = Conv<strides = [2, 2]>(x, w) }",
        (2 * 6 * 3 * 4) * (3 * 3 * 3),
    ),
    "grouped Conv": (
        "(float[1, 4, 5, 5] x) => (float[1, 6, 5, 5] y) <float[6, 2, 1, 1] w> { y = Conv<group = 2>(x, w) }",
        (6 * 5 * 5) * 2,
    ),
    "depthwise Conv": (
        "(float[1, 4, 5, 5] x) => (float[1, 4, 3, 3] y) <float[4, 1, 3, 3] w> { y = Conv<group = 4>(x, w) }",
        (4 * 3 * 3) * (3 * 3),
    ),
    "ConvTranspose": (
        """(float[1, 3, 5, 5] x) => (float[1, 6, 10, 10] y) <float[3, 6, 2, 2] w>
        { y = ConvTranspose<strides = [2, 2]>(x, w) }""",
        (3 * 5 * 5) * (6 * 2 * 2),
    ),
    "Gemm": ("(float[7, 5] x) => (float[7, 3] y) <float[5, 3] w, float[3] b> { y = Gemm(x, w, b) }", 7 * 5 * 3),
    "transposed Gemm": (
        "(float[5, 7] x) => (float[7, 3] y) <float[3, 5] w> { y = Gemm<transA = 1, transB = 1>(x, w) }",
        7 * 5 * 3,
    ),
    "MatMul": ("(float[2, 7, 5] x) => (float[2, 7, 3] y) <float[5, 3] w> { y = MatMul(x, w) }", 2 * 7 * 5 * 3),
    "batched MatMul": (
        "(float[2, 4, 7, 5] x, float[2, 4, 5, 3] z) => (float[2, 4, 7, 3] y) { y = MatMul(x, z) }",
        2 * 4 * 7 * 5 * 3,
    ),
    "Einsum": (
        '(float[2, 7, 5] x, float[2, 3, 5] z) => (float[2, 7, 3] y) { y = Einsum<equation = "bik,bjk->bij">(x, z) }',
        2 * 7 * 5 * 3,
    ),
    "LSTM": (
        """(float[9, 2, 5] x) => (float[9, 1, 2, 8] y) <float[1, 32, 5] w, float[1, 32, 8] r>
        { y = LSTM<hidden_size = 8>(x, w, r) }""",
        9 * 2 * 4 * 8 * (5 + 8),
    ),
    "bidirectional GRU": (
        """(float[9, 2, 5] x) => (float[9, 2, 2, 8] y) <float[2, 24, 5] w, float[2, 24, 8] r>
        { y = GRU<hidden_size = 8, direction = "bidirectional">(x, w, r) }""",
        2 * 9 * 2 * 3 * 8 * (5 + 8),
    ),
    "Relu": ("(float[2, 7] x) => (float[2, 7] y) { y = Relu(x) }", 0),
}


@pytest.mark.parametrize(("graph", "macs"), MACS.values(), ids=MACS)
def test_macs(build: Build, graph: str, macs: int) -> None:
    assert cost.cost_of(inspect(build(f"net {graph}"))).macs == macs


MLP = """
    net (float[batch, 5] x) => (float[batch, 3] y)
    <float[5, 8] w, float[8] b, float[8, 3] v, int64[2] shape = {-1, 8}>
    { h = Gemm(x, w, b)  r = Reshape(h, shape)  y = MatMul(r, v) }
"""


def test_parameters_are_weights_and_no_shape_constants(build: Build) -> None:
    analysis = inspect(build(MLP))
    for figures in (cost.before(analysis), cost.cost_of(analysis)):
        assert figures.parameters == 5 * 8 + 8 + 8 * 3
        assert figures.weight_bytes == 4 * figures.parameters
        assert figures.nodes == 3


@pytest.mark.parametrize(("dtype", "size"), [("float16", 2), ("double", 8)])
def test_bytes_follow_the_type(build: Build, dtype: str, size: int) -> None:
    path = build(f"""
        net ({dtype}[2, 5] x) => ({dtype}[2, 3] y)
        <{dtype}[5, 8] w, {dtype}[8, 3] v>
        {{ h = MatMul(x, w)  y = MatMul(h, v) }}
    """)
    assert cost.before(inspect(path)).weight_bytes == size * (5 * 8 + 8 * 3)


def test_dynamic_batch_is_counted_as_one_sample(build: Build) -> None:
    analysis = inspect(build(MLP))
    assert cost.before(analysis).macs == 5 * 8 + 8 * 3
    assert cost.sizes_of_sample(analysis) == {"batch": 1}


def test_the_batch_is_looked_for_once(digits: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    analysis = inspect(digits["resnet"])
    batch = cost.batch_size(analysis)
    monkeypatch.setattr(cost, "cost_of", None)
    assert cost.batch_size(analysis) == batch > 1


def test_static_batch_is_counted_as_it_is(build: Build) -> None:
    analysis = inspect(build(MLP.replace("batch", "4")))
    assert cost.before(analysis).macs == 4 * (5 * 8 + 8 * 3)
    assert cost.sizes_of_sample(analysis) == {}


def test_other_dynamic_axes_are_counted_at_the_sizes_of_the_analysis(build: Build) -> None:
    path = build("net (float[batch, seq, 5] x) => (float[batch, seq, 3] y) <float[5, 3] w> { y = MatMul(x, w) }")
    analysis = inspect(path)
    sizes = cost.sizes_of_sample(analysis)
    assert sizes["batch"] == 1
    assert cost.before(analysis).macs == sizes["seq"] * 5 * 3


@pytest.mark.parametrize("name", ["resnet", "transformer", "lstm"])
def test_cost_after_a_cut_is_foreseen(digits: dict[str, Path], tmp_path: Path, name: str) -> None:
    """`measure` with the counts of what stays equals the cost of the file from which the rest was removed."""
    analysis = inspect(digits[name])
    kept = {group.atom: group.units - group.units // 2 for group in analysis.groups}
    result = compress(digits[name], ratio=0.5, scope="uniform", recover="none")
    result.save(tmp_path / "half.onnx")
    half = inspect(tmp_path / "half.onnx")
    foreseen, found = cost.cost_of(analysis, kept), cost.cost_of(half)
    assert (foreseen.parameters, foreseen.weight_bytes) == (found.parameters, found.weight_bytes)
    assert foreseen.macs == found.macs
    assert result.report.after.macs == cost.before(half).macs


def test_cost_of_a_group_is_what_goes_with_it(build: Build) -> None:
    path = build("""
        net (float[1, 5] x) => (float[1, 3] y)
        <float[5, 8] w1, float[8] b1, float[8, 6] w2, float[6, 3] w3>
        { h = Gemm(x, w1, b1)  r = Relu(h)  k = MatMul(r, w2)  s = Relu(k)  y = MatMul(s, w3) }
    """)
    assert cost.group_costs(inspect(path)) == {
        "w1": (5 * 8 + 8 + 8 * 6, 5 * 8 + 8 * 6),
        "w2": (8 * 6 + 6 * 3, 8 * 6 + 6 * 3),
    }


def test_cost_of_a_group_that_shares_an_axis(build: Build) -> None:
    """Columns of v are read by both halves: each group costs its part of the weight."""
    path = build("""
        net (float[1, 5] x) => (float[1, 3] y)
        <float[5, 8] a, float[5, 2] b, float[10, 3] v>
        { p = MatMul(x, a)  q = MatMul(x, b)  c = Concat<axis = 1>(p, q)  y = MatMul(c, v) }
    """)
    costs = cost.group_costs(inspect(path))
    assert costs == {"a": (5 * 8 + 8 * 3, 5 * 8 + 8 * 3), "b": (5 * 2 + 2 * 3, 5 * 2 + 2 * 3)}


# -- a published network


@pytest.mark.parametrize(
    ("depth", "parameters", "macs"), [(20, 269_722, 40.93), (56, 853_018, 126.55)], ids=["resnet20", "resnet56"]
)
@pytest.mark.parametrize("suffix", ["", ".dynamo"], ids=["torchscript", "dynamo"])
def test_cifar_resnets(shared: Path, depth: int, suffix: str, parameters: int, macs: float) -> None:
    """Their README counts networks in training form: two parameters and two MACs per channel and entry for each
    BatchNormalization. Both exporters folded those into the convolutions, which leaves one parameter, the bias.
    """
    path = shared / "data" / "cifar10" / f"resnet{depth}{suffix}.onnx"
    analysis = inspect(path)
    convolutions = [node for node in analysis.model.graph if node.op_type == "Conv"]
    channels = sum(analysis.shapes.shapes[node.outputs[0].name][1] for node in convolutions)
    blocks = (depth - 2) // 6
    entries = sum((2 * blocks + stem) * c * side * side for stem, c, side in ((1, 16, 32), (0, 32, 16), (0, 64, 8)))
    figures = cost.before(analysis)
    assert figures.macs + 2 * entries == pytest.approx(macs * 1e6, abs=5e3)

    weights = {t.name for t in onnx.load(path).graph.initializer if t.dims and t.data_type == onnx.TensorProto.FLOAT}
    stored = sum(value.const_value.size for name, value in analysis.model.graph.initializers.items() if name in weights)
    assert stored + channels == parameters
    assert 0 <= figures.parameters - stored <= 2, "and the zeros that pads are filled with"
