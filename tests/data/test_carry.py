"""Sequences whose states go from call to call: the data has none, the model gives them back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import onnxprune as op
from onnxprune.data.base import Data
from onnxprune.data.given import as_data
from onnxprune.data.split import hold_out
from onnxprune.errors import DataError, UsageError
from onnxprune.evaluation.metrics import evaluate, metric, outputs_of
from onnxprune.model.file import open_model
from onnxprune.model.signature import ports_of
from onnxprune.pipeline.samples import samples_of
from onnxprune.runtime.session import Session
from onnxprune.steps.base import Context
from tests.conftest import Build

# One step: the state is mixed with what comes in; two layers read it.
STEP = """
    net (float[n, 6] x, float[n, 8] h) => (float[n, 3] y, float[n, 8] hn)
    <float[6, 8] w, float[8, 8] u, float[8, 16] v, float[16, 3] o>
    { a = MatMul(x, w)  g = MatMul(h, u)  t = Constant<value_float = 0.1>()  b = Mul(g, t)  s = Add(a, b)  hn = Tanh(s)
      d = MatMul(hn, v)  r = Relu(d)  y = MatMul(r, o) }
"""
X = np.random.default_rng(0).standard_normal((60, 6)).astype(np.float32)
CARRY = Context(carry=("h=hn",))


def states_by_hand(path: Path) -> np.ndarray:
    session, held, found = Session(path), np.zeros((1, 8), np.float32), []
    for row in X:
        found.append(held)
        held = session.run({"x": row[None], "h": held})["hn"]
    return np.concatenate(found)


def sequence(path: Path) -> Data:
    data = samples_of({"x": X}, open_model(path), CARRY, source=path)
    assert data is not None
    return data


def test_each_sample_has_the_state_of_the_original_there(build: Build) -> None:
    path = build(STEP)
    feeds = [batch.feed for batch in sequence(path).batches()]
    assert len(feeds) == 60
    assert np.array_equal(np.concatenate([feed["x"] for feed in feeds]), X)
    assert np.allclose(np.concatenate([feed["h"] for feed in feeds]), states_by_hand(path), atol=1e-4)
    assert np.abs(feeds[-1]["h"]).max() > 0.1


def test_metrics_go_on_from_the_states_of_the_model_itself(build: Build) -> None:
    """A model with other states drifts; fed with those of the original at each step it would look better."""
    path = build(STEP)
    other = build(
        STEP.replace("s = Add(a, b)", "half = Constant<value_float = 0.5>()  c = Mul(b, half)  s = Add(a, c)"),
        name="other",
    )
    data = sequence(path)
    reference = list(outputs_of(path, data))
    session, held, wanted = Session(other), np.zeros((1, 8), np.float32), []
    for row in X:
        results = session.run({"x": row[None], "h": held})
        held = results["hn"]
        wanted.append(results["y"])
    noise = np.square(np.concatenate(wanted) - np.concatenate(reference)).sum()
    by_hand = 10 * np.log10(np.square(np.concatenate(reference)).sum() / noise)
    assert evaluate(other, data, metric("snr", False), reference) == pytest.approx(by_hand, rel=1e-4)
    single = as_data([batch.feed for batch in data.batches()], ports_of(open_model(path)))
    assert abs(evaluate(other, single, metric("snr", False), reference) - by_hand) > 0.05  # rounding makes 0.003


def test_a_sequence_is_kept_in_one_piece(build: Build) -> None:
    path = build(STEP)
    split = hold_out(sequence(path), ports_of(open_model(path)))
    held = np.concatenate([batch.feed["x"] for batch in split.measuring.batches()])
    assert split.samples == 20
    assert np.array_equal(held, X[40:])
    assert split.measuring.states == {"h": "hn"}


def test_compress_with_states(build: Build, tmp_path: Path) -> None:
    path = build(STEP)
    result = op.compress(path, data={"x": X}, carry="h=hn", target="drop=0.2", metric="relative-error")
    assert result.report.recovery == "reconstruct"
    result.save(tmp_path / "small.onnx")
    with pytest.raises(DataError, match="--carry h=OUTPUT"):
        op.compress(path, data={"x": X}, ratio=0.5)


@pytest.mark.parametrize(
    ("text", "says"),
    [("h", "is not an input and the output"), ("g=hn", "no input 'g'"), ("h=hm", "no output 'hm'.*hn")],
)
def test_states_that_do_not_fit(build: Build, text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        op.compress(build(STEP), data={"x": X}, carry=text, ratio=0.5)
