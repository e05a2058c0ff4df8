"""Metrics against closed forms, and what they refuse."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onnxprune as op
from onnxprune.data.base import Batch, Data, load_data
from onnxprune.errors import DataError, UsageError
from onnxprune.evaluation.metrics import METRICS, chosen_output, evaluate, is_probability, metric, outputs_of, register
from onnxprune.evaluation.metrics import base as metrics_base
from onnxprune.evaluation.metrics.base import Answer
from onnxprune.model.file import open_model
from onnxprune.model.signature import Port
from onnxprune.runtime.session import Session
from tests.conftest import Build

RNG = np.random.default_rng(0)
LOGITS = RNG.standard_normal((7, 6)).astype(np.float32)
ORIGINAL = RNG.standard_normal((7, 6)).astype(np.float32)
DTYPES = {"f": "tensor(float)", "i": "tensor(int64)", "O": "tensor(string)", "b": "tensor(bool)"}


def softmax(scores: np.ndarray) -> np.ndarray:
    powers = np.exp(scores)
    return powers / powers.sum(-1, keepdims=True)


def divergence(p: np.ndarray, q: np.ndarray) -> float:
    return float((p * np.log(p / q)).sum(-1).mean())


class Says:
    """A model whose outputs are what it is fed."""

    def __init__(self, *names: str, dtype: str = "f", shape: Sequence[int | None] = (None, 6)) -> None:
        self.outputs = [Port(name, DTYPES[dtype], tuple(shape)) for name in names or ("y",)]

    def run(self, feed: Mapping[str, Any], names: Sequence[str] | None = None) -> dict[str, Any]:
        return {port.name: feed[port.name] for port in self.outputs if names is None or port.name in names}


def data_of(outputs: np.ndarray, labels: np.ndarray | None = None, size: int = 3, **more: np.ndarray) -> Data:
    """Batches of unequal lengths."""

    def batches() -> Any:
        for start in range(0, len(outputs), size):
            part = slice(start, start + size)
            feed = {"y": outputs[part], **{name: array[part] for name, array in more.items()}}
            yield Batch(feed, None if labels is None else labels[part])

    return Data("test", labels is not None, batches)


def value(
    name: str, output: np.ndarray, *, labels: np.ndarray | None = None, original: np.ndarray | None = None
) -> float:
    model = Says(dtype=output.dtype.kind)
    reference = None if original is None else outputs_of(model, data_of(original))
    return evaluate(model, data_of(output, labels), metric(name, labels is not None), reference)


# -- values


def test_accuracy_counts_over_all_batches() -> None:
    labels = np.argsort(-LOGITS)[np.arange(7), [0, 1, 0, 0, 5, 0, 4]]
    assert value("accuracy", LOGITS, labels=labels) == 4 / 7
    assert value("top5", LOGITS, labels=labels) == 6 / 7


def test_of_equal_scores_the_first_wins() -> None:
    """A model that says nothing must not be right."""
    silent = np.zeros((7, 6), np.float32)
    assert value("accuracy", silent, labels=np.arange(7) % 6) == 2 / 7
    assert value("top5", silent, labels=np.full(7, 5)) == 0


def test_nan_is_never_right() -> None:
    broken = np.full((7, 6), np.nan, np.float32)
    assert value("accuracy", broken, labels=np.zeros(7, np.int64)) == 0
    assert value("top5", broken, labels=np.zeros(7, np.int64)) == 0
    assert value("agreement", broken, original=broken) == 0
    for name in ("kl", "cosine", "snr"):
        assert math.isnan(value(name, broken, original=ORIGINAL))


def test_labels_of_tokens_and_pixels() -> None:
    tokens = RNG.standard_normal((4, 5, 3)).astype(np.float32)
    labels = tokens.argmax(-1)
    labels[0, :2] = (labels[0, :2] + 1) % 3
    labels[1, 0] = -100
    assert value("accuracy", tokens, labels=labels) == 17 / 19
    pixels = np.moveaxis(tokens[:, :, None], -1, 1)
    assert value("accuracy", pixels, labels=labels[:, :, None]) == 17 / 19


def test_classes_instead_of_scores() -> None:
    classes = np.array([3, 1, 2, 2])
    assert value("accuracy", classes, labels=np.array([3, 1, 0, -100])) == 2 / 3
    assert value("agreement", classes, original=np.array([3, 1, 0, 2])) == 3 / 4
    assert value("agreement", np.array(["a", "b"], object), original=np.array(["a", "c"], object)) == 1 / 2


def test_agreement_sees_one_changed_arg_max() -> None:
    changed = ORIGINAL.copy()
    changed[4, ORIGINAL[4].argmin()] = 99
    assert value("agreement", 3 * ORIGINAL + 1, original=ORIGINAL) == 1.0
    assert value("agreement", changed, original=ORIGINAL) == 6 / 7


def test_agreement_of_a_segmentation_is_along_axis_1() -> None:
    original = RNG.standard_normal((2, 3, 4, 5)).astype(np.float32)
    changed = original.copy()
    changed[1, :, 2, 3] = [9, 8, 7] if original[1, :, 2, 3].argmax() else [7, 8, 9]
    assert value("agreement", changed, original=original) == 39 / 40


def test_kl_is_the_mean_divergence_of_the_softmax() -> None:
    wanted = divergence(softmax(ORIGINAL.astype(float)), softmax(LOGITS.astype(float)))
    assert value("kl", LOGITS, original=ORIGINAL) == pytest.approx(wanted, rel=1e-12)
    shifted = ORIGINAL.astype(np.float64) + 1000.0
    assert value("kl", shifted, original=shifted) == 0.0


def test_kl_takes_probabilities_as_they_are() -> None:
    p, q = softmax(ORIGINAL), softmax(LOGITS)
    wanted = divergence(p.astype(float), q.astype(float))
    assert value("kl", q, original=p) == pytest.approx(wanted, rel=1e-5)
    certain = np.eye(6, dtype=np.float32)
    assert value("kl", certain, original=certain) == 0.0
    assert value("kl", np.roll(certain, 1, 1), original=certain) == pytest.approx(-np.log(np.finfo(np.float32).tiny))


def test_kl_of_masked_classes() -> None:
    masked = ORIGINAL.copy()
    masked[:, 0] = -np.inf
    other = LOGITS.copy()
    other[:, 0] = -np.inf
    wanted = divergence(softmax(masked[:, 1:].astype(float)), softmax(other[:, 1:].astype(float)))
    assert value("kl", other, original=masked) == pytest.approx(wanted)


def test_cosine_is_per_sample() -> None:
    original = np.array([[[1, 0]], [[0, 0]], [[0, 0]], [[3, 4]]], np.float32)
    output = np.array([[[0, 7]], [[0, 0]], [[1, 0]], [[6, 8]]], np.float32)
    assert value("cosine", output, original=original) == pytest.approx((0 + 1 + 0 + 1) / 4)
    for row, due in enumerate((0, 1, 0, 1)):  # one by one: nothing that one is short of is made up for by another
        assert value("cosine", output[row : row + 1], original=original[row : row + 1]) == pytest.approx(due)


@pytest.mark.parametrize("output", [np.ones((7, 2), np.float32), np.array(["a"] * 7)])
def test_mae_needs_one_number_for_each_label(output: np.ndarray) -> None:
    with pytest.raises(DataError, match="mae needs a number for each"):
        METRICS["mae"].score(Answer(output, np.arange(7), None, {}))


@pytest.mark.parametrize("labels", [np.zeros(2, np.int64), np.zeros((3, 2), np.int64)])
def test_sequences_need_labels_for_each_sample(labels: np.ndarray) -> None:
    with pytest.raises(DataError, match="are not sequences for 2 samples"):
        METRICS["sequence-accuracy"].score(Answer(np.ones((2, 4, 3), np.float32), labels, None, {}))


def test_classes_lie_last_in_sequences_and_first_in_images() -> None:
    assert metrics_base.classes_last(np.zeros((2, 4, 3))).shape == (2, 4, 3)
    assert metrics_base.classes_last(np.zeros((2, 3, 5, 6))).shape == (2, 5, 6, 3)


def test_relative_error_is_of_sizes() -> None:
    output, original = np.array([[0, 5]], np.float32), np.array([[2, -2]], np.float32)
    assert value("relative-error", output, original=original) == (2 + 7) / 4


@pytest.mark.parametrize("name", ["cosine", "snr", "relative-error"])
def test_texts_are_no_numbers(name: str) -> None:
    texts = np.array([["a"], ["b"]])
    with pytest.raises(DataError):
        METRICS[name].score(Answer(texts, None, texts, {}))


def test_a_model_that_carries_its_states_gives_what_is_asked_for() -> None:
    class Counts:
        outputs = (Port("y", "tensor(float)", (1,)), Port("n", "tensor(float)", (1,)))

        def run(self, feed: dict[str, np.ndarray], names: list[str]) -> dict[str, np.ndarray]:
            found = {"y": feed["x"], "n": feed["h"] + 1}
            return {name: found[name] for name in names}

    carrying = metrics_base._Carrying(Counts(), {"h": "n"})
    first = {"x": np.ones(1), "h": np.zeros(1)}
    assert list(carrying.run(first, ["y"])) == ["y"]
    assert {name: array.item() for name, array in carrying.run(first).items()} == {"y": 1, "n": 2}


def test_snr_is_in_decibel_over_all_samples() -> None:
    assert value("snr", ORIGINAL + np.float32(0), original=ORIGINAL) == math.inf
    assert value("snr", 0 * ORIGINAL, original=0 * ORIGINAL) == math.inf
    assert value("snr", ORIGINAL, original=0 * ORIGINAL) == -math.inf
    noise = (ORIGINAL - LOGITS).astype(float)
    wanted = 10 * np.log10(np.square(ORIGINAL.astype(float)).sum() / np.square(noise).sum())
    assert value("snr", LOGITS, original=ORIGINAL) == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("name", METRICS)
def test_sample(name: str) -> None:
    """Every metric brings a case with a known value; in one batch and in several it is the same."""
    sample = METRICS[name].sample
    assert sample is not None, f"metric {name} has no sample: register({name!r}, sample=MetricSample(...))"
    output = np.asarray(sample.output, np.float32)
    labels = None if sample.labels is None else np.asarray(sample.labels)
    reference = None if sample.reference is None else np.asarray(sample.reference, np.float32)
    for size in (len(output), 1):
        originals = None if reference is None else outputs_of(Says(), data_of(reference, size=size))
        found = evaluate(Says(), data_of(output, labels, size), METRICS[name], originals)
        assert found == pytest.approx(sample.value, rel=1e-5)


@pytest.mark.parametrize("name", METRICS)
def test_says_what_it_is_in_one_line(name: str) -> None:
    assert 3 <= len(METRICS[name].summary.split()) <= 25


def test_name_that_is_taken_is_refused() -> None:
    METRICS.names()
    with pytest.raises(ValueError, match="metric 'snr' is registered twice"):
        register("snr")(METRICS["kl"].score)


@pytest.mark.parametrize("name", [name for name in METRICS if METRICS[name].needs_reference])
def test_the_original_is_perfect_and_nothing_is_better(name: str) -> None:
    found = METRICS[name]
    sample = found.sample
    assert sample is not None
    original, answer = (np.asarray(each, np.float32) for each in (sample.reference, sample.output))
    best, other = value(name, original, original=original), value(name, answer, original=original)
    assert found.perfect is None or best == pytest.approx(found.perfect)
    assert (best > other) == found.higher_is_better


# -- functions of the user


def first_column(outputs: dict[str, np.ndarray], labels: np.ndarray | None) -> np.ndarray:
    return outputs["y"][:, 0] + outputs["z"]


def mean_label(outputs: dict[str, np.ndarray], labels: np.ndarray | None) -> float:
    assert labels is not None
    return float(labels.mean())


def wrong_shape(outputs: dict[str, np.ndarray], labels: np.ndarray | None) -> np.ndarray:
    return np.zeros(99)


def fails(outputs: dict[str, np.ndarray], labels: np.ndarray | None) -> float:
    raise KeyError("boom")


def test_a_function_scores_samples_or_batches() -> None:
    labels = np.arange(7)
    data = data_of(LOGITS, labels, z=np.arange(7.0))
    assert evaluate(Says("y", "z"), data, metric(f"{__name__}:first_column", True)) == pytest.approx(
        LOGITS[:, 0].mean() + 3
    )
    assert evaluate(Says("y", "z"), data, metric(f"{__name__}:mean_label", True)) == pytest.approx(3.0)


def test_a_function_that_fails_is_named() -> None:
    data = data_of(LOGITS)
    with pytest.raises(DataError, match=r"wrong_shape returned shape \(99,\): expected one number, or 3"):
        evaluate(Says(), data, metric(f"{__name__}:wrong_shape", False))
    with pytest.raises(DataError, match="fails failed: KeyError"):
        evaluate(Says(), data, metric(f"{__name__}:fails", False))
    with pytest.raises(UsageError, match="has no function 'fail'; did you mean 'fails'"):
        metric(f"{__name__}:fail", False)
    with pytest.raises(UsageError, match="no_such_module cannot be imported"):
        metric("no_such_module:f", False)


# -- choices


def test_default_metric() -> None:
    def port(kind: str, *shape: int | str) -> Port:
        return Port("y", f"tensor({kind})", shape)

    assert metric(None, True).name == "accuracy"
    assert metric(None, False, port("float", "n", 10)).name == "agreement"
    for other in (port("float", "n", 1), port("float", "n"), port("float", "n", 3, 8, 8), port("int64", "n", 10)):
        assert metric(None, False, other).name == "snr"


def test_output_is_the_first_of_floats_or_the_named_one() -> None:
    classes, scores, more = (Port(n, t, ()) for n, t in (("c", DTYPES["i"]), ("s", DTYPES["f"]), ("m", DTYPES["f"])))
    assert chosen_output([classes, scores, more]) == scores
    assert chosen_output([classes]) == classes
    assert chosen_output([classes, scores, more], "m") == more
    with pytest.raises(UsageError, match="no output 'mm'; did you mean 'm'"):
        chosen_output([classes, more], "mm")


# -- refusals


@pytest.mark.parametrize(
    ("name", "output", "labels", "message"),
    [
        ("accuracy", LOGITS, np.full(7, 6), "labels go from 6 to 6, but the output has 6 classes"),
        ("accuracy", LOGITS, np.full(7, -1), "labels go from -1"),
        ("accuracy", LOGITS, np.full(7, 0.5), "fractions"),
        ("accuracy", LOGITS, np.zeros((7, 6)), "do not fit"),
        ("accuracy", LOGITS, np.full(7, -100), "every label is -100"),
        ("accuracy", LOGITS[:, :1], np.zeros(7), "always right"),
        ("top5", LOGITS[:, :5], np.zeros(7), "5 classes is always right within 5"),
    ],
)
def test_labels_that_do_not_fit(name: str, output: np.ndarray, labels: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        value(name, output, labels=labels)


def test_reference_that_does_not_fit() -> None:
    with pytest.raises(UsageError, match="compares with the original"):
        value("snr", LOGITS)
    with pytest.raises(DataError, match="different shapes: 3x4 and 3x6"):
        value("snr", LOGITS, original=ORIGINAL[:, :4])
    with pytest.raises(DataError, match="fewer batches"):
        value("snr", LOGITS, original=ORIGINAL[:3])


@pytest.mark.parametrize("shape", [(7,), (7, 1)])
@pytest.mark.parametrize("name", ["agreement", "kl"])
def test_no_agreement_where_there_is_nothing_to_choose(name: str, shape: tuple[int, ...]) -> None:
    """One class always agrees: a gate on it would hold whatever the model does."""
    with pytest.raises(DataError, match="has no classes to compare"):
        value(name, LOGITS[:, :1].reshape(shape), original=ORIGINAL[:, :1].reshape(shape))


def test_unknown_metric_and_missing_labels() -> None:
    with pytest.raises(UsageError, match="unknown metric 'acuracy'; did you mean 'accuracy'"):
        metric("acuracy", True)
    with pytest.raises(UsageError, match="needs labels, but the data has none"):
        metric("top5", False)


# -- with ONNX Runtime


def test_a_trained_model(digits: dict[str, Path]) -> None:
    """448 of 450, as models/README.md says."""
    path = digits["resnet"]
    archive = np.load(path.with_name("digits_test.npz"))
    images, labels = archive["input"], archive["labels"]
    session = Session(path)
    data = Data("digits", True, lambda: (Batch({"input": images[i::2]}, labels[i::2]) for i in range(2)))
    assert evaluate(path, data, metric("accuracy", True)) == 448 / 450
    references = list(outputs_of(session, data))
    for name in ("agreement", "kl", "cosine"):
        found = metric(name, True)
        assert evaluate(path, data, found, references) == pytest.approx(found.perfect, abs=1e-6)
    assert evaluate(digits["lstm"], data, metric("agreement", True), references) < 1


def test_data_of_a_file(digits: dict[str, Path], tmp_path: Path) -> None:
    archive = np.load(digits["resnet"].with_name("digits_test.npz"))
    np.savez(tmp_path / "data.npz", input=archive["input"][:50], label=archive["labels"][:50])
    session = Session(digits["lstm"])
    data = load_data(str(tmp_path / "data.npz"), session.inputs, labels="label", batch=8)
    assert evaluate(session, data, metric(None, data.labelled)) >= 0.95


TIME_MAJOR = """
    net (float[time, batch, 6] x) => (float[time, batch, 6] y, float[batch, 6] z)
    { y = Identity(x)  z = ReduceMean<axes = [0], keepdims = 0>(x) }
"""


def test_samples_along_another_axis(build: Build) -> None:
    """Scores and cosines are per sample, wherever the model has the samples; labels are [samples, ...]."""
    path = build(TIME_MAJOR)
    scores = RNG.standard_normal((5, 7, 6)).astype(np.float32)
    labels = scores.argmax(-1).T.copy()
    labels[2] = (labels[2] + 1) % 6
    data = Data("test", True, lambda: iter([Batch({"x": scores}, labels, {"x": 1})]))
    assert evaluate(path, data, metric("accuracy", True)) == pytest.approx(6 / 7)
    (found,) = outputs_of(path, data)
    assert found.shape == (7, 5, 6)
    (other,) = outputs_of(path, data, output="z")
    assert other.shape == (7, 6)
    other_scores = scores + np.array([0, 0, 3, 0, 0, 0, 0], np.float32)[None, :, None]
    original = [np.moveaxis(other_scores, 1, 0)]
    flat = [np.moveaxis(each, 1, 0).reshape(7, -1) for each in (scores, other_scores)]
    cosines = [float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)) for a, b in zip(*flat, strict=True)]
    assert evaluate(path, data, metric("cosine", True), original) == pytest.approx(np.mean(cosines), rel=1e-5)


# -- one probability, numbers, sequences, boxes


def test_auc_is_the_share_of_pairs_in_order() -> None:
    rng = np.random.default_rng(0)
    scores, labels = rng.random((50, 1)).round(1).astype(np.float32), rng.integers(0, 2, 50)
    ones, zeros = scores[labels == 1][:, None], scores[labels == 0]
    pairs = np.where(ones[:, None] > zeros, 1, np.where(ones[:, None] == zeros, 0.5, 0))
    assert value("auc", scores, labels=labels) == pytest.approx(pairs.mean(), rel=1e-6)
    assert value("auc", labels[:, None].astype(np.float32), labels=labels) == 1
    with pytest.raises(DataError, match="all labels are the same"):
        value("auc", scores, labels=np.ones(50))


def test_labels_that_are_not_binary() -> None:
    with pytest.raises(DataError, match="labels are not 0 and 1: use accuracy for classes, or mae"):
        value("binary-accuracy", np.zeros((2, 1), np.float32), labels=np.array([0, 2]))
    with pytest.raises(DataError, match="use another metric, binary-accuracy or mae"):
        value("accuracy", np.zeros((2, 1), np.float32), labels=np.array([0, 1]))


def test_boxes_without_an_area_count_for_nothing() -> None:
    """A line is as wide as it is high in one direction only."""
    whole, line = [0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 0.0]
    found, wanted = np.array([[whole, line]], np.float32), np.array([[whole, whole]], np.float32)
    assert value("box-f1", found, original=found) == 1
    assert value("box-f1", found, original=wanted) == pytest.approx(2 / 3)


def test_boxes_have_one_partner_each() -> None:
    """Two boxes over one of the original are one hit and one miss; the order of boxes does not matter."""
    box, other = [0, 0, 4, 4], [10, 10, 12, 13]
    original = np.array([[box, other]], np.float32)
    assert value("box-f1", np.array([[other, box]], np.float32), original=original) == 1
    assert value("box-f1", np.array([[box, box]], np.float32), original=original) == 0.5
    half = np.array([[[0, 0, 4, 2], other]], np.float32)  # IoU 0.5 counts, below it does not
    assert value("box-f1", half, original=original) == 1
    assert value("box-f1", np.array([[[0, 0, 4, 1.9], other]], np.float32), original=original) == 0.5


SIGMOID = """
    net (float[n, 6] x) => (float[n, 1] y, float[n, 8] state)
    <float[6, 8] w, float[8, 1] v>
    { h = MatMul(x, w)  state = Relu(h)  s = MatMul(state, v)  y = Sigmoid(s) }
"""


def test_a_drop_of_one_probability(build: Build) -> None:
    """Agreement on the side of 0.5, without labels too; before, snr was taken, which is infinite for the original."""
    path = build(SIGMOID.replace(", float[n, 8] state", ""))
    x = np.random.default_rng(0).standard_normal((60, 6)).astype(np.float32)
    report = op.compress(path, data={"x": x}, target="drop=0.2").report
    assert any("the drop is of binary-agreement" in note for note in report.notes)
    model = open_model(path)
    assert is_probability(model, Port("y", "tensor(float)", ("n", 1)))
    assert not is_probability(
        open_model(build(SIGMOID.replace("Sigmoid", "Tanh"))), Port("y", "tensor(float)", ("n", 1))
    )
