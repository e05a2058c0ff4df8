"""Every criterion beside a closed form of its paper's equation; each goes red with another sign, power or factor."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import onnxprune as op
from onnxprune.analysis.groups import Analysis
from onnxprune.analysis.weight_matrices import weight_matrices
from onnxprune.data.given import as_data
from onnxprune.errors import UsageError
from onnxprune.model.signature import ports_of
from onnxprune.steps.base import Context
from onnxprune.steps.sparsify.base import WEIGHT_CRITERIA, WeightScoring
from tests.conftest import Build

# A regression without an activation: loss = mean (x w v - t)^2, all derivatives in closed form.
LINEAR = "net (float[n, 4] x) => (float[n, 2] y) <float[4, 3] w, float[3, 2] v> { h = MatMul(x, w)  y = MatMul(h, v) }"
ONE = "net (float[n, 4] x) => (float[n, 2] y) <float[4, 2] w> { y = MatMul(x, w) }"
rng = np.random.default_rng(5)
X, T = rng.standard_normal((32, 4)).astype(np.float32), rng.standard_normal((32, 2)).astype(np.float32)


def scored(name: str, analysis: Analysis, *, samples: int = 32, batch: int = 32, **kept: Any) -> dict[str, np.ndarray]:
    pairs = [({"x": X[at : at + batch]}, T[at : at + batch]) for at in range(0, samples, batch)]
    context = Context(data=as_data(pairs, ports_of(analysis.model)), loss="mse")
    scoring = WeightScoring(analysis, weight_matrices(analysis)[0], context, kept.get("kept", {}))
    return {key: np.asarray(found) for key, found in WEIGHT_CRITERIA[name](scoring).items()}


def weights(analysis: Analysis) -> dict[str, np.ndarray]:
    return {
        name: value.const_value.numpy().astype(np.float64)  # type: ignore[union-attr]
        for name, value in analysis.model.graph.initializers.items()
    }


def slope(w: np.ndarray, x: np.ndarray = X, t: np.ndarray = T) -> np.ndarray:
    """Of the mean over all entries of (x w - t)^2."""
    found: np.ndarray = 2 * x.T.astype(np.float64) @ (x @ w - t) / t.size
    return found


@pytest.mark.parametrize("name", WEIGHT_CRITERIA)
def test_a_finite_number_for_each_weight_and_a_source(name: str, build: Build) -> None:
    analysis = op.inspect(build(LINEAR))
    found = scored(name, analysis)
    assert {key: each.shape for key, each in found.items()} == {"w": (4, 3), "v": (3, 2)}
    assert all(np.isfinite(each).all() for each in found.values())
    assert len(WEIGHT_CRITERIA[name].source) > 10
    assert WEIGHT_CRITERIA[name].summary.endswith(".")
    again = scored(name, analysis)
    assert all(np.array_equal(found[key], again[key]) for key in found)
    if WEIGHT_CRITERIA[name].on_data:
        scoring = WeightScoring(analysis, weight_matrices(analysis)[0], Context())
        with pytest.raises(UsageError, match="--data"):
            WEIGHT_CRITERIA[name](scoring)


def test_magnitude_and_lamp(build: Build) -> None:
    analysis = op.inspect(build(LINEAR))
    held = weights(analysis)
    assert np.array_equal(scored("magnitude", analysis)["w"], np.abs(held["w"]))
    squares = np.square(held["w"]).ravel()
    due = [each / squares[squares >= each].sum() for each in squares]
    assert scored("lamp", analysis)["w"].ravel() == pytest.approx(due)


def test_wanda_is_the_size_times_the_norm_of_the_feature(build: Build) -> None:
    analysis = op.inspect(build(ONE))
    due = np.abs(weights(analysis)["w"]) * np.linalg.norm(X, axis=0)[:, None] / np.sqrt(len(X))
    assert scored("wanda", analysis)["w"] == pytest.approx(due, rel=1e-5)


def test_snip_is_the_share_in_the_slopes_of_all_gates(build: Build) -> None:
    analysis = op.inspect(build(LINEAR))
    held = weights(analysis)
    error = 2 * (X @ held["w"] @ held["v"] - T) / T.size
    slopes = {"w": X.T @ error @ held["v"].T, "v": (X @ held["w"]).T @ error}
    due = {key: np.abs(held[key] * slopes[key]) for key in held}
    total = sum(each.sum() for each in due.values())
    for key, found in scored("snip", analysis, batch=8).items():
        assert found == pytest.approx(due[key] / total, rel=1e-4)


def test_taylor_squares_each_batch(build: Build) -> None:
    analysis = op.inspect(build(ONE))
    w = weights(analysis)["w"]
    due = np.mean([np.square(w * slope(w, X[at : at + 8], T[at : at + 8])) for at in range(0, 32, 8)], axis=0)
    assert scored("taylor", analysis, batch=8)["w"] == pytest.approx(due, rel=1e-4)


def test_fisher_squares_each_sample(build: Build) -> None:
    analysis = op.inspect(build(ONE))
    w = weights(analysis)["w"]
    each = [np.square(slope(w, X[at : at + 1], T[at : at + 1])) for at in range(32)]
    assert scored("fisher", analysis)["w"] == pytest.approx(np.square(w) * np.mean(each, axis=0) / 2, rel=1e-4)


def test_obd_is_half_the_square_times_the_curvature(build: Build) -> None:
    """Of an output that is the mean of a Gaussian of variance 1 the diagonal of Gauss-Newton is E[x^2]."""
    analysis = op.inspect(build(ONE.replace("float[n, 2]", "float[n, 1]").replace("float[4, 2]", "float[4, 1]")))
    due = np.square(weights(analysis)["w"]) / 2 * np.mean(np.square(X), axis=0)[:, None]
    contexts = [Context(data=as_data({"x": X}, ports_of(analysis.model)), seed=seed) for seed in range(200)]
    scorings = [WeightScoring(analysis, weight_matrices(analysis)[0], context) for context in contexts]
    found = np.mean([WEIGHT_CRITERIA["obd"](scoring)["w"] for scoring in scorings], axis=0)
    assert found == pytest.approx(due, rel=0.3)


def test_grasp_is_weight_times_hessian_times_gradient(build: Build) -> None:
    """A weight goes first where its removal raises the squared norm of the gradient: g(w + d) - g(w) = 2 d^T H g."""
    analysis = op.inspect(build(ONE))
    w = weights(analysis)["w"]
    hessian_gradient = 2 * X.T.astype(np.float64) @ X @ slope(w) / T.size
    found = scored("grasp", analysis)["w"]
    assert found == pytest.approx(w * hessian_gradient, rel=1e-4)
    step = np.zeros_like(w)
    step[1, 1] = -1e-4 * w[1, 1]
    change = np.square(slope(w + step)).sum() - np.square(slope(w)).sum()
    assert change == pytest.approx(-2e-4 * found[1, 1], rel=1e-2)


def test_synflow_is_the_flow_through_a_weight_and_follows_what_is_left(build: Build) -> None:
    analysis = op.inspect(build(LINEAR))
    held = {key: np.abs(each) for key, each in weights(analysis).items()}
    found = scored("synflow", analysis)
    assert found["w"] == pytest.approx(held["w"] * held["v"].sum(axis=1)[None])
    assert found["v"] == pytest.approx(held["v"] * held["w"].sum(axis=0)[:, None])
    assert found["w"].sum() == pytest.approx(found["v"].sum())  # what is conserved, theorem 1
    kept = np.ones((4, 3), bool)
    kept[:, 0] = False
    left = scored("synflow", analysis, kept={"w": kept})
    assert not left["v"][0].any()
    assert left["v"][1:] == pytest.approx(found["v"][1:])


def test_obs_is_what_a_refitted_layer_is_off_by(build: Build) -> None:
    """The error of the best layer without one weight, found by least squares, over the power of the output."""
    analysis = op.inspect(build(ONE))
    w = weights(analysis)["w"]
    centred = (X - X.mean(axis=0)).astype(np.float64)  # a bias takes up the mean
    found = scored("obs", analysis)["w"]
    rest = [0, 1, 3]
    for output in range(2):
        due = centred @ w[:, output]
        best, *_ = np.linalg.lstsq(centred[:, rest], due, rcond=None)
        error = np.mean(np.square(centred[:, rest] @ best - due))
        assert found[2, output] == pytest.approx(error / np.mean(np.square(centred @ w).sum(axis=1)), rel=0.05)


def test_random_is_drawn_from_the_seed(build: Build) -> None:
    analysis = op.inspect(build(LINEAR))
    scoring = WeightScoring(analysis, weight_matrices(analysis)[0], Context())
    other = replace(scoring, context=Context(seed=1))
    assert not np.array_equal(WEIGHT_CRITERIA["random"](scoring)["w"], WEIGHT_CRITERIA["random"](other)["w"])
