"""Masks before training and lottery tickets: what a recipe of steps comes to."""

from __future__ import annotations

import numpy as np
import pytest

import onnxprune as op
from tests.conftest import TORCH, Build
from tests.train.harness import LINEAR, blobs, normal, weights

pytestmark = pytest.mark.skipif(not TORCH, reason="needs torch")

# A wide network with a narrow and weak layer in its middle, which one threshold for all would take out whole.
NARROW = """
    net (float[n, 20] x) => (float[n, 20] y) <float[20, 30] a, float[30, 3] b, float[3, 30] c, float[30, 20] d>
    { h = MatMul(x, a)  i = Relu(h)  j = MatMul(i, b)  k = Relu(j)  l = MatMul(k, c)  m = Relu(l)  y = MatMul(m, d) }
"""


def left(build: Build, criterion: str) -> dict[str, int]:
    path = build(NARROW, b=0.01 * normal(30, 3), c=0.01 * normal(3, 30))
    zeros = op.sparsify(
        path, 0.97, weight_criterion=criterion, sparsity_allocation="global", allow_damage=True
    ).state.zeros
    return {name: int(mask.sum()) for name, mask in zeros.items()}


def test_synflow_leaves_a_way_through_where_sizes_close_it(build: Build) -> None:
    """Tanaka et al. 2020, theorem 3: in many rounds no layer goes whole before it is the last of what is left."""
    found = left(build, "synflow")
    assert all(found.values())
    assert sum(found.values()) == round(0.03 * 1380)
    assert not all(left(build, "magnitude").values())


def test_a_ticket_is_its_mask_on_the_first_weights(build: Build) -> None:
    path = build(LINEAR, w=normal(4, 8), v=normal(8, 3))
    training = op.Train(updates=10, batch_size=16, learning_rate=0.05, distil=0, keep="last")
    choice = op.Sparsify(sparsity=0.75, weight_criterion="magnitude", update="none")
    loop = op.Repeat(times=3, schedule="geometric", steps=(choice, op.Rewind("first"), training))
    begun = (op.Reinitialize(), op.Checkpoint("first"), training)
    result = op.Recipe((*begun, loop, op.Rewind("first")))(path, data=blobs(), allow_damage=True)
    first = weights(op.Recipe(begun[:1])(path, data=blobs(), allow_damage=True).model)
    found = weights(result.model)
    for name, mask in result.state.zeros.items():
        assert (~mask).sum() == round(0.75 * mask.size)
        assert np.array_equal(found[name], np.where(mask, first[name], 0))
    rounds = [each.numbers["layers"] for each in result.state.records if each.step == "sparsify"]
    zeros = [sum(layer["zeros"] for layer in layers) for layers in rounds]
    kept = [56 - each for each in zeros]
    assert kept[1] / kept[0] == pytest.approx(0.25 ** (1 / 3), abs=0.05)  # the same share of what is left in each round
    assert kept[2] / kept[1] == pytest.approx(0.25 ** (1 / 3), abs=0.05)


def test_what_was_chosen_before_training_stays_through_it(build: Build) -> None:
    path = build(LINEAR, w=normal(4, 8), v=normal(8, 3))
    for criterion in ("snip", "grasp", "synflow", "random"):
        choice = op.Sparsify(sparsity=0.5, weight_criterion=criterion, update="none")
        training = op.Train(updates=4, batch_size=16, distil=0, keep="last")
        result = op.Recipe((op.Reinitialize(), choice, training))(path, data=blobs(), allow_damage=True)
        held = weights(result.model)
        assert sum(int((held[name] == 0).sum()) for name in result.state.zeros) >= 28
        assert all(not held[name][~mask].any() for name, mask in result.state.zeros.items())
