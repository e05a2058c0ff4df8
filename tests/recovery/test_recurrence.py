"""What a recurrent cell multiplies its states with is fitted: units that others repeat go, and nothing changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxprune.ops.recurrent import states_before
from onnxprune.pipeline.run import inspect
from onnxprune.steps.recover.layerwise import walk
from onnxprune.steps.recover.pairing import Pairing
from onnxprune.steps.recover.reconstruct import BestFit
from onnxprune.steps.recover.recurrence import Recurrence
from tests.conftest import Build
from tests.recovery.pruned import error, outputs, outputs_of, pair

RNG = np.random.default_rng(3)
UNITS, INPUTS, STEPS = 6, 5, 7
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
DIRECTIONS = {"forward": 1, "reverse": 1, "bidirectional": 2}
EXACT = 1e-5


def repeated(directions: int, gates: int, *rest: int) -> np.ndarray:
    """Rows of a weight: the second half of the units has those of the first half."""
    half = RNG.normal(0, 0.5, (directions, gates, UNITS // 2, *rest))
    return np.concatenate([half, half], axis=2).reshape(directions, gates * UNITS, *rest)


def cell(
    build: Build, kind: str, direction: str = "forward", *, first: bool = False, steps: int = STEPS, more: str = ""
) -> Path:
    """A cell and a product with its states; units of the second half do what those of the first half do."""
    directions, gates = DIRECTIONS[direction], GATES[kind]
    weights = f"float[{directions}, {gates * UNITS}"
    given = f", float[{directions}, batch, 2] z" if first else ""
    made, read = ("h = MatMul(z, m)", ", , h") if first else ("", "")
    half = RNG.normal(0, 1, (2, UNITS // 2))
    both = [repeated(directions, gates) for _ in range(2)]
    return build(
        f"""
        net (float[{steps}, batch, {INPUTS}] x{given}) => (float[{steps}, {directions}, batch, 3] y)
        <{weights}, {INPUTS}] w, {weights}, {UNITS}] r, float[{directions}, {2 * gates * UNITS}] b, float[{UNITS}, 3] v,
         float[2, {UNITS}] m>
        {{ {made} s = {kind} <hidden_size = {UNITS}, direction = "{direction}"{more}> (x, w, r, b{read})
          y = MatMul(s, v) }}
        """,
        w=repeated(directions, gates, INPUTS),
        r=repeated(directions, gates, UNITS),
        b=np.concatenate(both, axis=1),
        m=np.hstack([half, half]),
    )


def batches(steps: int = STEPS, *, first: bool = False) -> list[dict[str, np.ndarray]]:
    """Sequences, and what states to begin with are made of."""
    shapes = {"x": (steps, 12, INPUTS), **({"z": (1, 12, 2)} if first else {})}
    return [{name: RNG.normal(0, 1, shape).astype(np.float32) for name, shape in shapes.items()} for _ in range(5)]


def without(path: Path, gone: tuple[int, ...] = (3, 4, 5)) -> Pairing:
    """The cell beside the same without some units."""
    (group,) = inspect(path).groups
    return pair(path, {group.id: gone})


def off(path: Path, folder: Path, data: list[dict[str, np.ndarray]]) -> float:
    """The share of the output's variance that is wrong, of sequences that nothing was fitted to."""
    pairing = without(path)
    walk(pairing, data[:-1], BestFit())
    return error(outputs_of(pairing, folder, data[-1:]), outputs(path, data[-1:]))


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize(("kind", "more"), [("LSTM", ""), ("RNN", ""), ("GRU", ", linear_before_reset = 1")])
def test_units_that_others_repeat_are_made_up_for(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, more: str, direction: str
) -> None:
    path, data = cell(build, kind, direction, more=more), batches()
    assert off(path, tmp_path, data) < EXACT
    monkeypatch.setattr(Recurrence, "of", classmethod(lambda *_: None))
    assert off(path, tmp_path, data) > 100 * EXACT


def test_states_before_the_first_step_count(build: Build, tmp_path: Path) -> None:
    """One step only: all that the cell multiplies with is what it is given."""
    path = cell(build, "RNN", first=True, steps=1)
    assert off(path, tmp_path, batches(1, first=True)) < EXACT


@pytest.mark.parametrize("layout", [0, 1])
def test_rows_are_the_states_of_the_step_before(layout: int) -> None:
    def node(direction: str) -> ir.Node:
        return ir.node("LSTM", [], {"direction": direction, "layout": layout})

    states, first = RNG.random((3, 2, 1, 4)), RNG.random((2, 1, 4))  # [steps, directions, samples, units]
    given: tuple[Any, Any] = (states, first)
    if layout:
        given = states.transpose(2, 0, 1, 3), first.transpose(1, 0, 2)
    rows = states_before(node("bidirectional"))(*given)
    np.testing.assert_array_equal(rows[0], [first[0, 0], states[0, 0, 0], states[1, 0, 0]])
    np.testing.assert_array_equal(rows[1], [first[1, 0], states[2, 1, 0], states[1, 1, 0]])
    assert not states_before(node("bidirectional"))(given[0])[:, 0].any()


def test_the_candidate_of_a_gru_that_resets_first_keeps_its_weights(build: Build, tmp_path: Path) -> None:
    path, data = cell(build, "GRU"), batches()
    before, after = (without(path) for _ in range(2))
    walk(after, data, BestFit())
    kept, fitted = (weights_of(each) for each in (before, after))
    np.testing.assert_array_equal(kept[:, 6:], fitted[:, 6:])
    assert (kept[:, :6] != fitted[:, :6]).any(axis=2).all()


def weights_of(pairing: Pairing) -> np.ndarray:
    (node,) = (node for node in pairing.pruned.model.graph if node.op_type == "GRU")
    assert node.inputs[2] is not None
    assert node.inputs[2].const_value is not None
    return node.inputs[2].const_value.numpy()


def test_a_cell_that_lost_no_unit_keeps_its_weights(build: Build) -> None:
    pairing = without(cell(build, "LSTM"), ())
    assert all(Recurrence.of(pairing, *each) is None for each in pairing.pairs())
