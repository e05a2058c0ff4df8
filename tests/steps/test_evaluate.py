"""The step `evaluate`: on what quality is measured, and what happens where a model fell apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onnxprune as op
from onnxprune.evaluation.quality import APART, MADE_UP, SEEN
from onnxprune.steps.base import Context
from onnxprune.steps.evaluate import EVERY


def calibration(digits: dict[str, Path], count: int = 100) -> dict[str, Any]:
    with np.load(digits["resnet"].with_name("digits_calibration.npz")) as arrays:
        return {"input": arrays["input"][:count]}


def quality_of(digits: dict[str, Path], **options: Any) -> op.Quality:
    found = op.compress(digits["resnet"], criterion="l1", **options).report.quality
    assert found is not None
    return found


def test_with_data_quality_is_measured_on_samples_kept_apart(digits: dict[str, Path]) -> None:
    given = calibration(digits)
    found = quality_of(digits, ratio=0.1, recover="none", data=given["input"])
    assert (found.inputs, found.samples) == (APART, 20)
    model = op.compress(digits["resnet"], criterion="l1", ratio=0.1, recover="none").model
    apart = op.evaluate(digits["resnet"], model, data=given["input"][EVERY - 1 :: EVERY])
    assert [score.after for score in found.scores] == pytest.approx([score.after for score in apart.scores])


def test_nothing_is_fitted_to_what_is_kept_apart(digits: dict[str, Path]) -> None:
    """Other samples there, and the weights come out the same; other ones elsewhere, and they do not."""
    given = calibration(digits, 40)["input"]
    first = op.compress(digits["resnet"], ratio=0.5, data=given).proto()
    apart, fitted = given.copy(), given.copy()
    apart[EVERY - 1 :: EVERY] = 0
    fitted[::EVERY] = 0
    assert op.compress(digits["resnet"], ratio=0.5, data=apart).proto() == first
    assert op.compress(digits["resnet"], ratio=0.5, data=fitted).proto() != first


def test_labels_come_first(digits: dict[str, Path]) -> None:
    path = str(digits["resnet"].with_name("digits_calibration.npz"))
    data = op.load_data(path, ports(digits), labels="labels", samples=50)
    found = quality_of(digits, ratio=0.1, recover="none", data=data)
    assert [score.metric for score in found.scores] == ["accuracy", "agreement", "snr"]
    assert found.scores[0].labels
    assert found.samples == 10


def ports(digits: dict[str, Path]) -> Any:
    from onnxprune.model.file import open_model
    from onnxprune.model.signature import ports_of

    return ports_of(open_model(digits["resnet"]))


def test_without_data_inputs_are_made_up_and_marked_so(digits: dict[str, Path]) -> None:
    found = quality_of(digits, ratio=0.05, recover="none")
    assert (found.inputs, found.on) == (MADE_UP, "64 made-up inputs")
    assert not found.damage
    assert quality_of(digits, ratio=0.05, data="synthetic", recover="none").inputs == MADE_UP


def test_one_sample_serves_for_both_and_is_said_to(digits: dict[str, Path]) -> None:
    found = quality_of(digits, ratio=0.05, data=calibration(digits, 1)["input"], recover="none")
    assert (found.inputs, found.samples) == (SEEN, 1)


def test_a_model_that_fell_apart_is_called_that(digits: dict[str, Path]) -> None:
    with pytest.warns(op.DamageWarning, match=r"the model fell apart: its output explains .* allow_damage=True"):
        result = op.compress(digits["resnet"], criterion="l1", ratio=0.5, recover="none")
    assert "the model fell apart" in repr(result)
    assert not quality_of(digits, ratio=0.5, allow_damage=True, recover="none").damage
    with pytest.raises(op.DamageError, match=r"the model fell apart: .*; nothing was written"):
        op.compress(digits["resnet"], criterion="l1", ratio=0.5, strict=True, recover="none")
    op.compress(digits["resnet"], criterion="l1", ratio=0.05, strict=True, recover="none")
    with pytest.raises(op.UsageError, match="--strict refuses what --allow-damage accepts"):
        op.compress(digits["resnet"], strict=True, allow_damage=True, ratio=0.5, recover="none")


def test_every_way_to_a_result_tells_its_quality(digits: dict[str, Path]) -> None:
    recipe = op.Recipe([op.Prune(criterion="l1", ratio=0.5), op.Evaluate(allow_damage=True), op.Recover("fold")])
    result = recipe(digits["resnet"])
    assert [record.step for record in result.state.records] == ["prune", "evaluate", "recover"]
    again = op.apply(digits["resnet"], result.plan)
    assert again.report.quality is not None
    recovered = op.recover(again.model, digits["resnet"], plan=result.plan, method="fold").report.quality
    assert recovered is not None
    assert recovered.scores[-1].metric == "snr"
    assert recovered.scores[-1].before == pytest.approx(again.report.quality.scores[-1].after, abs=1e-3)
    assert recovered.scores[-1].after > recovered.scores[-1].before


def test_latency_is_measured_where_it_is_asked_for(digits: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from onnxprune.steps import evaluate

    monkeypatch.setattr(evaluate, "_SECONDS", 0.05)
    found = quality_of(digits, ratio=0.05, measure=True, recover="none").latency
    assert found is not None
    assert found.before > 0 < found.after
    assert found.comparison.low <= found.comparison.ratio <= found.comparison.high


def test_the_times_beside_a_factor_are_those_that_it_is_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine the clock on the wall says something else than the processor's."""
    from onnxprune.runtime import latency
    from onnxprune.steps.evaluate import _latency

    def measured(wall: float, processor: float) -> latency.Latency:
        sessions = tuple(range(latency.SESSIONS))
        seconds = ((at,) * len(sessions) for at in (wall, processor))
        return latency.Latency("m", latency.Setting(), next(seconds), sessions, next(seconds), (), {})

    monkeypatch.setattr(latency, "measure_latency", lambda *_, **__: [measured(9.0, 2e-3), measured(5.0, 1e-3)])
    found = _latency("a.onnx", "b.onnx", Context())
    assert (found.before, found.after) == (2e-3, 1e-3)
    assert found.comparison.ratio == pytest.approx(0.5)


def test_a_metric_is_refused_before_any_work(digits: dict[str, Path]) -> None:
    with pytest.raises(op.UsageError, match="metric 'accuracy' needs labels"):
        op.compress(digits["resnet"], metric="accuracy", ratio=0.5, recover="none")
    assert quality_of(digits, ratio=0.05, metric="cosine", recover="none").scores[0].metric == "cosine"
