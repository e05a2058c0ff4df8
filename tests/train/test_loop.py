"""The loop: it learns, it is deterministic, it notices a collapse, and it never ends worse than it began."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from onnxprune.errors import ModelError, UsageError
from onnxprune.model.file import open_model, save
from onnxprune.runtime.session import Session
from onnxprune.steps.train.distil import Teacher
from onnxprune.steps.train.loop import train_model
from onnxprune.steps.train.reinitialize import reinitialize
from onnxprune.steps.train.setup import Running
from onnxprune.steps.train.trained import Trained
from onnxprune.support.progress import Counted
from tests.conftest import Build
from tests.train.harness import CONVOLUTIONS, LINEAR, blobs, data_of, normal, options, pictures, weights


def losses(trained: Trained) -> list[float]:
    return [loss for _, _, loss in trained.losses]


def same(one: Trained, other: Trained) -> bool:
    first, second = weights(one.model), weights(other.model)
    return all(np.array_equal(first[name], second[name]) for name in first)


def test_it_learns_from_labels(build: Build, tmp_path: Path) -> None:
    path = build(LINEAR)
    trained = train_model(open_model(path), blobs(400), options(updates=200, learning_rate=0.05))
    assert trained.metric == "accuracy"
    assert (trained.start.metric or 0) < 0.7
    assert (trained.best.metric or 0) > 0.9
    assert trained.best.loss < trained.start.loss
    save(trained.model, tmp_path / "trained.onnx")
    new = next(blobs(400, seed=7).batches())
    found = Session(tmp_path / "trained.onnx").run(new.feed)["logits"].argmax(1)
    assert (found == new.labels).mean() > 0.8


def test_it_learns_from_a_teacher_without_labels(build: Build) -> None:
    teacher = open_model(build(LINEAR, name="teacher"))
    student = open_model(build(LINEAR, w=normal(4, 8, seed=3), v=normal(8, 3, seed=4), name="student"))
    data = data_of({"x": normal(200, 4)})
    trained = train_model(student, data, options(updates=200, learning_rate=0.03), teacher=Teacher(teacher))
    assert trained.metric == "agreement"
    assert trained.best.loss < 0.2 * trained.start.loss
    assert (trained.best.metric or 0) > (trained.start.metric or 1)


def test_inner_values_help_and_are_named(build: Build) -> None:
    teacher = open_model(build(CONVOLUTIONS, name="teacher"))
    student = open_model(build(CONVOLUTIONS, w2=normal(6, 6, 3, 3, seed=3), name="student"))
    given = options(features=1.0, feature_values=("r2", "y3"))
    trained = train_model(student, pictures(), given, teacher=Teacher(teacher))
    assert any("inner values beside the original's: r2, y3" in note for note in trained.notes)
    automatic = train_model(student, pictures(), options(features=1.0), teacher=Teacher(teacher))
    assert any("inner values beside the original's: s" in note for note in automatic.notes)
    assert trained.start.loss != automatic.start.loss


def test_the_same_seed_gives_the_same_weights(build: Build) -> None:
    model, data = open_model(build(CONVOLUTIONS)), pictures(labelled=True)
    reinitialize(model)
    given = options(augment=("crop", "flip", "mixup"), ema=0.9)
    one, other, third = (train_model(model, data, given, running=Running(seed=seed)) for seed in (5, 5, 6))
    assert one.best.step
    assert same(one, other)
    assert losses(one) == losses(other)
    assert losses(one) != losses(third)


def test_random_numbers_of_others_are_left_alone(build: Build) -> None:
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    train_model(open_model(build(LINEAR)), blobs(), options(updates=2))
    assert torch.equal(torch.rand(3), expected)
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("parts", [2, 3])
def test_a_batch_in_parts_is_the_same_batch(build: Build, parts: int) -> None:
    """Up to rounding; statistics of a batch would be those of a part."""
    model, given = (
        open_model(build(CONVOLUTIONS)),
        {"normalization": "none", "augment": ("crop", "flip"), "batch_size": 18},
    )
    whole = train_model(model, pictures(labelled=True), options(**given, updates=5, keep="last"))
    parted = train_model(model, pictures(labelled=True), options(**given, updates=5, keep="last", accumulate=parts))
    for name, array in weights(whole.model).items():
        np.testing.assert_allclose(weights(parted.model)[name], array, atol=1e-4)


def test_epochs_steps_and_samples_are_counted(build: Build) -> None:
    model = open_model(build(LINEAR))
    trained = train_model(model, blobs(96), options(updates=None, epochs=2.5, holdout=0.0))
    assert trained.steps == 15  # 6 to an epoch
    assert trained.samples == 240
    assert [step for step, _, _ in trained.losses] == list(range(1, 16))
    assert train_model(model, blobs(96), options(updates=4)).steps == 4
    assert train_model(model, blobs(96), options(updates=None, epochs=0.0)).steps == 0


def test_a_time_limit_ends_it_with_the_schedule_complete(build: Build) -> None:
    trained = train_model(open_model(build(LINEAR)), blobs(), options(updates=100_000, minutes=0.02, rate_warmup=0.0))
    assert 0 < trained.steps < 100_000
    assert trained.seconds < 10
    rates = [rate for _, rate, _ in trained.losses]
    assert rates[-1] < 0.2 * rates[0]
    assert trained.history[-1].step == trained.steps


def test_it_is_evaluated_evenly_and_at_the_end(build: Build) -> None:
    trained = train_model(open_model(build(LINEAR)), blobs(), options(updates=21, evaluations=4))
    assert [found.step for found in trained.history] == [0, 6, 11, 16, 21]


def test_training_never_ends_worse_than_it_began(build: Build) -> None:
    start = train_model(open_model(build(LINEAR)), blobs(400), options(updates=200, learning_rate=0.02)).model
    for keep in ("best", "last"):
        given = options(learning_rate=30.0, retries=0, keep=keep, optimizer="sgd")
        trained = train_model(start, blobs(400), given)
        assert trained.best.step == 0
        assert same(trained, train_model(start, blobs(400), options(updates=0)))
        assert trained.notes[-1].startswith("training found nothing better")


def test_after_a_collapse_it_goes_on_at_a_lower_rate(build: Build) -> None:
    start = train_model(open_model(build(LINEAR)), blobs(400), options(updates=100, learning_rate=0.01)).model
    said: list[str] = []
    given = options(
        updates=150, learning_rate=3e4, optimizer="sgd", retries=20, rate_warmup=0.0, rate_schedule="constant"
    )
    trained = train_model(start, blobs(400), given, running=Running(progress=said.append))
    collapses = [note for note in trained.notes if "collapsed" in note]
    assert collapses
    assert "back to the weights of step 0; it goes on at a rate of 1e+04" in collapses[0]
    assert collapses[0] in said
    assert not math.isnan(trained.best.loss)
    assert not evaluation_worse(trained)
    rates = sorted({rate for _, rate, _ in trained.losses}, reverse=True)
    for one, other in pairwise(rates):
        assert one / other == pytest.approx(3.0)


def evaluation_worse(trained: Trained) -> bool:
    return (trained.best.metric or 0) < (trained.start.metric or 0)


def test_too_many_collapses_end_it(build: Build) -> None:
    start = train_model(open_model(build(LINEAR)), blobs(400), options(updates=100, learning_rate=0.01)).model
    trained = train_model(
        start, blobs(400), options(updates=100, learning_rate=1e9, optimizer="sgd", retries=1, rate_warmup=0.0)
    )
    assert trained.steps < 100
    assert sum("collapsed" in note for note in trained.notes) == 2
    assert any("training ends there" in note for note in trained.notes)


def test_it_stops_where_nothing_gets_better(build: Build) -> None:
    start = train_model(open_model(build(LINEAR)), blobs(400), options(updates=300, learning_rate=0.02)).model
    given = options(updates=200, evaluations=50, patience=3, learning_rate=1e-9, optimizer="sgd")
    trained = train_model(start, blobs(400), given)
    assert trained.steps <= 40
    assert any("no better evaluation in 3" in note for note in trained.notes)


def test_the_average_of_the_weights_is_kept(build: Build) -> None:
    model, given = open_model(build(LINEAR)), {"updates": 40, "learning_rate": 0.01, "keep": "last"}
    plain, averaged = (train_model(model, blobs(), options(**given, ema=ema)) for ema in (0.0, 0.99))
    before = weights(model)["w"]
    moved = [float(np.abs(weights(trained.model)["w"] - before).mean()) for trained in (plain, averaged)]
    assert 0 < moved[1] < moved[0]
    assert losses(plain) == losses(averaged)  # it does not change what is trained


def test_gradients_are_clipped(build: Build) -> None:
    model = open_model(build(LINEAR))
    given = {
        "optimizer": "sgd",
        "momentum": 0.0,
        "updates": 1,
        "learning_rate": 1.0,
        "rate_warmup": 0.0,
        "weight_decay": 0.0,
    }
    trained = train_model(model, blobs(), options(**given, clip=1e-3, rate_schedule="constant", keep="last"))
    before, after = weights(model), weights(trained.model)
    norm = math.sqrt(sum(float(np.square(after[name].astype(np.float64) - before[name]).sum()) for name in before))
    assert norm == pytest.approx(1e-3, rel=1e-2)


def test_frozen_weights_stay(build: Build) -> None:
    trained = train_model(open_model(build(LINEAR)), blobs(), options(rates=(("[wb]", 0.0),), weight_decay=0.5))
    assert set(trained.written.changed) == {"v", "c"}


def test_statistics_move_or_stay(digits: dict[str, Path]) -> None:
    data = data_of({"input": normal(64, 1, 8, 8)})
    model = open_model(digits["resnet"])
    for statistics, due in (("batch", True), ("frozen", False)):
        trained = train_model(
            model, data, options(statistics=statistics, updates=2, keep="last"), teacher=Teacher(model)
        )
        changed = trained.written.changed
        if trained.best.step:
            assert any("running_mean" in name for name in changed) == due


def test_statistics_of_tiny_batches_are_not_used(build: Build) -> None:
    path = build("""
        net (float[1, 3, 8, 8] x) => (float[1, 3] y)
        <float[4, 3, 3, 3] w, float[4] s, float[4] b, float[4] mean, float[4] var, float[4, 3] v>
        { a = Conv(x, w)  n = BatchNormalization(a, s, b, mean, var)  p = GlobalAveragePool(n)  f = Flatten(p)
          y = MatMul(f, v) }
    """, var=np.ones(4))  # fmt: skip
    x, labels = normal(24, 3, 8, 8), np.arange(24) % 3
    trained = train_model(
        open_model(path), data_of({"x": x}, labels, size=1), options(batch_size=4, updates=5, keep="last")
    )
    assert any("statistics of normalizations stay as they are" in note for note in trained.notes)
    assert {"w", "s", "b", "v"} >= set(trained.written.changed)
    assert trained.samples == 20


def test_progress_says_how_far_it_is(build: Build) -> None:
    said: list[str] = []
    train_model(open_model(build(LINEAR)), blobs(), options(updates=7), running=Running(progress=said.append))
    counted = [line for line in said if isinstance(line, Counted)]
    assert [(line.done, line.total) for line in counted] == [(step, 7) for step in range(1, 8)]
    assert "training, step 7 of 7: loss " in counted[-1]
    for part in (", accuracy 0.", " samples/s, ", " s left"):
        assert part in counted[-1]


def test_samples_to_evaluate_on_may_be_given(build: Build) -> None:
    trained = train_model(open_model(build(LINEAR)), blobs(96), options(holdout=0.1), evaluation=blobs(40, seed=1))
    assert "trained on 96 samples, evaluated on 40 others" in trained.notes
    apart = train_model(open_model(build(LINEAR)), blobs(96), options(holdout=0.25))
    assert "trained on 72 samples, evaluated on 24 others" in apart.notes
    few = train_model(open_model(build(LINEAR)), blobs(96), options(holdout=0.0))
    assert any("evaluated on the samples that it was trained on" in note for note in few.notes)


def test_the_metric_that_is_asked_for_decides(build: Build) -> None:
    model = open_model(build(LINEAR))
    trained = train_model(model, blobs(), options(), teacher=Teacher(model), running=Running(metric="kl"))
    assert trained.metric == "kl"
    with pytest.raises(UsageError, match="metric kl compares with the original"):
        train_model(model, blobs(), options(), running=Running(metric="kl"))


def test_regression_needs_no_metric(build: Build) -> None:
    path = build(
        "net (float[n, 4] x) => (float[n, 1] y) <float[4, 1] w, float[1] b> { h = MatMul(x, w)  y = Add(h, b) }"
    )
    x = normal(128, 4)
    data = data_of({"x": x}, x @ np.array([[1.0], [2.0], [-1.0], [0.5]], np.float32) + 3)
    trained = train_model(open_model(path), data, options(updates=300, learning_rate=0.1))
    assert trained.metric is None
    np.testing.assert_allclose(weights(trained.model)["w"].ravel(), [1, 2, -1, 0.5], atol=0.05)
    np.testing.assert_allclose(weights(trained.model)["b"], [3], atol=0.05)


def test_a_loss_of_ones_own(build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_loss.py").write_text("def squares(outputs, labels): return outputs['logits'].square().mean()\n")
    monkeypatch.chdir(tmp_path)
    trained = train_model(
        open_model(build(LINEAR)),
        blobs(),
        options(updates=50, learning_rate=0.02),
        running=Running(loss="own_loss:squares"),
    )
    assert trained.best.loss < 0.5 * trained.start.loss


def test_bfloat16_trains_on_a_processor(build: Build) -> None:
    model, data = open_model(build(CONVOLUTIONS)), pictures(labelled=True)
    half, full = (
        train_model(model, data, options(precision=precision, updates=3)) for precision in ("bfloat16", "float32")
    )
    assert losses(half) != losses(full)
    np.testing.assert_allclose(losses(half), losses(full), rtol=0.1)
    with pytest.raises(UsageError, match="float16 needs a GPU"):
        train_model(model, data, options(precision="float16"))


def test_the_layout_in_memory_changes_nothing(build: Build) -> None:
    model, data = open_model(build(CONVOLUTIONS)), pictures(labelled=True)
    first, last = (
        train_model(model, data, options(memory_layout=layout, updates=3))
        for layout in ("channels-first", "channels-last")
    )
    np.testing.assert_allclose(losses(first), losses(last), rtol=1e-3)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"batch_size": 0}, "batch-size 0 is outside 1 or more"),
        ({"augment": ("flop",)}, "unknown augmentation 'flop'"),
        ({"optimizer": "adamm"}, "unknown optimizer"),
        ({"rates": (("z", 1.0),)}, "no trained weight is called 'z'"),
        ({"distil": 1.0}, "nothing to learn from"),
    ],
)
def test_options_that_do_not_fit_are_refused(build: Build, given: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        train_model(open_model(build(LINEAR)), blobs(), options(**given))


def test_a_device_that_is_not_there_is_refused(build: Build) -> None:
    if torch.cuda.is_available():
        pytest.skip("it is there")
    with pytest.raises(UsageError, match="torch cannot compute on 'cuda' here"):
        train_model(open_model(build(LINEAR)), blobs(), options(), running=Running(device="cuda"))


def test_a_model_without_weights_or_gradients_is_refused(build: Build) -> None:
    path = build("""
        net (float[n, 4] x) => (int64[n] y) <float[4, 4] w>
        { h = MatMul(x, w)  y = ArgMax<axis = 1, keepdims = 0>(h) }
    """)
    with pytest.raises((UsageError, ModelError)):
        train_model(open_model(path), blobs(), options())
    plain = build("net (float[n, 4] x) => (float[n, 4] y) { y = Relu(x) }")
    with pytest.raises(UsageError, match="nothing can be trained"):
        train_model(open_model(plain), blobs(), options())
