"""Random graphs are pruned and compared with the dead-unit oracle; damaged files are refused in one line.

Graphs come from tests/graph_strategies.py. A failure of a seeded graph is narrowed down by asking for fewer steps.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from onnxprune import ops
from onnxprune.coupling import Analysis
from onnxprune.errors import ModelError
from onnxprune.model import check
from onnxprune.ops.base import RULES
from onnxprune.pipeline import apply, inspect
from onnxprune.plan import Plan, Removal
from onnxprune.runtime.ort import Session, synthetic_feed
from tests.graph_strategies import BATCHES, OPERATORS, Graph, graphs, seeded_graph
from tests.oracle import Trio, distance

TOLERANCE = 1e-4
NOISE = 1e-6  # how much the inputs are disturbed to see how far a graph blows rounding errors up
PLANS = ("half", "all but one", "some")


# -- one graph


@dataclass(frozen=True)
class Outcome:
    """What became of a graph: "pruned" with an `effect` on its outputs, "whole" (no groups), or "refused"."""

    kind: str
    effect: float = 0.0


def prove(graph: Graph, folder: Path, seed: int, *, replay: bool = True) -> Outcome:
    """Prune a graph in one of several ways and assert everything that is promised."""
    path = folder / "model.onnx"
    onnx.save(graph.model, path)
    analysis = inspect(path)
    sizes = [{symbol: batch for symbol in analysis.shapes.bindings} for batch in BATCHES[: 1 + graph.dynamic]]
    if not _is_valid(path, sizes):
        return Outcome("refused")
    plan = random_plan(analysis, seed)
    if not plan.removals:
        return Outcome("whole")
    trio = Trio(path, plan, folder)
    check(folder / "pruned.onnx")
    effects = [_agree(trio, bindings, plan) for bindings in sizes]
    if replay:
        _replays(path, plan, folder, trio)
    return Outcome("pruned", max(effects))


def random_plan(analysis: Analysis, seed: int) -> Plan:
    """Half of each group, all units but one, or any number of some groups."""
    rng = np.random.default_rng(seed)
    kind = PLANS[seed % len(PLANS)]
    removals = []
    for group in analysis.groups:
        units = {"half": group.units // 2, "all but one": group.units - 1, "some": int(rng.integers(group.units))}
        gone = tuple(sorted(int(unit) for unit in rng.permutation(group.units)[: units[kind]]))
        if gone:
            removals.append(Removal(group.id, group.kind, group.units, gone))
    return Plan(tuple(removals))


def _is_valid(path: Path, sizes: list[dict[str, int]]) -> bool:
    """Does the original itself pass the checker and run? What is written for ONNX Runtime alone may not."""
    try:
        check(path)
        session = Session(path)
        for bindings in sizes:
            session.run(synthetic_feed(session.inputs, bindings))
    except ModelError:
        return False
    return True


def _agree(trio: Trio, bindings: dict[str, int], plan: Plan) -> float:
    """Pruned and switched-off outputs are equal; the effect of the removal."""
    feed = synthetic_feed(trio.original.inputs, bindings)
    verdict = trio.judge(feed)
    if not verdict.difference < TOLERANCE:
        rng = np.random.default_rng(0)
        disturbed = {
            name: array * np.float32(1 + NOISE * rng.standard_normal()) if array.dtype == np.float32 else array
            for name, array in feed.items()
        }
        noise = distance(trio.masked.run(disturbed), trio.masked.run(feed))
        assert verdict.difference < 10 * noise, (bindings, verdict, noise, plan)
    return verdict.effect


def _replays(path: Path, plan: Plan, folder: Path, trio: Trio) -> None:
    """The pipeline writes the same bytes from the plan and from its JSON: same interface, same outputs."""
    first, second = folder / "first.onnx", folder / "second.onnx"
    apply(path, plan).save(first)
    apply(path, Plan.from_json(plan.to_json())).save(second)
    assert first.read_bytes() == second.read_bytes()
    before, after = onnx.load(path).graph, onnx.load(first).graph
    assert [*before.input, *before.output] == [*after.input, *after.output]
    feed = synthetic_feed(trio.original.inputs, {})
    assert distance(Session(first).run(feed), trio.pruned.run(feed)) < TOLERANCE


# -- graphs


@settings(max_examples=40, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(graph=graphs(), seed=st.integers(0, 99))
def test_random_graphs(graph: Graph, seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    outcome = prove(graph, tmp_path_factory.mktemp("fuzz"), seed)
    assume(outcome.kind != "refused")
