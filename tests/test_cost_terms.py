"""Costs as a polynomial: the same numbers as from looking at the whole model, whatever is asked in which order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxprune.analysis import cost
from onnxprune.analysis.cost_model import CostTerms, Polynomial
from onnxprune.analysis.inspect import inspect


def check(path: Path) -> CostTerms:
    """Random cuts cost, and save, what they do by the whole model."""
    analysis, rng = inspect(path), np.random.default_rng(0)
    terms = CostTerms(analysis)
    assert analysis.groups
    assert terms.measure({}) == cost.cost_of(analysis)
    for _ in range(5):
        kept = {group.atom: int(rng.integers(1, group.units + 1)) for group in analysis.groups}
        assert terms.measure(kept) == cost.cost_of(analysis, kept)
        for group in analysis.groups:
            count = int(rng.integers(1, group.units + 1))
            after = {**kept, group.atom: count}
            now, then = cost.cost_of(analysis, kept), cost.cost_of(analysis, after)
            due = now.parameters - then.parameters, now.macs - then.macs, now.weight_bytes - then.weight_bytes
            assert terms.saved(kept, group.atom, count) == due
    return terms


@pytest.mark.parametrize("name", ["resnet", "transformer", "lstm"])
def test_equal_to_the_whole_model(digits: dict[str, Path], name: str) -> None:
    assert not check(digits[name])._others


@pytest.mark.parametrize("name", ["hm.unet.ts17", "hm.grouped_conv.dy", "hf.llama.dy", "hm.gru.ts17"])
def test_equal_with_concatenations_products_and_squares(zoo_file: Callable[[str], Path], name: str) -> None:
    assert not check(zoo_file(name))._others


def test_rules_that_compare_are_asked_for_each_cut(zoo_file: Callable[[str], Path]) -> None:
    """The rule of Einsum takes the larger of two sizes."""
    assert check(zoo_file("hm.einsum_attention.dy"))._others


def test_entries_that_share_a_byte(tmp_path: Path) -> None:
    types = onnx.TensorProto
    weights = [
        onnx.helper.make_tensor("q", types.INT4, [5, 7], [1] * 35),
        onnx.helper.make_tensor("scale", types.FLOAT, [], [0.1]),
        onnx.numpy_helper.from_array(np.ones((7, 3), np.float32), "v"),
    ]
    nodes = [
        onnx.helper.make_node("DequantizeLinear", ["q", "scale"], ["w"]),
        onnx.helper.make_node("MatMul", ["x", "w"], ["h"]),
        onnx.helper.make_node("MatMul", ["h", "v"], ["y"]),
    ]
    ports = [onnx.helper.make_tensor_value_info(name, types.FLOAT, [2, size]) for name, size in (("x", 5), ("y", 3))]
    graph = onnx.helper.make_graph(nodes, "net", ports[:1], ports[1:], weights)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)]), tmp_path / "m.onnx")
    assert check(tmp_path / "m.onnx")._others


# -- polynomials

AMOUNTS = st.recursive(
    st.integers(-3, 3) | st.integers(0, 2).map(lambda number: Polynomial({(number,): 1})),
    lambda inner: st.tuples(st.sampled_from("+-*"), inner, inner),
    max_leaves=8,
)


def value(amount: object, counts: list[int] | None) -> int | Polynomial:
    """What comes out, of numbers where counts are given."""
    if isinstance(amount, tuple):
        a, b = value(amount[1], counts), value(amount[2], counts)
        return a + b if amount[0] == "+" else a * b if amount[0] == "*" else a + b * -1
    assert isinstance(amount, int | Polynomial)
    return at(amount, counts) if counts else amount


def at(amount: int | Polynomial, counts: list[int]) -> int:
    """A polynomial at some counts."""
    terms = Polynomial.of(amount).terms.items()
    return sum(factor * int(np.prod([counts[number] for number in monomial])) for monomial, factor in terms)


@given(AMOUNTS, st.lists(st.integers(1, 9), min_size=3, max_size=3))
def test_polynomials_compute_as_numbers_do(amount: object, counts: list[int]) -> None:
    assert at(value(amount, None), counts) == value(amount, counts)


def test_polynomials_refuse_what_depends_on_the_counts() -> None:
    units = Polynomial({(0,): 2, (): 4})
    assert (units // 2).terms == {(0,): 1, (): 2}
    assert (units * Polynomial({(1,): 1})).terms == (Polynomial({(1,): 1}) * units).terms
    assert (units - 4).terms == {(0,): 2, (): 0}
    for refused in (
        lambda: units // 4,
        lambda: units == 6,
        lambda: bool(units),
        lambda: max(units, 3),
        lambda: units % 2,
    ):
        with pytest.raises(TypeError):
            refused()
