"""Each penalty is that of its paper: one update of plain gradient descent, then the paper's step worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import onnxprune as op
from onnxprune.analysis.inspect import inspect
from onnxprune.model.file import open_model
from onnxprune.runtime.torch.module import TorchModel
from onnxprune.steps.train.loop import train_model
from onnxprune.steps.train.method import Moment, Scene, chosen_methods
from onnxprune.steps.train.units import unit_groups
from tests.conftest import ROOT, Build
from tests.train.harness import LINEAR, NORMALIZED, Array, blobs, data_of, normal, options, pictures, weights

RATE, STRENGTH = 0.1, 2.0
# Plain gradient descent: no momentum, no decay, one rate; all samples in each update.
PLAIN = {
    "optimizer": "sgd",
    "momentum": 0.0,
    "weight_decay": 0.0,
    "learning_rate": RATE,
    "rate_schedule": "constant",
    "rate_warmup": 0.0,
    "keep": "last",
    "holdout": 0.0,
}
START = {"w": normal(4, 8), "b": normal(8, seed=1), "v": normal(8, 3, seed=2), "c": normal(3, seed=3)}


def trained(build: Build, updates: int = 1, **given: Any) -> dict[str, Array]:
    model = open_model(build(LINEAR, **START))
    return weights(train_model(model, blobs(64), options(**PLAIN, updates=updates, batch_size=64, **given)).model)


def soft(x: Array, amount: Array | float) -> Array:
    return np.where(np.abs(x) > amount, x - amount * np.sign(x), 0)


def units(found: dict[str, Array], amount: float) -> dict[str, Array]:
    """Each of the eight units is a column of w, an entry of b and a row of v: 8 weights."""
    after = {name: array.copy() for name, array in found.items()}
    for unit in range(8):
        own = np.concatenate([found["w"][:, unit], found["b"][[unit]], found["v"][unit]])
        factor = max(0, 1 - amount * np.sqrt(len(own)) / np.linalg.norm(own))
        after["w"][:, unit] *= factor
        after["b"][unit] *= factor
        after["v"][unit] *= factor
    return after


def matrices(found: dict[str, Array], function: Any) -> dict[str, Array]:
    return {name: function(array, START[name]) if name in "wv" else array for name, array in found.items()}


def singular(x: Array, amount: float) -> Array:
    left, sizes, right = np.linalg.svd(x, full_matrices=False)
    return (left * np.maximum(sizes - amount, 0)) @ right


A = RATE * STRENGTH
DUE = {
    "l1": lambda found: matrices(found, lambda x, _: soft(x, A)),
    "l2": lambda found: matrices(found, lambda x, start: x - A * start),
    "elastic-net": lambda found: matrices(found, lambda x, _: soft(x, A / 2) / (1 + A / 2)),
    "adaptive-lasso": lambda found: matrices(found, lambda x, start: soft(x, A / np.abs(start))),
    "group-lasso": lambda found: units(found, A / 5),
    "sparse-group-lasso": lambda found: units(matrices(found, lambda x, _: soft(x, A / 10)), A / 10),
    "nuclear": lambda found: matrices(found, lambda x, _: singular(x, A)),
    "orthogonality": lambda found: matrices(
        found,
        # of |W W' - 1|^2 the gradient is 4 (W W' - 1) W, on the side where the product is smaller
        lambda x, w: x - A * (4 * (w @ w.T - np.eye(4)) @ w if len(w) == 4 else 4 * w @ (w.T @ w - np.eye(3))),
    ),
}


@pytest.mark.parametrize("name", DUE)
def test_an_update_is_that_of_the_paper(name: str, build: Build) -> None:
    strength = STRENGTH / 5 if "group" in name else STRENGTH
    found, due = trained(build, penalty=f"{name}:{strength}"), DUE[name](trained(build))
    for key, array in due.items():
        np.testing.assert_allclose(found[key], array, rtol=1e-4, atol=1e-5)
    if name in ("l1", "adaptive-lasso", "elastic-net"):
        assert 0 < (found["w"] == 0).sum() < found["w"].size
    assert any(not np.allclose(array, trained(build)[key], atol=1e-3) for key, array in found.items())


def test_growing_regularization_grows_and_takes_the_weakest(build: Build) -> None:
    """The decay of the second of two updates is that of half the strength, on the weakest half; then they are zero."""
    squares = (START["w"] ** 2).sum(0) + START["b"] ** 2 + (START["v"] ** 2).sum(1)
    weakest = np.argsort(squares)[:4]
    found = trained(build, updates=2, penalty="growing:3")
    assert (found["w"][:, weakest] == 0).all()
    assert (found["v"][weakest] == 0).all()
    stays = np.setdiff1d(np.arange(8), weakest)
    assert (found["w"][:, stays] != 0).all()
    path = build(LINEAR, **START)
    module = TorchModel(open_model(path))
    effect = chosen_methods([], ["growing:3"])[0].start(Scene(module.weights, dict.fromkeys(START, ""), inspect(path)))
    own = {name: weight.detach().clone() for name, weight in module.weights.items()}
    effect.after_step(own, Moment(0.5, RATE))
    due = START["w"].copy()
    due[:, weakest] /= 1 + RATE * 3 * 0.5
    np.testing.assert_allclose(own["w"], due, rtol=1e-6)


SCALES = {"s": np.array([1, 0.02, -0.5, 0.03, 2, -0.01], np.float32), "var": np.ones(6), "mean": np.zeros(6)}


def test_network_slimming_shrinks_scales_alone_and_they_are_scores(build: Build) -> None:
    path = build(NORMALIZED, **SCALES)
    given = {**PLAIN, "updates": 1, "batch_size": 64}
    data = pictures(labelled=True)
    plain = weights(train_model(open_model(path), data, options(**given)).model)
    trained = train_model(open_model(path), data, options(**given, penalty="bn-scale:0.5"))
    found = weights(trained.model)
    np.testing.assert_allclose(found["s"], soft(plain["s"], 0.05), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["w"], plain["w"], rtol=1e-5)
    (scores,) = trained.scores.values()
    np.testing.assert_allclose(scores, np.abs(found["s"]), atol=1e-6)
    train = op.Train(penalty="bn-scale:0.5", augment="none", **given)
    prune = op.Prune(criterion="learned", ratio=0.5, round_to=1)
    result = op.Recipe([train, prune])(path, data=pictures(labelled=True))
    kept = np.sort(np.abs(weights(result.model)["s"]))
    np.testing.assert_allclose(kept, np.sort(np.abs(found["s"]))[3:], rtol=0.1)


def test_units_that_a_group_lasso_makes_zero_go_without_a_trace() -> None:
    """Neurons, heads and entries of heads: lossless pruning removes all but the last of a group; the outputs stay."""
    samples = np.load(ROOT / "models" / "digits_calibration.npz")
    given = {"updates": 4, "batch_size": 32, "learning_rate": 0.05, "optimizer": "sgd", "rate_schedule": "constant"}
    data = data_of({"input": samples["input"][:64]}, samples["labels"][:64])
    train = op.Train(penalty="group-lasso:0.25", augment="none", **given)
    result = op.Recipe([train, op.Checkpoint(called="sparse"), op.Prune(lossless=True)])(
        ROOT / "models" / "digits_transformer.onnx", data=data
    )
    sparse = result.state.checkpoints["sparse"]
    module = TorchModel(sparse.model)
    groups = unit_groups(sparse.analysis, module.weights, dict.fromkeys(module.weights, ""), ())
    zero = {group.id: (int((group.squares(module.weights) == 0).sum()), group.units) for group in groups}
    due = {name: min(count, units - 1) for name, (count, units) in zero.items() if count}
    assert {each.group: len(each.remove) for each in result.plan.removals} == due
    assert any(each.kind == "neurons" for each in result.plan.removals)
    feed = {"input": samples["input"][:8]}
    before, after = module(feed)["logits"], TorchModel(result.model)(feed)["logits"]
    np.testing.assert_allclose(before.detach(), after.detach(), atol=1e-5)
