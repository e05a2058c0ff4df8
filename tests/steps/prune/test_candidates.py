"""Cuts that are really made and measured: targets for latency and drop, and allocation by time."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxprune.data.base import Batch, Data
from onnxprune.errors import DataError, TargetError, UsageError
from onnxprune.evaluation.metrics import evaluate, metric
from onnxprune.model.file import estimated_bytes
from onnxprune.pipeline.run import compress, inspect
from onnxprune.runtime.latency import Setting
from onnxprune.steps.base import Context
from onnxprune.steps.prune import budget_search, candidates
from onnxprune.steps.prune import planner as planning
from onnxprune.steps.prune.allocation.base import Lost
from onnxprune.steps.prune.candidates import Candidates
from onnxprune.steps.prune.options import PruneOptions
from onnxprune.steps.recover import methods as recovering
from onnxprune.steps.state import State

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def data() -> Data:
    with np.load(ROOT / "models" / "digits_test.npz") as arrays:
        x, y = arrays["input"][:200], arrays["labels"][:200]
    return Data("digits", True, lambda: (Batch({"input": x[i : i + 50]}, y[i : i + 50]) for i in range(0, 200, 50)))


def slower(monkeypatch: pytest.MonkeyPatch, ratio: dict[int, float]) -> None:
    """Times by the size of the file: the ratio of the first entry that is not below it."""

    def measure(models: list[Path | ir.Model], _: Setting, **__: object) -> list[SimpleNamespace]:
        sizes = [model.stat().st_size if isinstance(model, Path) else estimated_bytes(model) for model in models]
        shares = [100 * size / sizes[0] for size in sizes]
        seconds = [next(time for least, time in sorted(ratio.items()) if share <= least) for share in shares]
        return [SimpleNamespace(seconds=(time,) * 3, processor_seconds=()) for time in seconds]

    monkeypatch.setattr(candidates, "measure_latency", measure)


def test_a_drop_is_that_of_the_model_that_comes_out(digits: dict[str, Path], data: Data, tmp_path: Path) -> None:
    result = compress(digits["resnet"], criterion="l1", target=["drop=0.05"], data=data, recover="none")
    result.save(tmp_path / "small.onnx")
    values = [evaluate(path, data, metric("accuracy", True)) for path in (digits["resnet"], tmp_path / "small.onnx")]
    assert 0 <= values[0] - values[1] <= 0.05
    assert result.plan.removed_units > 0
    assert any(note.startswith("target met, drop=0.05: ") for note in result.report.notes)


def test_a_drop_beside_a_target_it_cannot_go_with_is_refused(digits: dict[str, Path], data: Data) -> None:
    with pytest.raises(TargetError, match=r"drop=0\.01: .* allowed: the cut that meets the other targets"):
        compress(digits["resnet"], criterion="l1", target=["macs=0.1", "drop=0.01"], data=data, recover="none")


def test_a_drop_is_measured_on_what_recovery_has_not_seen(
    digits: dict[str, Path], data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    """200 samples: recovery, in the search and at the end, sees 134 of them, and the drop is that of the other 66."""
    seen: list[set[bytes]] = []
    measured: list[list[bytes]] = []
    recover, value = recovering.recover_layers, candidates.evaluate

    def watching(*args: Any, **options: Any) -> Any:
        seen.append({x.tobytes() for batch in args[4].batches() for x in batch.feed["input"]})
        return recover(*args, **options)

    def evaluating(model: Any, shown: Data, *args: Any, **options: Any) -> float:
        measured.append([x.tobytes() for batch in shown.batches() for x in batch.feed["input"]])
        return value(model, shown, *args, **options)

    monkeypatch.setattr(recovering, "recover_layers", watching)
    monkeypatch.setattr(candidates, "evaluate", evaluating)
    result = compress(digits["resnet"], criterion="l1", target=["drop=0.05"], data=data)
    assert {len(each) for each in seen} == {134}
    assert {len(each) for each in measured} == {66}
    assert not set().union(*seen) & set().union(*measured)
    assert "the drop is of accuracy, on 66 samples kept apart" in result.report.notes


def test_a_drop_without_recovery_is_measured_on_all_samples(digits: dict[str, Path], data: Data) -> None:
    result = compress(digits["resnet"], criterion="l1", target=["drop=0.05"], data=data, recover="none")
    assert not any("kept apart" in note for note in result.report.notes)


def test_a_single_sample_serves_for_both_and_that_is_said(digits: dict[str, Path]) -> None:
    with np.load(ROOT / "models" / "digits_test.npz") as arrays:
        x = arrays["input"][:1]
    one = Data("one", False, lambda: iter([Batch({"input": x})]))
    notes = compress(digits["resnet"], criterion="l1", target=["drop=0.05"], data=one, recover="bias").report.notes
    said = "the drop is of agreement, on 1 sample that recovery was fitted to as well, which flatters: give more"
    assert said in notes


@pytest.mark.parametrize(("options", "message"), [({}, "needs data"), ({"metric": "snr"}, "infinite")])
def test_a_drop_that_cannot_be_measured_is_refused(
    digits: dict[str, Path], data: Data, options: dict[str, str], message: str
) -> None:
    given = {"data": data} if options else {}
    with pytest.raises(UsageError, match=message):
        compress(digits["resnet"], criterion="l1", target=["drop=0.05"], recover="none", **given, **options)  # type: ignore[arg-type]


def test_a_metric_that_is_not_a_number_is_no_drop_of_nothing(
    digits: dict[str, Path], data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "odd.py").write_text("def never(outputs, labels):\n    return float('nan')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with pytest.raises(DataError, match="metric 'odd:never' of the original is not a number"):
        compress(digits["resnet"], criterion="l1", target=["drop=0.05"], data=data, metric="odd:never", recover="none")
    state = State.of(inspect(digits["resnet"]), digits["resnet"])
    made = Candidates(state, Context(data=data, metric="odd:never"))
    made.__dict__["_before"] = 1.0
    assert made.drop({state.original.groups[0].atom: np.arange(16) > 0}) == float("inf")


def test_a_latency_is_met_by_a_cut_that_was_timed(digits: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    slower(monkeypatch, {30: 0.5, 60: 0.7, 1000: 1.0})
    met = compress(digits["resnet"], target=["latency=0.8"], recover="none")
    assert 0.5 < met.report.file_bytes[1] / met.report.file_bytes[0] <= 0.62
    with pytest.raises(TargetError, match=r"latency=0\.4 cannot be met"):
        compress(digits["resnet"], target=["latency=0.4"], recover="none")


def test_what_is_slower_is_undone(digits: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Half the time is promised by the tables, but the models that are made are slower."""
    slower(monkeypatch, {80: 1.5, 99: 0.5, 1000: 1.0})
    result = compress(digits["resnet"], ratio=0.9, scope="latency", recover="none")
    assert result.report.file_bytes[1] / result.report.file_bytes[0] > 0.79
    slower(monkeypatch, {99: 1.5, 1000: 1.0})
    result = compress(digits["resnet"], ratio=0.9, scope="latency", recover="none")
    assert result.plan.removed_units == 0


def test_the_strength_is_halved_until_it_is_faster(digits: dict[str, Path]) -> None:
    analysis = inspect(digits["resnet"])
    scores = {group.id: np.arange(1.0, group.units + 1) for group in analysis.groups}
    plans = planning.planner(analysis, analysis.groups, scores, PruneOptions(scope="uniform"))
    tried: list[int] = []

    def latency(lost: Lost) -> tuple[float, float]:
        tried.append(sum(lost.values()))
        return 1.0, 0.9 if len(tried) == 3 else 1.1

    assert budget_search.never_slower(plans, 0.8, latency).lost == plans.lost(0.2)
    assert tried == [sum(plans.lost(t).values()) for t in (0.8, 0.4, 0.2)]


def test_levels_to_time_are_multiples_that_leave_a_choice() -> None:
    assert candidates._kept_counts(64) == {16, 32, 48}
    assert candidates._kept_counts(32) == {8, 16, 24}
    assert candidates._kept_counts(16) == {4, 8, 12}
    assert candidates._kept_counts(3) == {1, 2}
    assert candidates._kept_counts(2) == {1}


def test_the_best_and_the_last_cut_are_at_hand(digits: dict[str, Path]) -> None:
    state = State.of(inspect(digits["resnet"]), digits["resnet"])
    made, atom = Candidates(state, Context()), state.original.groups[0].atom
    first, second, third = ({atom: np.arange(16) != unit} for unit in range(3))
    best = made.made(first)
    made.keep(first)
    last = made.made(second)
    assert made.known(first) is best
    assert made.known(second) is last
    made.keep(third)  # which was not made
    made.made(third)
    assert made.known(first) is best
    assert made.known(second) is None
