"""What training methods and penalties share: where they take part, resuming, and the file at the end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import onnxprune as op
from onnxprune.analysis.inspect import inspect
from onnxprune.dims import Mask
from onnxprune.errors import UsageError
from onnxprune.model.file import open_model
from onnxprune.model.signature import ports_of
from onnxprune.passes.remove_units import RemoveUnits
from onnxprune.runtime.torch.module import TorchModel
from onnxprune.steps.train.loop import train_model
from onnxprune.steps.train.method import PENALTIES, TRAINING_METHODS, Moment, Scene, chosen_methods
from onnxprune.steps.train.options import TrainOptions
from onnxprune.steps.train.parameters import trainable
from onnxprune.steps.train.setup import Running
from onnxprune.steps.train.units import gated, unit_groups
from tests.conftest import ROOT, Build
from tests.train.harness import CONVOLUTIONS, LINEAR, NORMALIZED, blobs, normal, options, pictures, weights

METHODS = [("training_method", name) for name in TRAINING_METHODS] + [("penalty", name) for name in PENALTIES]


@pytest.mark.parametrize(("option", "name"), METHODS, ids=[name for _, name in METHODS])
def test_one_that_is_interrupted_ends_as_if_it_had_not_been(
    option: str, name: str, build: Build, tmp_path: Path
) -> None:
    """With normalizations put in the same seed gives the same numbers, also after a resume."""
    given = {option: (name,), "normalization": "batch", "evaluations": 2}
    path, place = build(CONVOLUTIONS), tmp_path / "training.safetensors"
    whole = train_model(open_model(path), pictures(labelled=True), options(updates=6, **given))
    said: list[str] = []

    def killed(text: str) -> None:
        said.append(str(text))
        if len(said) == 4:
            raise KeyboardInterrupt

    running = Running(checkpoint=place, every=0.0, resume=True)
    with pytest.raises(KeyboardInterrupt):
        train_model(
            open_model(path),
            pictures(labelled=True),
            options(updates=6, **given),
            running=replace(running, progress=killed),
        )
    again = train_model(open_model(path), pictures(labelled=True), options(updates=6, **given), running=running)
    assert whole.best == again.best
    assert whole.best.step == 6
    for weight, array in weights(whole.model).items():
        assert np.array_equal(weights(again.model)[weight], array), weight
    other = train_model(open_model(path), pictures(labelled=True), options(updates=6, **given), running=Running(seed=1))
    assert any(not np.array_equal(array, weights(other.model)[key]) for key, array in weights(whole.model).items())
    assert {name: each.shape for name, each in whole.zeros.items()} == {
        name: weights(whole.model)[name].shape for name in whole.zeros
    }
    for key, mask in whole.zeros.items():
        assert (weights(whole.model)[key][~mask] == 0).all()


@pytest.mark.parametrize(("option", "name"), METHODS, ids=[name for _, name in METHODS])
def test_what_evaluations_see_is_not_random_and_a_term_has_a_gradient(option: str, name: str, build: Build) -> None:
    path = build(NORMALIZED)
    module = TorchModel(open_model(path))
    roles = {key: slot.role for key, slot in trainable(open_model(path)).items()}
    (method,) = chosen_methods([name], []) if option == "training_method" else chosen_methods([], [name])
    effect = method.start(Scene(module.weights, roles, inspect(path)))
    first, again = (
        dict(effect.weights(module.weights, Moment(0.5, 0.01, 7), training=False)) for seed in (1, 2) if seeded(seed)
    )
    assert first.keys() <= module.weights.keys()
    for key, value in first.items():
        assert value.shape == module.weights[key].shape
        assert torch.equal(value, again[key])
    term = effect.term(module.weights, Moment(0.5, 0.01, 7))
    if term is not None:
        asked = [*module.weights.values(), *effect.parameters.values()]
        gradients = [each for each in torch.autograd.grad(term, asked, allow_unused=True) if each is not None]
        assert term.shape == ()
        assert any(bool((each != 0).any()) for each in gradients)
        assert all(bool(torch.isfinite(each).all()) for each in gradients)


def seeded(seed: int) -> bool:
    torch.manual_seed(seed)
    return True


def switched_off(path: Path) -> tuple[TorchModel, dict[str, Mask]]:
    """The network with gates that switch off a third of the units of every group that can have some."""
    analysis = inspect(path)
    module = TorchModel(analysis.model)
    every = unit_groups(analysis, module.weights, dict.fromkeys(module.weights, ""), ())
    groups = [group for group in every if group.readers]
    rng = np.random.default_rng(0)
    keep = {group.id: rng.random(group.units) > 0.3 for group in groups}
    gates = {key: torch.from_numpy(mask).float() for key, mask in keep.items()}
    module.substitutes = gated(module.weights, groups, gates)
    return module, keep


GATED = ("digits_resnet", "digits_transformer", "digits_lstm")


@pytest.mark.parametrize("name", GATED)
def test_a_gate_of_zero_is_the_removed_unit(name: str) -> None:
    path = ROOT / "models" / f"{name}.onnx"
    module, keep = switched_off(path)
    cut = inspect(path)
    RemoveUnits(cut, {group.atom: keep[group.id] for group in cut.groups if group.id in keep})(cut.model)
    generator = torch.Generator().manual_seed(0)
    feed = {port.name: torch.randn(4, *port.shape[1:], generator=generator) for port in ports_of(cut.model)}
    with torch.no_grad():
        switched, removed = module(feed), TorchModel(cut.model)(feed)
        module.substitutes = {}
        before = module(feed)
    for key, value in switched.items():
        torch.testing.assert_close(value, removed[key], rtol=1e-4, atol=1e-4)
        assert not torch.allclose(value, before[key], atol=1e-2)


def test_texts_say_which_options_and_wrong_ones_are_refused() -> None:
    chosen = chosen_methods(["dropout:0.3,level=weight"], ["l1:1e-3"])
    assert [str(each) for each in chosen] == ["dropout:rate=0.3,level=weight,curriculum=0.0", "l1:strength=0.001"]
    for text, said in (
        ("dropot", "unknown training method 'dropot'; did you mean 'dropout'"),
        ("dropout:2", r"rate 2 is outside \[0, 1\)"),
        ("dropout:much", "much is not a number"),
        ("dropout:0.1,0.2", "'0.2' has to be NAME=VALUE"),
        ("dropout:level=layer", "unknown level 'layer'"),
    ):
        with pytest.raises(UsageError, match=said):
            TrainOptions(training_method=text)
    with pytest.raises(UsageError, match="unknown penalty"):
        TrainOptions(penalty="dropout")


def test_what_does_not_go_together_is_said(build: Build) -> None:
    model = open_model(build(LINEAR))
    for given, said in (
        ({"penalty": ("l1", "l1:0.1")}, "l1 is given twice"),
        ({"penalty": "l1", "ema": 0.9}, "an average has no exact zeros"),
        ({"penalty": "l1", "compile": True}, "compile does not go with"),
    ):
        with pytest.raises(UsageError, match=said):
            train_model(model, blobs(), options(**given))


def test_the_steps_that_follow_keep_the_zeros(build: Build) -> None:
    """The mask of a training is part of the state, and holds in the next training."""
    path = build(LINEAR, w=normal(4, 8), v=normal(8, 3))
    given = {"updates": 30, "batch_size": 16, "learning_rate": 0.02, "keep": "last"}
    recipe = op.Recipe([op.Train(penalty="l1:1", **given), op.Train(**given)])
    result = recipe(path, data=blobs())
    found = weights(result.model)
    first = op.Recipe([op.Train(penalty="l1:1", **given)])(path, data=blobs())
    zero = weights(first.model)["w"] == 0
    assert 0 < zero.sum() < zero.size
    assert (found["w"][zero] == 0).all()
    assert (found["w"][~zero] != weights(first.model)["w"][~zero]).any()
