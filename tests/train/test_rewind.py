"""Weights put back to those of an earlier time, cut to the units that are left."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onnxprune.analysis.inspect import inspect
from onnxprune.errors import ModelError
from onnxprune.model.file import open_model, save
from onnxprune.passes.remove_units import RemoveUnits
from onnxprune.runtime.torch.module import TorchModel
from onnxprune.steps.train.loop import train_model
from onnxprune.steps.train.reinitialize import reinitialize
from onnxprune.steps.train.rewind import left_of, read_weights, rewind, weights_of
from onnxprune.steps.train.setup import Running
from tests.conftest import Build
from tests.train.harness import CONVOLUTIONS, LINEAR, normal, options, pictures, weights


def test_a_pruned_model_gets_the_weights_of_the_units_that_it_has(build: Build) -> None:
    path = build(CONVOLUTIONS)
    early = open_model(path)
    reinitialize(early, seed=4)
    original, cut = inspect(path), inspect(path)
    keep = {group.atom: np.arange(group.units) % 2 == 0 for group in cut.groups}
    RemoveUnits(cut, keep)(cut.model)
    now = {group.atom: np.arange(group.units) % 2 == 0 for group in original.groups}
    found = rewind(cut.model, weights_of(early), left_of(original, now))
    assert set(found.written.changed) == set(weights(cut.model))
    assert found.kept == ()
    # it is the early network with those units removed
    expected = inspect(path)
    for name, array in weights_of(early).items():
        rewind(expected.model, {name: array})
    RemoveUnits(expected, {group.atom: np.arange(group.units) % 2 == 0 for group in expected.groups})(expected.model)
    x = {"x": normal(4, 3, 8, 8)}
    for name, array in weights(expected.model).items():
        assert np.array_equal(weights(cut.model)[name], array)
    assert TorchModel(cut.model)(x)["logits"].equal(TorchModel(expected.model)(x)["logits"])


def test_weights_of_a_time_between(build: Build) -> None:
    """Units were removed twice, and the weights are those after the first time."""
    path = build(CONVOLUTIONS)
    original = inspect(path)
    then = {group.atom: np.arange(group.units) != 1 for group in original.groups}
    now = {group.atom: np.arange(group.units) > 2 for group in original.groups}
    kept = left_of(original, now, then)
    units = len(next(iter(then.values())))
    for name in ("w1", "b1"):
        masks = kept(name)
        assert masks is not None
        assert masks[0].tolist() == [place > 2 for place in range(units) if place != 1]
    assert kept("nowhere") is None


def test_zeros_stay_zero(build: Build) -> None:
    model = open_model(build(LINEAR))
    mask = np.random.default_rng(0).random((4, 8)) < 0.5
    rewind(model, {"w": normal(4, 8, seed=7)}, zeros={"w": mask})
    assert np.array_equal(weights(model)["w"], np.where(mask, normal(4, 8, seed=7), 0))


def test_weights_that_do_not_fit_are_named_and_another_model_is_refused(build: Build) -> None:
    model = open_model(build(LINEAR))
    found = rewind(model, {"w": normal(4, 8, seed=7), "v": normal(3, 3)})
    assert found.kept == ("b", "v", "c")
    with pytest.raises(ModelError, match="another one"):
        rewind(model, {"z": normal(4, 8)})


def test_from_a_file_or_a_checkpoint(build: Build, tmp_path: Path) -> None:
    model = open_model(build(CONVOLUTIONS))
    reinitialize(model)
    save(model, tmp_path / "early.onnx")
    place = tmp_path / "training.safetensors"
    given = options(learning_rate=5e-3, keep="last")
    trained = train_model(model, pictures(labelled=True), given, running=Running(checkpoint=place))
    for path, due in ((tmp_path / "early.onnx", model), (place, trained.model)):
        now = open_model(build(CONVOLUTIONS))
        rewind(now, read_weights(path))
        for name, array in weights(due).items():
            np.testing.assert_allclose(weights(now)[name], array, rtol=1e-5, atol=1e-6)
    with pytest.raises(ModelError, match="does not exist"):
        read_weights(tmp_path / "none.onnx")
