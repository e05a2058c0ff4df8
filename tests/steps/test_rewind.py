"""The steps `checkpoint`, `rewind` and `reinitialize`: earlier weights, cut to what is left, or fresh ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import onnxprune as op
from onnxprune.errors import ModelError, UsageError
from onnxprune.steps.base import Context
from onnxprune.steps.state import State
from tests.conftest import Build
from tests.train.harness import CONVOLUTIONS, LINEAR, blobs, pictures, weights

CONTEXT = Context()


def fresh(path: Path, seed: int = 0) -> State:
    return op.Reinitialize()(State.of(op.inspect(path)), Context(seed=seed))


def cut(state: State, kept: float) -> State:
    """With the first units of every group left."""
    return state.cut({group.atom: np.arange(group.units) < kept * group.units for group in state.original.groups})


def same_weights(one: State, other: State) -> bool:
    first, second = weights(one.model), weights(other.model)
    return first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("then", [1.0, 0.75])
def test_weights_go_back_to_a_checkpoint_of_the_units_that_are_left(build: Build, then: float) -> None:
    path = build(CONVOLUTIONS)
    early = fresh(path) if then == 1 else cut(fresh(path), then)
    named = op.Checkpoint("early")(early, CONTEXT)
    now = op.Reinitialize()(named, Context(seed=5))
    now = cut(now, 0.5)
    found = op.Rewind("early")(now, CONTEXT)
    assert same_weights(found, cut(early, 0.5))
    assert not same_weights(found, now)
    assert found.left == now.left
    twice = op.Checkpoint("later")(named, CONTEXT).checkpoints
    assert [*twice] == ["early", "later"]
    assert not twice["later"].checkpoints  # states do not hold on to each other


def test_weights_go_back_to_the_original(build: Build) -> None:
    state = State.of(op.inspect(build(LINEAR)))
    found = op.Rewind()(cut(op.Reinitialize()(state, CONTEXT), 0.5), CONTEXT)
    assert same_weights(found, cut(state, 0.5))
    assert found.recovered is None


@pytest.mark.parametrize("whole", [True, False])
def test_weights_go_back_to_a_file(build: Build, tmp_path: Path, whole: bool) -> None:
    path = build(LINEAR)
    early = op.Recipe([op.Reinitialize()])(path, seed=3)
    result = op.compress(path, ratio=0.5, recover="none")
    if not whole:  # a file that has been cut already
        early = op.compress(
            op.Recipe([op.Reinitialize()])(path, seed=3).model, ratio=0.5, criterion="l1", recover="none"
        )
        result = op.apply(path, early.plan)
    early.save(tmp_path / "early.onnx")
    rewound = op.Rewind(str(tmp_path / "early.onnx"))(result.state, CONTEXT)
    due = op.apply(early.model, result.plan).model if whole else early.model
    for name, array in weights(due).items():
        assert np.array_equal(weights(rewound.model)[name], array)


def test_zeros_stay_zero(build: Build) -> None:
    state = State.of(op.inspect(build(LINEAR)))
    mask = np.random.default_rng(0).random((4, 8)) < 0.5
    state = replace(state, zeros={"w": mask})
    for step in (op.Reinitialize(), op.Rewind()):
        found = weights(step(state, CONTEXT).model)["w"]
        assert (found[~mask] == 0).all()
        assert (found[mask] != 0).all()


def test_what_is_not_there_is_refused(build: Build) -> None:
    state = op.Checkpoint("early")(State.of(op.inspect(build(LINEAR))), CONTEXT)
    other = "net (float[n, 4] x) => (float[n, 3] logits) <float[4, 3] z> { logits = MatMul(x, z) }"
    with pytest.raises(UsageError, match="no checkpoint and no file 'earli'; did you mean 'early'"):
        op.Rewind("earli")(state, CONTEXT)
    with pytest.raises(ModelError, match="another one"):
        op.Rewind(str(build(other, name="other")))(state, CONTEXT)
    with pytest.raises(UsageError, match="cannot be called 'original'"):
        op.Checkpoint("original")


def test_compress_rewinds_in_every_round_and_recovers_only_when_asked_to(build: Build, tmp_path: Path) -> None:
    path = build(LINEAR)
    early = op.Recipe([op.Reinitialize()])(path, seed=3)
    early.save(tmp_path / "early.onnx")
    given = {"rewind_to": str(tmp_path / "early.onnx"), "train": 1, "ratio": 0.25, "steps": 2}
    found = op.compress(path, data=blobs(96), **given)
    assert [each["step"] for each in found.recipe["step"][0]["steps"]] == ["prune", "rewind", "train"]
    assert [record.step for record in found.state.records] == ["prune", "rewind", "train"] * 2 + ["clean", "evaluate"]
    both = op.Recipe.of_options({**given, "recover": "bias"}).document()
    assert [each["step"] for each in both["step"][0]["steps"]] == ["prune", "rewind", "recover", "train"]


def test_a_lottery_ticket_learns_from_where_it_was_early(build: Build) -> None:
    early, late = op.Train(updates=4, batch_size=16, distil=0), op.Train(updates=12, batch_size=16, distil=0)
    recipe = op.Recipe(
        [op.Reinitialize(), early, op.Checkpoint("early"), late, op.Prune(ratio=0.25), op.Rewind("early")]
    )
    found = recipe(build(CONVOLUTIONS), data=pictures(64, labelled=True))
    state = found.state.checkpoints["early"]
    assert same_weights(found.state, state.cut(found.state.left))
