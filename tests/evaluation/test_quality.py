"""What a smaller model costs: metrics in one pass, and the sentence that says that it fell apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, isnan, nan
from typing import Any

import numpy as np
import pytest

from onnxprune.data.base import Batch, Data
from onnxprune.errors import DataError
from onnxprune.evaluation.damage import damage_of
from onnxprune.evaluation.metrics import METRICS, evaluate, metric, outputs_of
from onnxprune.evaluation.quality import APART, MADE_UP, Quality, QualityScore, _Variance, compare_quality
from onnxprune.model.signature import Port

RNG = np.random.default_rng(0)
X = RNG.standard_normal((40, 5)).astype(np.float32)
LABELS = X.argmax(axis=1)
NOISY = X + RNG.standard_normal(X.shape).astype(np.float32)


@dataclass
class Fake:
    """A model that adds something to its input; with boxes, it has a second output of ten times that."""

    added: Any = 0.0
    boxes: bool = False

    @property
    def outputs(self) -> list[Port]:
        names = ["scores", "boxes"] if self.boxes else ["scores"]
        return [Port(name, "tensor(float)", ("batch", 5)) for name in names]

    def run(self, feed: Mapping[str, Any], names: Sequence[str] | None = None) -> dict[str, Any]:
        found = {"scores": feed["x"] + self.added, "boxes": feed["x"] + 10 * self.added}
        return {name: found[name] for name in (names if names is not None else ["scores"])}


def data(labels: Any = None, size: int = 7) -> Data:
    def batches():  # type: ignore[no-untyped-def]
        for at in range(0, len(X), size):
            yield Batch({"x": X[at : at + size]}, None if labels is None else labels[at : at + size])

    return Data("made", labels is not None, batches)


def test_one_pass_gives_what_each_metric_gives_alone() -> None:
    noise = RNG.standard_normal(5).astype(np.float32)
    found = compare_quality(Fake(), Fake(0.5 * noise), Fake(noise), data(LABELS))
    assert [score.metric for score in found.scores] == ["accuracy", "agreement", "snr"]
    assert found.samples == 40
    for score in found.scores:
        for value, model in ((score.before, Fake(0.5 * noise)), (score.after, Fake(noise))):
            chosen = metric(score.metric, True)
            due = evaluate(model, data(LABELS), chosen, (batch.feed["x"] for batch in data().batches()))
            assert value == pytest.approx(due)


def test_the_original_beside_itself_is_perfect() -> None:
    original = Fake()
    found = compare_quality(original, original, Fake(1e-3), data(), most=10)
    values = {score.metric: score.before for score in found.scores}
    assert values == {"agreement": 1.0, "snr": inf}
    assert found.samples == 14  # no batch is begun after ten


def test_explained_is_the_share_of_the_variance() -> None:
    """A constant explains nothing, however close its SNR is to that of a good model."""
    original, shift = Fake(100.0), RNG.standard_normal(5).astype(np.float32)
    found = compare_quality(original, original, Fake(100.0 + shift), data())
    due = 1 - np.square(shift).sum() / 5 / (X + np.float32(100.0)).astype(np.float64).var()
    assert found.explained == pytest.approx(due, abs=1e-3)
    mean = compare_quality(original, original, Constant(100.0 + float(X.mean())), data())
    assert mean.explained == pytest.approx(0.0, abs=1e-3)
    assert mean.scores[-1].after > 35
    assert "explains 0% of the variance" in damage_of(Quality(mean.scores, mean.explained, 40, MADE_UP), data=False)


@dataclass
class Constant(Fake):
    """The same whatever comes in."""

    def run(self, feed: Mapping[str, Any], names: Sequence[str] | None = None) -> dict[str, Any]:
        return {"scores": np.full_like(feed["x"], self.added)}


def _explained(due: np.ndarray, given: np.ndarray, batch: int = 8) -> float:
    seen = _Variance("y")
    for at in range(0, len(due), batch):
        seen.add({"y": given[at : at + batch]}, {"y": due[at : at + batch]})
    return seen.explained


def test_a_detector_that_finds_nothing_explains_nothing() -> None:
    """One score in a hundred is of a class, all others are background; the distance of the two is no variance."""
    found = RNG.random((40, 50)) < 0.01
    due = np.stack([~found, found], axis=-1) + 0.01 * RNG.standard_normal((40, 50, 2))
    blind = np.broadcast_to(np.array([1.0, 0.0]), due.shape)
    assert _explained(due, blind) < 0.05
    assert _explained(due.transpose(0, 2, 1), blind.transpose(0, 2, 1)) < 0.05
    assert _explained(due, due + 0.1 * (blind - due)) == pytest.approx(0.99, abs=0.002)


def test_means_of_channels_of_few_entries_or_other_sizes_are_not_taken() -> None:
    """What few samples have in common is no mean of all; and what sizes do not say is of one channel with nothing."""
    few = np.arange(4.0) + 0.1 * RNG.standard_normal((20, 4))
    assert _explained(few, few + 0.1) == pytest.approx(1 - 0.01 / few.var(), abs=1e-6)
    many = np.arange(4.0) + 0.1 * RNG.standard_normal((40, 4))
    assert _explained(many, many + 0.1) == pytest.approx(1 - 0.01 / many.var(0).mean(), abs=1e-6)
    seen = _Variance("y")
    for part in (many, many[:, :3]):
        seen.add({"y": part + 0.1}, {"y": part})
    assert seen.explained == pytest.approx(
        1 - 0.01 / np.concatenate([many.ravel(), many[:, :3].ravel()]).var(), abs=1e-6
    )


def test_of_no_entries_at_all_nothing_is_explained() -> None:
    """A detector that finds nothing on any of the samples."""
    found, nothing = _Variance("boxes"), {"boxes": np.zeros((0, 4), np.float32)}
    found.add(nothing, nothing)
    assert np.isnan(found.explained)


@dataclass
class Detector(Fake):
    """Finds one box for each score above a limit."""

    @property
    def outputs(self) -> list[Port]:
        return [Port("scores", "tensor(float)", ("batch", 5)), Port("boxes", "tensor(float)", ("found", 4))]

    def run(self, feed: Mapping[str, Any], names: Sequence[str] | None = None) -> dict[str, Any]:
        scores = feed["x"] + self.added
        sides = np.arange(int((scores > 0.5).sum()), dtype=np.float32)[:, None]
        return {"scores": scores, "boxes": np.hstack([sides, sides, sides + 1, sides + 1])}


def test_other_numbers_of_boxes_leave_the_rest_to_compare() -> None:
    """A smaller detector finds more boxes or fewer: box-f1 can say how many are the same, an SNR cannot."""
    original, smaller = Detector(), Detector(-0.4)
    found = compare_quality(original, original, smaller, data())
    (snr,) = (score for score in found.scores if score.metric == "snr")
    assert snr.output == "scores"
    assert snr.after == pytest.approx(10 * np.log10(np.square(X.astype(np.float64)).mean() / 0.16), abs=1e-3)
    assert found.explained == pytest.approx(1 - 0.16 / X.astype(np.float64).var(), abs=1e-3)
    assert "output 'boxes' of the original and of the model have different shapes" in found.notes[0]
    reference = outputs_of(original, data(), output="boxes")
    counts = [[int((batch.feed["x"] + by > 0.5).sum()) for by in (0, -0.4)] for batch in data().batches()]
    due = 2 * sum(map(min, counts)) / sum(map(sum, counts))
    assert evaluate(smaller, data(), METRICS["box-f1"], reference, output="boxes") == pytest.approx(due)


def test_of_several_outputs_the_worst_is_shown() -> None:
    original = Fake(boxes=True)
    found = compare_quality(original, original, Fake(0.1, boxes=True), data())
    (snr,) = (score for score in found.scores if score.metric == "snr")
    assert snr.name == "SNR of boxes"
    assert snr.after == pytest.approx(10 * np.log10(np.square(X.astype(np.float64)).sum() / X.size), abs=0.01)


def test_what_is_not_a_number_is_as_bad_as_can_be() -> None:
    original = Fake()
    found = compare_quality(original, original, Fake(nan), data())
    assert found.explained == -inf
    assert found.scores[0].after == 0.0
    assert isnan(found.scores[1].after)
    assert damage_of(found, data=True).startswith("the model fell apart: ")
    made_up = Quality(found.scores, found.explained, 40, MADE_UP)
    assert "explains 0% of the variance" in damage_of(made_up, data=False)


def test_a_metric_that_does_not_fit_is_a_note_unless_it_was_asked_for() -> None:
    labels = np.full(40, 9)  # there are five classes
    found = compare_quality(Fake(), Fake(), Fake(), data(labels))
    assert [score.metric for score in found.scores] == ["agreement", "snr"]
    assert found.notes[0].startswith("accuracy was not measured: labels go from 9 to 9")
    with pytest.raises(DataError, match="labels go from 9"):
        compare_quality(Fake(), Fake(), Fake(), data(labels), name="accuracy")


def quality(inputs: str = APART, **values: float) -> Quality:
    """Scores after a cut; the original has 1 of everything."""
    scores = [
        QualityScore(name, 1.0, value, "dB" if name == "snr" else "%", labels=name == "accuracy")
        for name, value in values.items()
        if name != "explained"
    ]
    return Quality(tuple(scores), values.get("explained", nan), 50, inputs)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (quality(accuracy=0.91, agreement=0.5), ""),  # labels decide
        (quality(accuracy=0.89, agreement=0.95), "accuracy 100.0% -> 89.0% on 50 samples kept apart"),
        (quality(agreement=0.81, explained=0.1), ""),
        (quality(agreement=0.79, explained=0.9), "it agrees with the original in 79.0% on 50 samples kept apart"),
        (quality(snr=9.0, explained=0.71), ""),
        (quality(snr=9.0, explained=0.69), "explains 69% of the variance of the original's on 50 samples kept apart"),
        (quality(snr=5.3), ""),  # a constant output has no variance
        (quality(snr=5.1), "has an SNR of 5.1 dB"),
        (quality(MADE_UP, agreement=0.2, explained=0.75), ""),
        (quality(MADE_UP, agreement=0.99, explained=0.6), "60% of the variance of the original's on 50 made-up inputs"),
        (quality(), ""),
    ],
)
def test_when_a_model_fell_apart(found: Quality, said: str) -> None:
    sentence = damage_of(found, data=True)
    assert said in sentence if said else not sentence
    if said:
        assert "train it" in sentence
        assert "--data" not in sentence
        assert "give samples to fit it to (--data)" in damage_of(found, data=False)


def test_advice_fits_the_command() -> None:
    """Who compares two files can neither give samples to fit to nor choose a target."""
    apart = Quality(explained=0.1, samples=40, inputs=MADE_UP)
    assert "give samples to fit it to (--data)" in damage_of(apart, data=False)
    for data in (False, True):
        said = damage_of(apart, data=data, compared=True)
        assert "onnxprune recover" in said
        assert "--target" not in said
        assert ("--data" in said) != data


def test_inputs_on_which_nothing_varies_are_said_to_say_nothing() -> None:
    """All agree with all then: 100% would be taken for a good result."""

    def notes(given: Any) -> tuple[str, ...]:
        data = Data("x", False, lambda: iter([Batch({"x": given}), Batch({"x": given})]))
        model = Fake()
        return compare_quality(model, model, Fake(1e-3), data, inputs=MADE_UP).notes

    assert any("always the same" in note for note in notes(np.ones((6, 5), np.float32)))
    assert not notes(X)
