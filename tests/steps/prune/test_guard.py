"""A few cuts that meet the same target are tried, and the one that does least harm is taken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onnxprune as op
from onnxprune.analysis import cost
from onnxprune.data.given import as_data
from onnxprune.evaluation.metrics import outputs_of
from onnxprune.model.signature import ports_of
from onnxprune.pipeline.run import inspect
from onnxprune.steps.prune import guard
from tests.conftest import Build

RNG = np.random.default_rng(2)
# Of 24 outputs that a tanh reads, all lie along three directions.
THIN = RNG.standard_normal((16, 3)) @ RNG.standard_normal((3, 24))
NARROW = """
    net (float[batch, 16] x) => (float[batch, 5] y)
    <float[16, 24] w, float[24] b, float[24, 5] v>
    { h = Gemm(x, w, b)  t = Tanh(h)  y = MatMul(t, v) }
"""
# Two branches that are added up: all units of the first matter, next to nothing of the second does.
BRANCHES = """
    net (float[batch, 8] x) => (float[batch, 4] y)
    <float[8, 16] a, float[16, 4] b, float[8, 16] c, float[16, 4] d>
    { h = MatMul(x, a)  r = Relu(h)  p = MatMul(r, b)  i = MatMul(x, c)  s = Relu(i)  q = MatMul(s, d)  y = Add(p, q) }
"""
SAMPLES = RNG.standard_normal((300, 16)).astype(np.float32)
TARGET = {"target": "macs=0.6", "seed": 0}


def harm(path: Path, result: Any, samples: np.ndarray) -> float:
    """The share of the variance that comes out wrong."""
    data = as_data(samples, ports_of(inspect(path).model))
    due, given = (np.concatenate(list(outputs_of(model, data))) for model in (path, result.model))
    return float(np.square(due - given).sum() / np.square(due - due.mean(0)).sum())


def test_a_layer_of_few_directions_is_split_and_reported_as_it_is(build: Build, tmp_path: Path) -> None:
    path = build(NARROW, w=THIN)
    result = op.compress(path, data=SAMPLES, **TARGET)
    report = result.save(tmp_path / "small.onnx", plan=tmp_path / "plan.json")
    assert harm(path, result, SAMPLES) < 1e-3
    assert any("split in two" in note for note in report.notes)
    assert report.before.macs == 16 * 24 + 24 * 5
    assert report.after.macs == cost.before(inspect(tmp_path / "small.onnx")).macs <= 0.6 * (16 * 24 + 24 * 5)
    again = op.apply(path, op.Plan.read(tmp_path / "plan.json"))
    assert again.report.after.macs == report.after.macs
    assert harm(path, again, SAMPLES) < 1e-3


def test_what_does_more_harm_is_not_taken(build: Build) -> None:
    path = build(BRANCHES)
    samples = SAMPLES[:, :8]
    plain, tried = (op.compress(path, data=samples, low_rank=rank, no_guard=not rank, **TARGET) for rank in (0.0, 0.3))
    assert harm(path, tried, samples) <= harm(path, plain, samples) * 1.1


def _backwards(group: Any, context: Any) -> np.ndarray:
    """Takes the first branch for worthless, and the second for precious."""
    del context
    return np.full(group.units, 1e-6 if group.id == "a" else 1.0) * np.arange(1, group.units + 1)


def test_units_come_back_where_the_prediction_was_wrong(build: Build) -> None:
    path = build(BRANCHES, d=1e-4 * RNG.standard_normal((16, 4)))
    assert {group.id for group in inspect(path).groups} == {"a", "c"}
    samples, given = SAMPLES[:, :8], {"criterion": _backwards, "scope": "global", "low_rank": 0.0, **TARGET}
    plain, guarded = (op.compress(path, data=samples, no_guard=alone, **given) for alone in (True, False))
    kept = [{group.id: group.kept for group in result.report.groups} for result in (plain, guarded)]
    assert kept[0]["a"] < kept[1]["a"]
    assert harm(path, guarded, samples) < harm(path, plain, samples)
    assert guarded.report.after.macs <= 0.6 * guarded.report.before.macs
    assert any("units back" in note for note in guarded.report.notes)


@pytest.mark.parametrize("rank", [0.0, 0.03])
def test_the_same_options_give_the_same_model(build: Build, rank: float) -> None:
    path = build(NARROW, w=THIN)
    first, second = (op.compress(path, data=SAMPLES, low_rank=rank, **TARGET) for _ in range(2))
    assert first.proto().SerializeToString() == second.proto().SerializeToString()


def test_embeddings_are_cut_along_their_principal_axes(build: Build) -> None:
    """A table whose columns all count alike, and whose directions count less and less."""
    graph = """
        net (int64[batch, 6] x) => (float[batch, 6, 5] y) <float[12, 10] e, float[10, 5] w>
        { h = Gather(e, x)  k = MatMul(h, w)  y = Tanh(k) }
    """
    directions = np.linalg.qr(RNG.standard_normal((10, 10)))[0]
    table = RNG.standard_normal((12, 10)) * 0.8 ** np.arange(10) @ directions
    path = build(graph, e=table)
    ids = RNG.integers(0, 12, (300, 6))
    given = {"data": ids, "target": "macs=0.5"}
    tried, plain = op.compress(path, **given), op.compress(path, low_rank=0.0, no_guard=True, **given)
    assert harm(path, tried, ids) < 0.5 * harm(path, plain, ids)


def test_the_cut_that_was_measured_is_the_one_that_is_made(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scored again on all samples, units may change places, but as many of every group go as in the try."""
    decide, lost = guard.decide, []

    def watched(*given: Any, **options: Any) -> Any:
        decision = decide(*given, **options)
        lost.append((dict(options["limits"]), dict(decision.outcome.lost)))
        return decision

    monkeypatch.setattr(guard, "decide", watched)
    op.compress(build(BRANCHES), data=SAMPLES[:, :8], **TARGET)
    *tries, (limits, made) = lost
    assert tries
    assert made in [each for _, each in tries]
    assert limits == made
