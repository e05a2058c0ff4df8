"""The last gate before a file is written: a valid model with the interface of the original."""

from __future__ import annotations

from pathlib import Path

import pytest

from onnxprune.errors import ModelError, VerificationError
from onnxprune.evaluation.verify import run_original, verify
from tests.conftest import Build

MODEL = "net (float[batch, 5] x) => (float[batch, 3] y) <float[5, 3] w> { y = MatMul(x, w) }"


def test_model_passes_against_itself(build: Build) -> None:
    path = build(MODEL)
    original = run_original(path, {"batch": 4})
    assert verify(path, original) == []


def test_batch_is_tried_at_one_first(build: Build) -> None:
    assert run_original(build(MODEL), {"batch": 4}).feed["x"].shape == (1, 5)


def test_batch_that_must_not_be_one_is_run_as_given(build: Build) -> None:
    path = build("""
        net (float[batch, 5] x) => (float[3, 5] y)
        <int64[2] shape = {3, 5}>
        { y = Reshape(x, shape) }
    """)
    assert run_original(path, {"batch": 3}).feed["x"].shape == (3, 5)


def test_model_that_does_not_run_is_refused(build: Build) -> None:
    path = build("net (float[batch, 5] x) => (float[batch, 5] y) { y = acme.Mystery(x) }", opsets={"acme": 1})
    with pytest.raises(ModelError, match="cannot load"):
        run_original(path, {"batch": 3})


CHANGES = {
    "input renamed": (MODEL.replace("x", "other"), "another interface"),
    "output renamed": (MODEL.replace("y", "other"), "another interface"),
    "one more input": (MODEL.replace(" x)", " x, float[3] z)", 1), "another interface"),
    "another rank": (
        "net (float[batch, 5] x) => (float[batch, 3, 1] y) <float[5, 3] w, int64[3] s = {-1, 3, 1}>"
        "{ h = MatMul(x, w)  y = Reshape(h, s) }",
        "another interface",
    ),
    "another type": (
        "net (float[batch, 5] x) => (double[batch, 3] y) <float[5, 3] w> { h = MatMul(x, w)  y = Cast<to = 11>(h) }",
        "another interface",
    ),
    "no longer a model": (MODEL.replace("[5, 3]", "[4, 3]"), "not valid"),
    "no longer finite": (
        MODEL.replace("y = MatMul(x, w)", "h = MatMul(x, w)  z = Sub(h, h)  y = Div(h, z)"),
        "is not finite",
    ),
}


@pytest.mark.parametrize(("changed", "message"), CHANGES.values(), ids=CHANGES)
def test_change_that_matters_is_refused(build: Build, changed: str, message: str) -> None:
    original = run_original(build(MODEL), {"batch": 4})
    with pytest.raises(VerificationError, match=message) as refusal:
        verify(build(changed, name="changed"), original)
    assert "nothing was written" in str(refusal.value)


def test_size_may_be_named_differently(build: Build, tmp_path: Path) -> None:
    """Names of dynamic axes are no part of the interface."""
    original = run_original(build(MODEL), {"batch": 4})
    verify(build(MODEL.replace("batch", "n"), name="changed"), original)


def test_output_that_never_was_finite_may_stay_so(build: Build) -> None:
    path = build(MODEL.replace("y = MatMul(x, w)", "h = MatMul(x, w)  z = Sub(h, h)  y = Div(h, z)"))
    verify(path, run_original(path, {"batch": 4}))
