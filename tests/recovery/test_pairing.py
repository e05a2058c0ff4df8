"""Values of a model and of the same with units removed: which entries correspond."""

from __future__ import annotations

import numpy as np

from onnxprune.analysis.inspect import analyze_model
from onnxprune.pipeline.run import inspect
from onnxprune.steps.recover.layerwise import walk
from onnxprune.steps.recover.pairing import Pairing
from onnxprune.steps.recover.reconstruct import BestFit
from tests.conftest import Build
from tests.recovery.pruned import feeds, pair

NET = """
    net (float[batch, 4] x) => (float[batch, 3] y)
    <float[4, 6] a, float[6, 5] b, float[5, 3] c>
    { h = MatMul(x, a)  r = Relu(h)  i = MatMul(r, b)  s = Relu(i)  y = MatMul(s, c) }
"""


def test_layers_are_paired_in_order(build: Build) -> None:
    pairing = pair(build(NET), {"a": (1, 4)})
    assert [(ours.weight, twin.weight) for ours, twin in pairing.pairs()] == [("a", "a"), ("b", "b"), ("c", "c")]
    assert all(ours.node is not twin.node for ours, twin in pairing.pairs())


def test_kept_entries_of_a_value(build: Build) -> None:
    pairing = pair(build(NET), {"a": (1, 4), "b": (0,)})
    np.testing.assert_array_equal(np.flatnonzero(pairing.kept("h", 1)), [0, 2, 3, 5])
    np.testing.assert_array_equal(np.flatnonzero(pairing.kept("s", 1)), [1, 2, 3, 4])
    assert pairing.kept("y", 1).all()


def test_value_of_the_original_is_cut_to_what_is_left(build: Build) -> None:
    pairing = pair(build(NET), {"a": (1, 4)})
    array = np.random.default_rng(0).standard_normal((7, 6))
    np.testing.assert_array_equal(pairing.sliced(array, "h"), array[:, [0, 2, 3, 5]])
    np.testing.assert_array_equal(pairing.sliced(array[:, :3], "y"), array[:, :3])


def test_heads_are_cut_through_products(build: Build) -> None:
    graph = """
        net (float[batch, 6] x) => (float[batch, 2] y)
        <float[6, 12] w, float[12, 2] v, int64[3] apart = {0, 4, 3}, int64[2] together = {0, 12}>
        { h = MatMul(x, w)  t = Reshape(h, apart)  r = Relu(t)  f = Reshape(r, together)  y = MatMul(f, v) }
    """
    pairing = pair(build(graph), {"w": (1,), "w#2": (2,)})
    array = np.arange(12)[None]
    np.testing.assert_array_equal(pairing.sliced(array, "h"), [[0, 1, 6, 7, 9, 10]])
    np.testing.assert_array_equal(pairing.sliced(array.reshape(1, 4, 3), "t").ravel(), [0, 1, 6, 7, 9, 10])


def test_masks_that_do_not_fit_the_pruned_model_pair_nothing_there(build: Build) -> None:
    """For instance since something was removed from it by other means."""
    pruned = pair(build(NET), {"a": (1, 4)}).pruned
    original = inspect(build(NET))
    pairing = Pairing(original, pruned, {})
    assert not pairing.fits("h")
    assert pairing.fits("s")
    assert [ours.weight for ours, _ in pairing.pairs()] == ["b", "c"]


def test_layers_that_got_a_bias_are_paired_still(build: Build) -> None:
    """So that a model can be recovered again."""
    pairing = pair(build(NET), {"a": (1, 4)})
    walk(pairing, feeds(), BestFit())
    again = Pairing(pairing.original, analyze_model(pairing.pruned.model), pairing.keep)
    assert [(ours.weight, twin.weight) for ours, twin in again.pairs()] == [("a", "a"), ("b", "b"), ("c", "c")]
