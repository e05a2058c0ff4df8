"""Patterns, allocations and the matrices that they look at."""

from __future__ import annotations

import numpy as np
import pytest

import onnxprune as op
from onnxprune.analysis.sparse_patterns import by_taps, parse_pattern
from onnxprune.analysis.weight_matrices import WeightMatrix, chosen_matrices, weight_matrices
from onnxprune.errors import UsageError
from onnxprune.steps.sparsify.base import ALLOCATIONS, Sharing
from tests.conftest import Build

CONV_AND_CELL = """
    net (float[6, n, 5] x, float[n, 4, 6, 6] z) => (float[6, n, 3] y, float[n, 8, 6, 6] c)
    <float[1, 12, 5] w, float[1, 12, 3] r, float[8, 2, 3, 3] k, int64[3] s = {6, -1, 3}>
    { all, last, cell = LSTM<hidden_size = 3>(x, w, r)  y = Reshape(all, s)
      c = Conv<pads = [1, 1, 1, 1], group = 2>(z, k) }
"""


def test_zeros_stand_where_the_pattern_lets_them() -> None:
    scores = np.random.default_rng(0).random((1, 8, 6))
    anywhere = parse_pattern("none").keep(scores, 0.25)
    assert (~anywhere).sum() == 12
    assert scores[~anywhere].max() < scores[anywhere].min()
    even = parse_pattern("row").keep(scores, 0.5)
    assert (even.sum(axis=1) == 4).all()
    some = parse_pattern("3:4").keep(scores, 0.0)
    assert (some.reshape(1, 2, 4, 6).sum(axis=2) == 3).all()
    assert all(scores[0, :4, at].argmin() == np.flatnonzero(~some[0, :4, at])[0] for at in range(6))
    blocks = parse_pattern("3x4").keep(scores, 0.5).reshape(2, 4, 2, 3)
    sums = scores.reshape(2, 4, 2, 3).sum(axis=(1, 3))
    assert np.array_equal(blocks.all(axis=(1, 3)), blocks.any(axis=(1, 3)))
    assert np.array_equal(blocks.all(axis=(1, 3)), sums >= np.sort(sums.ravel())[2])
    whole = parse_pattern("channel").keep(scores, 1 / 3)
    assert sorted(np.flatnonzero(~whole.any(axis=1)[0])) == sorted(np.argsort(scores[0].sum(axis=0))[:2])


@pytest.mark.parametrize("text", ["4:2", "0:4", "2:2", "1x", "blocks", "0x4", "1x4096"])
def test_a_pattern_that_is_none_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(UsageError, match="pattern"):
        op.Sparsify(pattern=text)
    with pytest.raises(UsageError, match="drop --sparsity"):
        op.Sparsify(pattern="2:4", sparsity=0.5)


def test_features_of_a_window_are_ordered_tap_by_tap() -> None:
    assert list(by_taps(6, 3)) == [0, 3, 1, 4, 2, 5]


def matrices(build: Build) -> dict[str, WeightMatrix]:
    found, left = weight_matrices(op.inspect(build(CONV_AND_CELL)))
    assert not left
    return {each.stored: each for each in found}


def test_a_matrix_is_what_the_operator_multiplies_with(build: Build) -> None:
    found = matrices(build)
    assert set(found) == {"w", "r", "k"}
    w, r, k = (found[name] for name in "wrk")
    arrays = {name: each.array() for name, each in found.items()}
    assert np.array_equal(w.of(arrays["w"])[0], arrays["w"][0].T)
    assert np.array_equal(r.of(arrays["r"])[0], arrays["r"][0].T)
    assert np.array_equal(k.of(arrays["k"]), arrays["k"].reshape(2, 4, 18).transpose(0, 2, 1))
    assert k.taps == 9
    states = np.random.default_rng(1).random((6, 1, 2, 3))
    rows = r.rows(states)
    assert np.array_equal(rows[0, :2], np.zeros((2, 3)))
    assert np.array_equal(rows[0, 2:4], states[0, 0])


def test_layers_are_chosen_by_name(build: Build) -> None:
    found = list(matrices(build).values())
    names = [each.name for each in found]
    assert [each.name for each in chosen_matrices(found, (names[0],), ())] == [names[0]]
    assert len(chosen_matrices(found, (), ("*.recurrent",))) == 2
    with pytest.raises(UsageError, match="is called"):
        chosen_matrices(found, ("nothing",), ())


def test_allocations_come_to_the_sparsity_that_was_asked_for(build: Build) -> None:
    found = {each.key: each for each in matrices(build).values()}
    rng = np.random.default_rng(0)
    scores = {key: rng.random(each.places().shape) for key, each in found.items()}
    total = sum(each.size for each in scores.values())
    for name in ALLOCATIONS:
        sharing = Sharing(found, scores, 0.6)
        shares = ALLOCATIONS[name].share(sharing)
        assert sum(shares[key] * scores[key].size for key in scores) == pytest.approx(0.6 * total, abs=1)
        assert all(0 <= share < 1 for share in shares.values())
    erk = ALLOCATIONS["erk"].share(Sharing(found, scores, 0.6))
    # Evci et al. 2020: (8 + 2 + 3 + 3) / 144 for the kernel, (12 + 5) / 60 and (12 + 3) / 36 for the matrices.
    densities = {key: 1 - share for key, share in erk.items()}
    assert densities["k"] / densities["w"] == pytest.approx((16 / 144) / (17 / 60))
    assert densities["k"] / densities["r"] == pytest.approx((16 / 144) / (15 / 36))
    one = ALLOCATIONS["global"].share(Sharing(found, {**scores, "k": scores["k"] + 2}, 0.25))
    assert one["k"] == 0


def test_layers_that_a_pattern_does_not_fit_are_told(build: Build) -> None:
    with pytest.raises(UsageError, match=r"its 5 input channels are not a multiple of 4"):
        op.sparsify(build(CONV_AND_CELL), pattern="2:4", weight_criterion="magnitude")
    result = op.sparsify(build(CONV_AND_CELL), pattern="1:2", weight_criterion="magnitude", allow_damage=True)
    assert [layer["layer"] for layer in result.report.sparsity["layers"]] == ["k"]
    assert len(result.report.sparsity["dense"]) == 2
    assert any("stay dense" in note for note in result.report.notes)
