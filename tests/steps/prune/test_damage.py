"""How deep a cut goes where nothing says how much to remove."""

from __future__ import annotations

from math import inf
from pathlib import Path

import numpy as np
import pytest

import onnxprune as op
from onnxprune.analysis.inspect import inspect
from onnxprune.data.base import Batch, Data
from onnxprune.data.split import Split
from onnxprune.errors import DataError, ModelError
from onnxprune.pipeline import run as pipeline
from onnxprune.pipeline.recipe import LITTLE_DAMAGE, Recipe
from onnxprune.steps.base import Context
from onnxprune.steps.prune.candidates import Candidates, _unexplained
from onnxprune.steps.prune.step import Prune
from onnxprune.steps.state import State
from tests.conftest import Build


def test_damage_is_the_share_of_the_variance_that_is_wrong() -> None:
    due = [np.array([[1.0, 10], [3, 10]]), np.array([[5.0, 10], [7, 10]])]  # variance over the samples: 20 in all
    assert _unexplained(due, due) == 0
    assert _unexplained(due, [np.full((2, 2), [4.0, 10])] * 2) == pytest.approx(1)  # a constant, the mean
    assert _unexplained(due, [one + np.array([0, 1]) for one in due]) == pytest.approx(4 / 20)
    assert _unexplained(due, [one * np.nan for one in due]) == inf
    same = [np.full((3, 2), 2.0)]  # nothing varies: the power takes its place
    assert _unexplained(same, [np.full((3, 2), 3.0)]) == pytest.approx(6 / 24)
    sizes = [np.ones((1, 2)), np.ones((1, 3))]
    assert _unexplained(sizes, [one + 1 for one in sizes]) == pytest.approx(1)


@pytest.mark.parametrize(
    "options",
    [
        {"ratio": 0.2},
        {"target": "macs=0.5"},
        {"lossless": True},
        {"ratios": {"neurons": 0.2}},
        {"steps": 2},
        {"train": 1},
    ],
)
def test_whoever_says_how_much_gets_that(options: dict[str, object]) -> None:
    def targets(recipe: Recipe) -> list[tuple[str, ...]]:
        return [step.target for step in recipe.every() if isinstance(step, Prune)]

    assert targets(Recipe.of_options({})) == targets(Recipe.of_options({"skip": "heads"})) == [(LITTLE_DAMAGE,)]
    assert targets(Recipe.of_options(options)) != [(LITTLE_DAMAGE,)]


def network(build: Build) -> Path:
    """Thirty-two units of which eight do nearly all; the ninth on are faint."""
    rng = np.random.default_rng(0)
    second = rng.standard_normal((32, 3)) * np.where(np.arange(32) < 8, 1.0, 1e-3)[:, None]
    graph = """
        net (float[batch, 6] x) => (float[batch, 3] y) <float[6, 32] first, float[32, 3] second>
        { h = MatMul(x, first)
          r = Relu(h)
          y = MatMul(r, second) }
    """
    return build(graph, first=rng.standard_normal((6, 32)), second=second)


@pytest.mark.parametrize("with_data", [False, True])
def test_the_cut_is_deep_where_little_is_lost_and_no_deeper(build: Build, with_data: bool) -> None:
    path = network(build)
    samples = {"x": np.random.default_rng(1).standard_normal((96, 6)).astype("f")} if with_data else None
    result = op.compress(path, data=samples)
    (prune,) = (record for record in result.state.records if record.step == "prune")
    (target,) = prune.numbers["targets"]
    assert target["target"] == LITTLE_DAMAGE
    assert target["reached"] <= target["limit"] == 0.03
    assert 16 <= result.plan.removed_units < 32
    where = "samples kept apart" if with_data else "made-up inputs kept apart"
    assert any(where in note for note in result.report.notes)
    deeper = op.compress(path, data=samples, target="damage=0.5")
    assert deeper.plan.removed_units > result.plan.removed_units


def test_without_any_inputs_somebody_has_to_say_how_much(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ModelError("nothing fits")

    monkeypatch.setattr(pipeline, "made_up_samples", refuse)
    with pytest.raises(DataError, match=r"nothing fits.*give --data, or say how much to remove, like --ratio 0\.2"):
        op.compress(network(build))


def test_outputs_that_are_no_classes_have_a_default_cut_too(build: Build) -> None:
    """The metric that fits them, SNR, has no bound, so a drop of it could not be asked for; damage can."""
    rng = np.random.default_rng(0)
    graph = """
        net (float[batch, 6] x) => (float[batch, 1] y) <float[6, 32] first, float[32, 1] second>
        { h = MatMul(x, first)
          r = Relu(h)
          y = MatMul(r, second) }
    """
    path = build(graph, first=rng.standard_normal((6, 32)), second=rng.standard_normal((32, 1)))
    result = op.compress(path, data={"x": rng.standard_normal((96, 6)).astype("f")})
    assert result.plan.removed_units > 0
    assert result.report.quality.scores[0].metric == "snr"
    assert any("the damage is" in note for note in result.report.notes)


def test_of_made_up_inputs_the_kind_counts_that_shows_most(build: Build) -> None:
    """Large outputs of one kind would hide what becomes of the other: a unit that only small ones need stays."""
    path = build(
        "net (float[n, 2] x) => (float[n, 2] y) <float[2, 2] w, float[2, 2] v> { h = MatMul(x, w)  y = MatMul(h, v) }",
        w=np.eye(2),
        v=np.eye(2),
    )
    rng = np.random.default_rng(0)
    large, small = 1000 * rng.standard_normal((20, 2)) * [1, 0], rng.standard_normal((20, 2)) * [0, 1]
    batches = [Batch({"x": each.astype(np.float32)}) for each in (large, small)]
    samples = Data("made-up inputs", False, lambda: iter(batches))
    state = State.of(inspect(path))
    left = {state.analysis.groups[0].atom: np.array([True, False])}

    def damage(**given: Data) -> float:
        return Candidates(state, Context(apart=Split(samples, samples), **given)).damage(left)

    assert damage(data=samples) < 1e-5
    assert damage(made_up=samples) == pytest.approx(1.0, abs=0.1)
