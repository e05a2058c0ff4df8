"""States that are inputs and outputs: their units go, the interface stays, and what comes out is exact."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import onnxprune as op
from onnxprune.analysis.states import offer_of, states_that_hold
from onnxprune.errors import NothingToPruneError, UsageError
from onnxprune.model.file import open_model, save
from onnxprune.passes.resize_states import ResizeStates
from onnxprune.pipeline.run import inspect
from onnxprune.runtime.session import Session
from tests.conftest import Build
from tests.test_traps import proved

# h and c of one LSTM in one state, as a voice detector has them.
TOGETHER = """
    net (float[n, 6] x, float[2, n, 8] state) => (float[n, 5] y, float[2, n, 8] new)
    <float[1, 32, 6] w, float[1, 32, 8] r, float[8, 5] v, int64[1] zero = {0}, int64[1] one = {1}, int64[1] two = {2}>
    {
        h = Slice(state, zero, one, zero)  c = Slice(state, one, two, zero)  s = Unsqueeze(x, zero)
        q, hn, cn = LSTM<hidden_size = 8>(s, w, r, , , h, c)  f = Squeeze(hn, zero)  y = MatMul(f, v)
        new = Concat<axis = 0>(hn, cn)
    }
"""
# The states of two cells that are written out, beside each other on an axis before that of the units.
WRITTEN_OUT = """
    net (float[1, 6] x, float[1, 2, 8] state) => (float[1, 5] y, float[1, 2, 8] new)
    <float[6, 8] w, float[8, 8] r, float[8, 8] w2, float[8, 8] r2, float[8, 5] v, int64[1] one = {1}>
    {
        s1, s2 = Split<axis = 1>(state)  a = Squeeze(s1, one)  b = Squeeze(s2, one)
        p = MatMul(x, w)  q = MatMul(a, r)  u = Add(p, q)  h = Tanh(u)
        p2 = MatMul(h, w2)  q2 = MatMul(b, r2)  u2 = Add(p2, q2)  h2 = Tanh(u2)  y = MatMul(h2, v)
        n1 = Unsqueeze(h, one)  n2 = Unsqueeze(h2, one)  new = Concat<axis = 1>(n1, n2)
    }
"""
APART = """
    net (float[s, n, 6] x, float[1, n, 8] h, float[1, n, 8] c) => (float[n, 5] y, float[1, n, 8] hn, float[1, n, 8] cn)
    <float[1, 32, 6] w, float[1, 32, 8] r, float[8, 5] v, int64[1] zero = {0}>
    { q, hn, cn = LSTM<hidden_size = 8>(x, w, r, , , h, c)  f = Squeeze(hn, zero)  y = MatMul(f, v) }
"""
KINDS = {
    "h and c in one": (TOGETHER, {"state": "new"}, [8]),
    "two cells written out": (WRITTEN_OUT, {"state": "new"}, [8, 8]),
    "h and c apart": (APART, {"h": "hn", "c": "cn"}, [8]),
}


def resized(path: Path, pairs: dict[str, str]) -> Path:
    model = open_model(path)
    assert ResizeStates(pairs)(model).modified
    assert not ResizeStates(pairs)(model).modified
    save(model, path.with_name("resized.onnx"))
    return path.with_name("resized.onnx")


@pytest.mark.parametrize(("graph", "pairs", "units"), KINDS.values(), ids=KINDS)
def test_units_of_states_go_and_nothing_else_changes(
    graph: str, pairs: dict[str, str], units: list[int], build: Build
) -> None:
    path = build(graph)
    assert not inspect(path).groups
    again = resized(path, pairs)
    feed = {
        port.name: np.random.default_rng(0).standard_normal(
            [size if isinstance(size, int) else 3 for size in port.shape]
        )
        for port in Session(path).inputs
    }
    feed = {name: array.astype(np.float32) for name, array in feed.items()}
    for name, array in Session(path).run(feed).items():
        np.testing.assert_array_equal(Session(again).run(feed)[name], array)
    assert sorted(group.units for group in inspect(again).groups) == units
    proved(again)


def test_what_went_is_zero_and_the_rest_is_in_its_place(build: Build, tmp_path: Path) -> None:
    path, small = build(TOGETHER), tmp_path / "small.onnx"
    result = op.compress(path, ratio=0.5, recover="none", resize_states="state=new")
    result.save(small)
    (removal,) = result.plan.removals
    rng = np.random.default_rng(0)
    x, state = rng.standard_normal((3, 6)).astype("f"), rng.standard_normal((2, 3, 8)).astype("f")
    new = Session(small).run({"x": x, "state": state})["new"]
    assert new.shape == state.shape
    gone = np.isin(np.arange(8), removal.remove)
    assert not new[..., gone].any()
    assert new[..., ~gone].all()
    other = np.where(gone, rng.standard_normal(state.shape), state).astype("f")
    np.testing.assert_array_equal(Session(small).run({"x": x, "state": other})["new"], new)
    again = op.apply(path, result.plan)
    again.save(tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == small.read_bytes()


@pytest.mark.parametrize(("graph", "pairs"), [kind[:2] for kind in KINDS.values()], ids=KINDS)
def test_it_is_offered_where_states_hold_units(graph: str, pairs: dict[str, str], build: Build) -> None:
    path = build(graph)
    assert states_that_hold(inspect(path)) == pairs
    options = " ".join(f"--resize-states {name}={other}" for name, other in pairs.items())
    with pytest.raises(NothingToPruneError, match=options):
        op.compress(path, ratio=0.5, recover="none")


def test_a_frame_that_comes_out_again_is_no_state(build: Build) -> None:
    """The state is, and so the note is there where other groups could go."""
    path = build("""
        net (float[1, 8] x, float[1, 6] s) => (float[1, 8] y, float[1, 6] t)
        <float[8, 6] w, float[6, 6] r, float[6, 12] a, float[12, 8] v>
        {
            p = MatMul(x, w)  q = MatMul(s, r)  u = Add(p, q)  t = Tanh(u)
            h = MatMul(t, a)  k = Relu(h)  y = MatMul(k, v)
        }
    """)
    assert states_that_hold(inspect(path)) == {"s": "t"}
    notes = op.compress(path, ratio=0.5, recover="none", allow_damage=True).report.notes
    assert any("--resize-states s=t" in note for note in notes)
    again = op.compress(path, ratio=0.5, recover="none", allow_damage=True, resize_states="s=t").report.notes
    assert not any("--resize-states" in note for note in again)


def test_a_long_list_of_states_is_shortened() -> None:
    said = offer_of({f"past.{number}": f"present.{number}" for number in range(24)})
    assert said.count("--resize-states") == 3
    assert "and 21 more" in said


def test_names_that_are_none_of_the_model(build: Build) -> None:
    with pytest.raises(UsageError, match="--resize-states 'state=old': the model has no output 'old'"):
        op.compress(build(TOGETHER), ratio=0.5, resize_states="state=old")
