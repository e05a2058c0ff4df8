"""What the analysis finds: groups, what their units are, where they occur, and why the rest keeps its size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxprune.analysis.groups import Analysis, Group
from onnxprune.dims import describe, keep_mask
from onnxprune.pipeline.run import inspect
from tests.conftest import Build


def kinds(analysis: Analysis) -> Counter[tuple[str, int]]:
    """(kind, units) -> number of groups."""
    return Counter((group.kind, group.units) for group in analysis.groups)


def dims_text(analysis: Analysis, tensor: str) -> list[str]:
    """Each axis of a value as an expression over group ids."""
    return [describe(dim, analysis.names()) for dim in analysis.dims.get(tensor, [])]


def group_of(analysis: Analysis, weight: str, axis: int) -> Group:
    """The one group that a weight's axis consists of."""
    (group,) = (g for g in analysis.groups for o in g.occurrences if (o.tensor, o.axis) == (weight, axis))
    return group


# -- a perceptron, read to the end

MLP = """
    net (float[batch, 5] x) => (float[batch, 3] y)
    <float[5, 8] w1, float[8] b1, float[8, 6] w2, float[6] b2, float[6, 3] w3>
    { h = Gemm(x, w1, b1)  r = Relu(h)  k = Gemm(r, w2, b2)  s = Relu(k)  y = MatMul(s, w3) }
"""


def test_groups_come_in_topological_order_with_every_place_they_occur(build: Build) -> None:
    groups = inspect(build(MLP)).groups
    assert [(group.id, group.kind, group.units, group.statistics) for group in groups] == [
        ("w1", "neurons", 8, False),
        ("w2", "neurons", 6, False),
    ]
    places = [[(place.tensor, place.axis) for place in group.occurrences] for group in groups]
    assert places == [[("w1", 1), ("b1", 0), ("w2", 0)], [("w2", 1), ("b2", 0), ("w3", 0)]]


def test_interface_is_frozen_with_the_tensor_named(build: Build) -> None:
    analysis = inspect(build(MLP))
    reasons = {(each.tensor, each.axis): each.reason for each in analysis.frozen}
    assert str(reasons["w1", 0]) == "input 'x' of the model keeps its shape"
    assert str(reasons["w3", 1]) == "output 'y' of the model keeps its shape"
    assert (reasons["w1", 0].tensor, reasons["w3", 1].tensor) == ("x", "y")


def test_reason_names_the_node_and_its_operator(build: Build) -> None:
    path = build("""
        net (float[batch, 5] x) => (float[batch, 3] y)
        <float[5, 8] w, float[8, 3] v>
        { [project] h = MatMul(x, w)  [attend] p = Softmax<axis = -1>(h)  [read] y = MatMul(p, v) }
    """)
    (reason,) = {each.reason for each in inspect(path).frozen if (each.tensor, each.axis) == ("w", 1)}
    assert (reason.text, reason.node, reason.op_type) == ("softmax runs over it", "attend", "Softmax")
    assert str(reason) == "softmax runs over it (Softmax 'attend')"


def test_every_weight_axis_is_either_in_a_group_or_frozen_with_a_reason(digits: dict[str, Path]) -> None:
    for path in digits.values():
        analysis = inspect(path)
        explained = {(place.tensor, place.axis) for group in analysis.groups for place in group.occurrences}
        explained |= {(each.tensor, each.axis) for each in analysis.frozen}
        for value in analysis.model.graph.initializers.values():
            if value.name in analysis.shapes.known:
                continue  # a shape constant
            for axis, size in enumerate(value.shape.numpy()):
                assert size < 2 or (value.name, axis) in explained


def test_ids_are_stable_and_unique(digits: dict[str, Path]) -> None:
    for path in digits.values():
        first, second = ([group.id for group in inspect(path).groups] for _ in range(2))
        assert first == second
        assert len(set(first)) == len(first)


def test_ids_do_not_depend_on_the_order_in_which_a_file_lists_its_nodes_weights(build: Build) -> None:
    def reverse_weights(model: onnx.ModelProto) -> None:
        model.graph.initializer.reverse()

    ids = [group.id for group in inspect(build(MLP)).groups]
    assert [group.id for group in inspect(build(MLP, edit=reverse_weights)).groups] == ids


def test_the_analysis_does_not_change_the_weights(digits: dict[str, Path]) -> None:
    path = digits["resnet"]
    before = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}
    values = inspect(path).model.graph.initializers
    for name, array in before.items():
        np.testing.assert_array_equal(values[name].const_value.numpy(), array)


def test_dimensions_as_text_name_their_groups(build: Build) -> None:
    path = build("""
        net (float[batch, 3, 4, 5] x) => (float[batch, 7] y)
        <float[6, 3, 1, 1] w, float[2, 3, 1, 1] u, float[160, 7] v>
        { h = Conv(x, w)  k = Conv(x, u)  c = Concat<axis = 1>(h, k)  flat = Flatten(c)  y = MatMul(flat, v) }
    """)
    analysis = inspect(path)
    assert dims_text(analysis, "v") == ["(w:6+u:2)*4*5", "7"]
    assert dims_text(analysis, "no such value") == []


def test_group_that_two_axes_of_one_weight_share(build: Build) -> None:
    """A recurrence h = h·w + h maps a space to itself: rows and columns of w are the same units."""
    path = build("""
        net (float[batch, 5] x) => (float[batch, 3] y)
        <float[5, 8] a, float[8, 8] w, float[8, 3] b>
        { h = MatMul(x, a)  k = MatMul(h, w)  s = Add(h, k)  y = MatMul(s, b) }
    """)
    (group,) = inspect(path).groups
    assert [(place.tensor, place.axis) for place in group.occurrences] == [("a", 1), ("w", 0), ("w", 1), ("b", 0)]


def test_single_units_are_no_group(build: Build) -> None:
    """An axis of size 1 could only vanish."""
    path = build("""
        net (float[batch, 5] x) => (float[batch, 3] y)
        <float[5, 8] w, float[8, 1] v, float[1, 3] u>
        { h = MatMul(x, w)  k = MatMul(h, v)  y = MatMul(k, u) }
    """)
    assert [group.id for group in inspect(path).groups] == ["w"]


# -- what the units are


def test_kinds_in_the_trained_models(digits: dict[str, Path]) -> None:
    found = {name: kinds(inspect(path)) for name, path in digits.items()}
    assert found == {
        "resnet": {("channels", 16): 3, ("channels", 32): 3, ("channels", 64): 3},
        "transformer": {("hidden", 64): 1, ("heads", 4): 3, ("head-dim", 16): 3, ("neurons", 256): 3},
        "lstm": {("recurrent", 64): 2},  # two layers, which zero states do not tie
    }


def test_residual_stream_runs_under_the_norms(digits: dict[str, Path]) -> None:
    statistics = {group.kind: group.statistics for group in inspect(digits["transformer"]).groups}
    assert statistics == {"hidden": True, "heads": False, "head-dim": False, "neurons": False}


ZOO = {
    "hf.llama.ts17": {
        ("hidden", 96): 1,
        ("kv-heads", 2): 2,
        ("heads", 2): 2,
        ("head-dim", 12): 1,  # half a head: rotary embedding turns entry i together with entry i + 12
        ("head-dim", 24): 2,  # the values', which do not turn
        ("neurons", 256): 2,
    },
    "timm.vit_tiny_patch16_224.ts17": {
        ("hidden", 192): 1,
        ("heads", 3): 12,
        ("head-dim", 64): 12,
        ("neurons", 768): 12,
    },
    "hf.gpt2.dy": {("hidden", 96): 1, ("heads", 4): 2, ("head-dim", 24): 4, ("neurons", 384): 2},
    "hm.lstm.ts17": {("neurons", 32): 1, ("recurrent", 48): 1, ("neurons", 64): 1},
    "hm.lstm.dy": {("neurons", 32): 1, ("recurrent", 48): 1, ("neurons", 64): 1},
    "hm.gru.ts17": {("neurons", 32): 1, ("recurrent", 48): 1, ("neurons", 64): 1},
    "hm.rnn_tanh.ts17": {("neurons", 32): 1, ("recurrent", 48): 1, ("neurons", 64): 1},
    "hm.einsum_attention.ts17": {("hidden", 48): 1, ("heads", 4): 1, ("head-dim", 16): 2},
    "hm.tied_embedding.dy": {("hidden", 48): 1, ("neurons", 96): 1},
}


@pytest.mark.parametrize("name", ZOO)
def test_kinds_in_the_zoo(zoo_file: Callable[[str], Path], name: str) -> None:
    analysis = inspect(zoo_file(name))
    assert kinds(analysis) == ZOO[name]
    assert not analysis.unruled


def test_feed_forward_of_gpt2_is_neurons_and_the_stream_is_hidden(zoo_file: Callable[[str], Path]) -> None:
    analysis = inspect(zoo_file("hf.gpt2.dy"))
    assert group_of(analysis, "m.transformer.h.0.mlp.c_fc.weight", 1).kind == "neurons"
    assert group_of(analysis, "m.transformer.h.0.mlp.c_fc.weight", 0).kind == "hidden"


def test_columns_of_a_query_projection_in_llama(zoo_file: Callable[[str], Path]) -> None:
    """kv-heads, the query heads that each serves, and the two rotary halves of a head, nested in this order."""
    analysis = inspect(zoo_file("hf.llama.ts17"))
    query = "onnx::MatMul_702"
    half, kv_heads, heads = [g for g in analysis.groups if (query, 1) in [(o.tensor, o.axis) for o in g.occurrences]]
    assert [group.kind for group in (kv_heads, heads, half)] == ["kv-heads", "heads", "head-dim"]
    assert dims_text(analysis, query)[1] == f"{kv_heads.id}:2*{heads.id}:2*({half.id}:12+{half.id}:12)"
    (columns,) = [place.dim for place in kv_heads.occurrences if place.tensor == query]
    front = np.arange(12) < 3
    mask = keep_mask(columns, {kv_heads.atom: np.array([True, False]), half.atom: front}).reshape(2, 2, 2, 12)
    np.testing.assert_array_equal(mask[0], np.broadcast_to(front, (2, 2, 12)))
    assert not mask[1].any()


def test_unknown_operator_is_counted_with_its_domain(build: Build) -> None:
    path = build(
        """
        net (float[batch, 5] x) => (float[batch, 8] y)
        <float[5, 8] w>
        { h = MatMul(x, w)  a = acme.Mystery(h)  y = acme.Mystery(a) }
        """,
        opsets={"acme": 1},
    )
    analysis = inspect(path)
    assert analysis.unruled == {"acme.Mystery": 2}
    assert not analysis.groups
