"""Zeros while training: each method makes its paper's update, and ends in zeros that stay."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import onnxprune as op
from onnxprune.analysis.inspect import inspect
from onnxprune.analysis.sparse_shares import erk_shares
from onnxprune.errors import UsageError
from onnxprune.model.file import open_model
from onnxprune.runtime.torch.module import TorchModel
from onnxprune.steps.train.loop import train_model
from onnxprune.steps.train.masking import Masked, grown
from onnxprune.steps.train.method import Moment, Scene, chosen_methods
from onnxprune.steps.train.parameters import trainable
from tests.conftest import Build
from tests.train.harness import CONVOLUTIONS, LINEAR, blobs, normal, options, pictures, weights

METHODS = ("gradual", "static", "set", "rigl", "soft-filters")
SEQUENCE = """
    net (float[n, 7, 3] x) => (float[n, 2] y)
    <float[1, 16, 3] w, float[1, 16, 4] r, float[1, 32] b, float[4, 2] v, int64[2] s = {-1, 4}>
    { t = Transpose<perm = [1, 0, 2]>(x)  all, last, cell = LSTM<hidden_size = 4>(t, w, r, b)
      h = Reshape(last, s)  y = MatMul(h, v) }
"""
SIGNAL = """
    net (float[n, 2, 16] x) => (float[n, 1, 16] y) <float[6, 2, 5] w, float[6] b, float[1, 6, 5] v>
    { h = Conv<pads = [2, 2]>(x, w, b)  r = Relu(h)  y = Conv<pads = [2, 2]>(r, v) }
"""


def begun(text: str, path: Path) -> tuple[Any, dict[str, torch.nn.Parameter]]:
    """A method on a network, without a training around it."""
    module = TorchModel(open_model(path))
    roles = {key: slot.role for key, slot in trainable(open_model(path)).items()}
    (method,) = chosen_methods([text], [])
    return method.start(Scene(module.weights, roles, inspect(path))), dict(module.weights)


def trained(path: Path, text: str, data: Any = None, **given: Any) -> Any:
    given = {"updates": 40, "batch_size": 16, "learning_rate": 0.02, **given}
    return train_model(open_model(path), blobs() if data is None else data, options(training_method=text, **given))


def share(masks: dict[str, torch.Tensor]) -> float:
    return float(sum((mask == 0).sum() for mask in masks.values())) / sum(mask.numel() for mask in masks.values())


def test_sparsity_grows_with_the_cube_of_the_time_that_is_left() -> None:
    for at in (0.0, 0.25, 0.5, 1.0):
        assert grown(at, 0.0, 1.0) == pytest.approx(1 - (1 - at) ** 3)
        assert grown(0.2 + 0.6 * at, 0.2, 0.8) == pytest.approx(1 - (1 - at) ** 3)
    assert grown(0.1, 0.2, 0.8) == 0
    assert grown(0.9, 0.2, 0.8) == 1
    assert grown(0.5, 0.5, 0.5) == 1


def test_gradual_masks_follow_it_and_hide_the_smallest(build: Build) -> None:
    effect, held = begun(
        "gradual:0.75,shares=uniform,interval=2,end=1.0", build(LINEAR, w=normal(4, 8), v=normal(8, 3))
    )
    for step, at in ((1, 0.25), (3, 0.5)):
        effect.after_step(held, Moment(at, 0.1, step))
        assert share(effect.masks) == pytest.approx(0.75 * (1 - (1 - at) ** 3), abs=0.03)
        hidden = held["w"].detach().abs()[effect.masks["w"] == 0]
        assert hidden.max() <= held["w"].detach().abs()[effect.masks["w"] > 0].min()
    before = effect.masks["w"].clone()
    effect.after_step(held, Moment(0.9, 0.1, 4))  # between two changes
    assert torch.equal(before, effect.masks["w"])
    with torch.no_grad():
        weak = (effect.masks["w"] == 0).nonzero()[0]
        held["w"][tuple(weak)] = 9.0
    effect.after_step(held, Moment(0.5, 0.1, 5))
    assert effect.masks["w"][tuple(weak)] == 1  # it grew behind the mask, and is back
    effect.finish(held, Moment(1.0, 0.1, 9))
    once = held["w"].detach().clone()
    effect.finish(held, Moment(1.0, 0.1, 9))
    assert torch.equal(once, held["w"])
    assert float((once == 0).float().mean()) == 0.75


@pytest.mark.parametrize("level", ["weight", "unit"])
def test_gradual_masks_stay_as_they_are_from_the_end_on(level: str, build: Build) -> None:
    """What grew behind a mask afterwards was never in use, and may not take the place of what was."""
    effect, held = begun(
        f"gradual:0.75,level={level},shares=uniform,interval=2,end=0.5", build(LINEAR, w=normal(4, 8), v=normal(8, 3))
    )
    effect.after_step(held, Moment(0.5, 0.1, 4))
    last = {name: each.clone() for name, each in effect.buffers.items()}
    assert any((each == 0).float().mean() == 0.75 for each in last.values())
    slope = torch.autograd.grad(effect.weights(held, Moment(0.6, 0.1, 5), training=True)["v"].sum(), held["v"])[0]
    assert (slope == 0).float().mean() == 0.75
    with torch.no_grad():
        for each in held.values():
            each.copy_(each.abs().amax() - each.abs())  # the smallest are the largest now
    effect.after_step(held, Moment(0.7, 0.1, 5))
    effect.finish(held, Moment(1.0, 0.1, 9))
    assert all(torch.equal(each, effect.buffers[name]) for name, each in last.items())


@pytest.mark.parametrize("revive", [True, False])
def test_gradients_behind_a_mask(revive: bool, build: Build) -> None:
    effect, held = begun(f"gradual:0.5,interval=1,end=1,revive={str(revive).lower()}", build(LINEAR))
    effect.after_step(held, Moment(0.9, 0.1, 0))
    masked = effect.masks["w"] == 0
    seen = effect.weights(held, Moment(0.9, 0.1, 1), training=True)["w"]
    assert not seen[masked].any()
    (slope,) = torch.autograd.grad((seen * torch.arange(1.0, 33).reshape(4, 8)).sum(), held["w"])
    due = torch.arange(1.0, 33).reshape(4, 8)
    assert torch.equal(slope, due if revive else torch.where(masked, torch.zeros(()), due))


def exchanged(text: str, build: Build, at: float) -> tuple[Masked, dict[str, torch.nn.Parameter], torch.Tensor]:
    """After one exchange: the effect, the weights, and the mask of before."""
    effect, held = begun(text, build(LINEAR, w=normal(4, 8), v=normal(8, 3)))
    before = effect.masks["w"].clone()
    torch.manual_seed(0)
    for key in held:
        held[key].grad = torch.from_numpy(normal(*held[key].shape, seed=3))
    effect.before_step(held, Moment(at, 0.1, 0))
    assert not held["w"].grad[before == 0].any()  # type: ignore[index]
    effect.after_step(held, Moment(at, 0.1, 0))
    return effect, held, before


def test_rigl_drops_the_smallest_and_grows_where_the_gradient_is_largest(build: Build) -> None:
    start, slopes = normal(4, 8), np.abs(normal(4, 8, seed=3))
    for at in (0.0, 0.3):
        effect, held, before = exchanged("rigl:0.5,fraction=0.5,interval=1,end=0.6,shares=uniform", build, at)
        was = before.numpy() > 0
        assert was.sum() == 16
        count = int(0.5 / 2 * (1 + math.cos(math.pi * at / 0.6)) * 16)
        assert count == (8, 4)[at > 0]
        size = np.where(was, np.abs(start), np.inf).ravel()
        left = was.ravel().copy()
        left[np.argsort(size)[:count]] = False
        candidates = np.where(left, -np.inf, slopes.ravel())
        due = left.copy()
        due[np.argsort(-candidates)[:count]] = True
        assert np.array_equal(effect.masks["w"].numpy().ravel() > 0, due)
        new = due & ~was.ravel()
        assert new.any()
        assert not held["w"].detach().numpy().ravel()[new].any()  # they begin at zero
        assert not held["w"].detach().numpy().ravel()[~due].any()
        kept = left & due
        assert np.array_equal(held["w"].detach().numpy().ravel()[kept], start.ravel()[kept])
    after, _, before = exchanged("rigl:0.5,interval=1,end=0.6", build, 0.7)
    assert torch.equal(after.masks["w"], before)


def test_set_drops_the_smallest_and_grows_anywhere_else(build: Build) -> None:
    effect, held, before = exchanged("set:0.5,fraction=0.25,interval=1,shares=uniform", build, 0.5)
    after, was = effect.masks["w"] > 0, before > 0
    assert after.sum() == was.sum() == 16
    gone, come = was & ~after, after & ~was
    assert gone.sum() == come.sum() == 4
    size = torch.from_numpy(normal(4, 8)).abs()
    assert size[gone].max() < size[was & after].min()
    assert not held["w"].detach()[come].any()


def test_shares_are_erk_or_uniform_and_first_masks_by_size_or_drawn(build: Build) -> None:
    effect, held = begun("static:0.6", build(LINEAR, w=normal(4, 8), v=normal(8, 3)))
    due = erk_shares({"w": (4, 8), "v": (8, 3)}, {"w": 32, "v": 24}, 0.6)
    for key, mask in effect.masks.items():
        assert float((mask == 0).float().mean()) == pytest.approx(due[key], abs=0.02)
    assert held["w"].detach().abs()[effect.masks["w"] > 0].min() > np.sort(np.abs(normal(4, 8)).ravel())[10]
    drawn, _ = begun("static:0.6,first=random", build(LINEAR, w=normal(4, 8), v=normal(8, 3)))
    assert not torch.equal(drawn.masks["w"], effect.masks["w"])


@pytest.mark.parametrize("text", ["gradual:0.7,interval=4", "static:0.7", "set:0.7,interval=4", "rigl:0.7,interval=4"])
def test_it_ends_in_as_many_zeros_and_says_so_to_the_steps_that_follow(text: str, build: Build) -> None:
    result = trained(build(LINEAR, w=normal(4, 8), v=normal(8, 3)), text)
    held = weights(result.model)
    zeros = sum(int((~mask).sum()) for mask in result.zeros.values())
    assert zeros == pytest.approx(0.7 * 56, abs=2)
    assert all((held[name][~mask] == 0).all() and (held[name][mask] != 0).all() for name, mask in result.zeros.items())
    # A training that begins with all weights ends with a third of them, the others begin with what they end with.
    assert text.startswith("gradual") or result.best.loss < result.start.loss


def test_two_of_four_in_the_end(build: Build) -> None:
    result = trained(build(LINEAR, w=normal(4, 8), v=normal(8, 3)), "gradual:pattern=2:4,interval=4")
    for name in "wv":
        array = weights(result.model)[name]
        assert ((array != 0).reshape(-1, 4, array.shape[1]).sum(axis=1) == 2).all()
    fixed = trained(build(LINEAR, w=normal(4, 8), v=normal(8, 3)), "static:pattern=2:4", updates=4)
    assert ((weights(fixed.model)["v"] != 0).reshape(2, 4, 3).sum(axis=1) == 2).all()
    with pytest.raises(UsageError, match="unknown pattern"):
        trained(build(LINEAR), "gradual:pattern=2-4")


@pytest.mark.parametrize("text", ["gradual:0.5,level=unit,interval=4", "soft-filters:0.5,interval=4"])
def test_units_that_are_off_go_without_a_trace(text: str, build: Build, tmp_path: Path) -> None:
    path = build(LINEAR, w=normal(4, 8), v=normal(8, 3))
    steps = [op.Train(training_method=text, updates=20, batch_size=16), op.Prune(lossless=True), op.Clean()]
    whole = op.Recipe(steps[:1])(path, data=blobs(), allow_damage=True)
    result = op.Recipe(steps)(path, data=blobs(), allow_damage=True)
    (group,) = result.report.groups
    assert group.kept == 4
    x = next(iter(blobs().batches())).feed
    before, after = (TorchModel(each.model)(x)["logits"] for each in (whole, result))
    torch.testing.assert_close(before, after, rtol=1e-5, atol=1e-6)


def test_soft_filters_come_back(build: Build) -> None:
    effect, held = begun("soft-filters:0.5,interval=1", build(LINEAR, w=normal(4, 8), v=normal(8, 3)))
    norms = held["w"].detach().square().sum(0)
    effect.after_step(held, Moment(0.1, 0.1, 0))
    off = ~held["w"].detach().any(0)
    assert off.sum() == 4
    assert norms[off].max() < norms[~off].min()
    assert held["v"].detach().any(1).all()  # what reads them is kept until the end
    with torch.no_grad():
        held["w"][:, off] = 5.0
    effect.after_step(held, Moment(0.2, 0.1, 1))
    assert held["w"].detach()[:, off].any(0).all()
    effect.finish(held, Moment(1.0, 0.1, 2))
    gone = ~held["w"].detach().any(0)
    assert not held["v"].detach()[gone].any()
    assert not held["b"].detach()[gone].any()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("network", [SEQUENCE, SIGNAL], ids=["lstm", "conv1d"])
def test_any_model_that_trains(method: str, network: str, build: Build) -> None:
    path = build(network)
    x, labels = (normal(32, 7, 3), normal(32, 2)) if network is SEQUENCE else (normal(32, 2, 16), normal(32, 1, 16))
    steps = op.Recipe([op.Train(training_method=method, updates=6, batch_size=16)])
    found = steps(path, data=(x, labels), loss="mse", allow_damage=True)
    held = weights(found.model)
    assert any((array == 0).any() for name, array in held.items() if array.ndim > 1)
    assert {node.op_type for node in found.model.graph} == {node.op_type for node in open_model(path).graph}


def test_masks_of_earlier_steps_hold(build: Build) -> None:
    path = build(CONVOLUTIONS)
    first = op.Recipe([op.Sparsify(sparsity=0.5, weight_criterion="random")])(path, allow_damage=True).state.zeros
    steps = [
        op.Sparsify(sparsity=0.5, weight_criterion="random", update="none"),
        op.Train(training_method="rigl:0.5,interval=2", updates=8, batch_size=16),
    ]
    result = op.Recipe(steps)(path, data=pictures(labelled=True), allow_damage=True)
    for name, mask in first.items():
        assert not weights(result.model)[name][~mask].any()


@pytest.mark.parametrize("text", ["set:0.5,interval=1", "rigl:0.5,interval=1"])
def test_weights_whose_channels_come_last_are_exchanged_too(text: str, build: Build) -> None:
    module = TorchModel(open_model(build(CONVOLUTIONS)))
    for weight in module.weights.values():
        if weight.ndim == 4:
            weight.data = weight.data.to(memory_format=torch.channels_last)
    roles = {key: slot.role for key, slot in trainable(open_model(build(CONVOLUTIONS))).items()}
    (method,) = chosen_methods([text], [])
    effect = method.start(Scene(module.weights, roles, inspect(build(CONVOLUTIONS))))
    before = effect.buffers["mask of w2"].clone()
    effect.after_step(dict(module.weights), Moment(0.1, 0.1, 0))
    after = effect.buffers["mask of w2"]
    assert not torch.equal(before, after)
    assert before.sum() == after.sum()
    assert not module.weights["w2"].detach()[after == 0].any()
