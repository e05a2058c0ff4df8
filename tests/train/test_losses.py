"""The loss: each part against its formula, and the mix of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from onnxprune.errors import UsageError
from onnxprune.model.file import open_model
from onnxprune.steps.train.augment import Mixed
from onnxprune.steps.train.computing import Computing
from onnxprune.steps.train.distil import Targets, Teacher
from onnxprune.steps.train.losses import Objective
from onnxprune.steps.train.options import TrainOptions
from tests.conftest import Build

CPU = Computing(torch.device("cpu"))


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def targets(build: Build) -> Targets:
    """A teacher whose values are not looked at, with inner values a and b."""
    path = build("net (float[n, 4] x) => (float[n, 4] y) { a = Relu(x)  b = Tanh(a)  y = Exp(b) }")
    return Targets(Teacher(open_model(path)), ["a", "b"], CPU, 0)


def objective(
    targets: Targets | None, sample: dict[str, Tensor] | None, labelled: bool = False, loss: str = "auto", **given: Any
) -> Objective:
    names = ["y"] if sample is None else [name for name in sample if name not in ("a", "b")]
    return Objective(TrainOptions(**given), names, loss=loss, labelled=labelled, targets=targets, sample=sample)


def test_classes_are_compared_by_kl_at_a_temperature(targets: Targets) -> None:
    ours, theirs = random(8, 5), random(8, 5, seed=1)
    found = objective(targets, {"y": theirs}, distance=("kl",), temperature=3.0)({"y": ours}, None, {"y": theirs})
    p, q = (theirs / 3).softmax(-1), (ours / 3).log_softmax(-1)
    torch.testing.assert_close(found, 9 * (p * (p.log() - q)).sum(-1).mean())


def test_probabilities_are_compared_as_what_they_are(targets: Targets) -> None:
    ours, theirs = random(8, 5), random(8, 5, seed=1)
    loss = objective(targets, {"y": theirs.softmax(-1)}, distance=("kl",))
    found = loss({"y": ours.softmax(-1)}, None, {"y": theirs.softmax(-1)})
    plain = objective(targets, {"y": theirs}, distance=("kl",))({"y": ours}, None, {"y": theirs})
    torch.testing.assert_close(found, plain)


def test_positions_are_averaged(targets: Targets) -> None:
    ours, theirs = random(2, 3, 5), random(2, 3, 5, seed=1)
    loss = objective(targets, {"y": theirs}, distance=("kl",))
    flat = objective(targets, {"y": theirs.flatten(0, 1)}, distance=("kl",))
    torch.testing.assert_close(
        loss({"y": ours}, None, {"y": theirs}), flat({"y": ours.flatten(0, 1)}, None, {"y": theirs.flatten(0, 1)})
    )


def test_segments_have_their_classes_on_axis_one(targets: Targets) -> None:
    ours, theirs = random(2, 5, 3, 4), random(2, 5, 3, 4, seed=1)
    loss = objective(targets, {"y": theirs}, distance=("kl",))
    flat = objective(targets, {"y": theirs.permute(0, 2, 3, 1)}, distance=("kl",))
    p, q = ((value / 4).log_softmax(1) for value in (theirs, ours))
    torch.testing.assert_close(loss({"y": ours}, None, {"y": theirs}), 16 * (p.exp() * (p - q)).sum(1).mean())
    assert flat is not loss


def test_other_outputs_are_compared_in_units_of_the_teachers_variance(targets: Targets) -> None:
    ours, theirs = random(8, 5), 7 * random(8, 5, seed=1)
    found = objective(targets, {"y": theirs}, distance=("mse",))({"y": ours}, None, {"y": theirs})
    torch.testing.assert_close(found, (ours - theirs).square().mean() / theirs.var(correction=0))


def test_each_output_is_compared_in_its_own_way(targets: Targets) -> None:
    sample = {"logits": random(8, 5), "boxes": random(8, 6, 4, seed=1), "count": torch.arange(8)}
    assert objective(targets, sample, distance=("auto", "boxes=kl")).distances["boxes"] == "kl"
    assert set(objective(targets, sample).distances) == {"logits", "boxes"}
    assert objective(targets, sample).distances["boxes"] == "mse"
    probabilities = {"out": random(8, 6, 4).softmax(-1)}
    assert objective(targets, probabilities).distances == {"out": "kl"}
    with pytest.raises(UsageError, match="distance names an output 'boxs'; did you mean 'boxes'"):
        objective(targets, sample, distance=("boxs=kl",))
    with pytest.raises(UsageError, match="unknown distance 'kll'"):
        objective(targets, sample, distance=("kll",))


def test_several_outputs_count_alike(targets: Targets) -> None:
    sample = {"u": random(8, 5), "v": 9 * random(8, 5, seed=1)}
    loss = objective(targets, sample, distance=("mse",))
    shifted = {name: value + value.std(correction=0) for name, value in sample.items()}
    torch.testing.assert_close(loss({**sample, "u": shifted["u"]}, None, sample), torch.tensor(0.5))
    torch.testing.assert_close(loss(shifted, None, sample), torch.tensor(1.0))


def test_labels_alone(targets: Targets) -> None:
    ours, labels = random(8, 5), torch.arange(8) % 5
    loss = objective(None, None, labelled=True)
    torch.testing.assert_close(loss({"y": ours}, labels, None), F.cross_entropy(ours, labels))
    smooth = objective(None, None, labelled=True, smoothing=0.2)
    torch.testing.assert_close(smooth({"y": ours}, labels, None), F.cross_entropy(ours, labels, label_smoothing=0.2))


def test_labels_and_teacher_are_mixed(targets: Targets) -> None:
    ours, theirs, labels = random(8, 5), random(8, 5, seed=1), torch.arange(8) % 5
    apart = [
        objective(targets, {"y": theirs}, labelled, distil=distil)({"y": ours}, labels, {"y": theirs})
        for labelled, distil in ((True, 0.0), (False, None), (True, 0.25), (True, None))
    ]
    torch.testing.assert_close(apart[0], F.cross_entropy(ours, labels))
    torch.testing.assert_close(apart[2], 0.75 * apart[0] + 0.25 * apart[1])
    torch.testing.assert_close(apart[3], 0.5 * apart[0] + 0.5 * apart[1])


def test_mixed_samples_have_both_labels(targets: Targets) -> None:
    ours, labels, partner = random(8, 5), torch.arange(8) % 5, torch.arange(8).flip(0)
    loss = objective(None, None, labelled=True)
    found = loss({"y": ours}, labels, None, Mixed({}, partner, 0.7))
    due = 0.7 * F.cross_entropy(ours, labels) + 0.3 * F.cross_entropy(ours, labels[partner])
    torch.testing.assert_close(found, due)


def test_inner_values_are_compared_unit_by_unit(targets: Targets) -> None:
    sizes = torch.tensor([1.0, 2.0, 4.0])
    theirs = {"y": random(64, 4), "a": random(64, 3) * sizes, "b": random(64, 2, 5, 5, seed=2)}
    loss = objective(targets, theirs, features=2.0)
    loss.features = ["a"]
    ours = {"y": theirs["y"], "a": theirs["a"] + 0.5 * theirs["a"].std(0, correction=0)}
    assert 0.47 < float(loss(ours, None, theirs)) < 0.5  # 2 * 0.25, a little less for the smallest unit
    loss.features = ["b"]  # units on axis 1
    moved = theirs["b"] + theirs["b"].std((0, 2, 3), correction=0, keepdim=True)
    assert abs(float(loss({"y": theirs["y"], "b": moved}, None, theirs)) - 2 / 1.01) < 0.02


def test_inner_values_of_another_shape_are_left_out(targets: Targets) -> None:
    theirs = {"y": random(8, 4), "a": random(8, 3), "b": random(8, 2)}
    loss = objective(targets, theirs, features=1.0)
    assert loss.fit_features({"y": theirs["y"], "a": random(8, 2), "b": random(8, 2)}, theirs) == ["b"]


def test_nothing_to_learn_from_is_refused() -> None:
    for given in ({"labelled": False}, {"labelled": True, "distil": 1.0}):
        with pytest.raises(UsageError, match="nothing to learn from"):
            objective(None, None, **given)  # type: ignore[arg-type]


def test_a_constant_answer_has_the_loss_of_the_classes_shares(targets: Targets) -> None:
    labels = torch.tensor([0, 0, 0, 1])
    loss = objective(None, None, labelled=True)
    due = -(0.75 * torch.tensor(0.75).log() + 0.25 * torch.tensor(0.25).log())
    assert loss.of_constant({"y": random(4, 2)}, labels, None) == pytest.approx(float(due), abs=1e-4)
    theirs = {"y": 5 * random(64, 4)}
    for distance in ("kl", "mse"):
        beside = objective(targets, theirs, distance=(distance,))
        constant = beside.of_constant(theirs, None, theirs)
        assert constant is not None
        assert constant > 0
        for seed in range(20):  # no other constant is much better
            other = {"y": (theirs["y"].mean(0) + random(4, seed=seed)).expand(64, 4)}
            assert float(beside(other, None, theirs)) > 0.95 * constant
    own = objective(None, None, labelled=True, loss="os.path:join")
    assert own.of_constant({"y": random(4, 2)}, labels, None) is None
