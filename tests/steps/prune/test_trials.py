"""A quarter of each group alone is removed and the harm measured: predictions of damage are brought to that."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import onnxprune as op
from onnxprune.data.given import as_data
from onnxprune.model.signature import ports_of
from onnxprune.pipeline.run import inspect
from onnxprune.steps.base import Context
from onnxprune.steps.prune import trials
from onnxprune.steps.prune.allocation.base import AllocationProblem
from onnxprune.steps.prune.options import PruneOptions
from onnxprune.steps.prune.planner import planner
from onnxprune.steps.prune.score import score_with
from onnxprune.steps.prune.trials import measure_trials, readers_of
from onnxprune.steps.recover.step import Recover
from onnxprune.steps.state import State
from tests.conftest import Build

RNG = np.random.default_rng(5)
SAMPLES = RNG.standard_normal((200, 8)).astype(np.float32)
# The second branch counts thirty times less, which no layer that reads its units knows.
SCALED = """
    net (float[batch, 8] x) => (float[batch, 4] y)
    <float[8, 16] a, float[16, 4] b, float[8, 16] c, float[16, 4] d>
    { h = MatMul(x, a)  r = Relu(h)  p = MatMul(r, b)  i = MatMul(x, c)  s = Relu(i)  q = MatMul(s, d)
      f = Constant<value_float = 0.03>()  u = Mul(q, f)  y = Add(p, u) }
"""
OPTIONS = PruneOptions(target=("macs=0.75",))


def _of(path: object, *following: op.Step) -> tuple[State, Context]:
    state = State.of(inspect(path))
    return state, Context(data=as_data(SAMPLES, ports_of(state.model)), following=following)


def _problem(path: object, *following: op.Step) -> AllocationProblem:
    state, context = _of(path, *following)
    groups = state.original.groups
    scores = score_with(context, state.original, groups, "obs")
    problem = planner(state.original, groups, scores, OPTIONS, comparable=True).problem
    return replace(problem, trials=measure_trials(state, problem, context))


def test_predicted_damage_is_that_of_the_trial(build: Build) -> None:
    problem = _problem(build(SCALED), Recover())
    assert {name: count for name, (count, _) in problem.trials.items()} == {"a": 4, "c": 4}
    for name, (count, harm) in problem.trials.items():
        assert problem.damage[name][count] == pytest.approx(harm, rel=0.01)
        assert (np.diff(problem.damage[name]) >= 0).all()
    assert problem.trials["c"][1] < 0.01 * problem.trials["a"][1]
    alone = replace(problem, trials={}).damage
    assert alone["c"][4] > 0.1 * alone["a"][4]


def test_groups_that_were_not_tried_are_scaled_as_the_others(build: Build) -> None:
    problem = _problem(build(SCALED))
    assert problem.trials == {}  # nothing is recovered, so the harm of a cut would say nothing of it
    tried = replace(problem, trials={"a": (4, 3 * float(problem.damage["a"][4]))})
    assert tried.damage["c"] == pytest.approx(3 * problem.damage["c"])


def test_what_counts_little_at_the_outputs_goes_first(build: Build) -> None:
    path = build(SCALED)
    result = op.compress(path, data=SAMPLES, target="macs=0.75", low_rank=0.0, round_to=1)
    kept = {group.id: group.kept for group in result.report.groups}
    assert kept["a"] == 16
    assert kept["c"] <= 8


def test_layers_that_read_a_group_are_fitted_in_its_trial(build: Build) -> None:
    """Every unit is there twice: a quarter of them costs nothing where the others make up for it, and much else."""
    once = RNG.standard_normal((8, 8))
    state, context = _of(build(SCALED, a=np.hstack([once, once])), Recover())
    group = next(group for group in state.original.groups if group.id == "a")
    scores = {"a": np.arange(16.0), "c": np.arange(16.0)}
    problem = planner(state.original, state.original.groups, scores, OPTIONS, comparable=True).problem
    fitted, plain = (
        measure_trials(state, problem, replace(context, following=(Recover(method),)))["a"]
        for method in ("reconstruct", "none")
    )
    assert fitted[1] < 1e-6
    assert plain[1] > 0.05
    assert len(readers_of(state.original, group)) == 1


def test_a_cell_reads_its_own_units(build: Build) -> None:
    path = build("""
        net (float[4, batch, 3] x) => (float[4, 1, batch, 6] y) <float[1, 24, 3] w, float[1, 24, 6] r, float[6, 6] v>
        { h = LSTM<hidden_size = 6>(x, w, r)  y = MatMul(h, v) }
    """)
    analysis = inspect(path)
    (group,) = analysis.groups
    assert readers_of(analysis, group) == {"h", "y"}


def test_of_large_networks_as_many_groups_are_tried_as_there_is_time_for(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = build(SCALED)
    assert len(_problem(path, Recover()).trials) == 2
    macs, measured = 2 * (8 * 16 + 16 * 4), 66  # of 200 samples every third is measured on
    monkeypatch.setattr(trials, "_MACS", 1.5 * 5 * macs * measured)
    assert len(_problem(path, Recover()).trials) == 1
    monkeypatch.setattr(trials, "_MACS", 0.5 * 5 * macs * measured)
    assert not _problem(path, Recover()).trials
