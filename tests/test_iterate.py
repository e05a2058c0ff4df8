"""Cuts in several steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onnxprune.calibration.base import Batch, Data, load_data
from onnxprune.iterate import compress_in_steps
from onnxprune.metrics import evaluate, metric, outputs_of
from onnxprune.model import open_model
from onnxprune.pipeline import apply, compress, inspect
from onnxprune.plan import Plan
from onnxprune.signature import ports_of


@pytest.mark.parametrize("name", ["resnet", "transformer"])
def test_many_steps_meet_the_target_of_one(digits: dict[str, Path], tmp_path: Path, name: str) -> None:
    result = compress_in_steps(digits[name], target=["macs=0.4"], steps=3)
    result.save(tmp_path / "small.onnx", plan=tmp_path / "plan.json")
    report = result.report
    assert report.before == compress(digits[name]).report.before
    assert 0.38 * report.before.macs < report.after.macs <= 0.4 * report.before.macs
    assert report.notes == (f"target met, macs=0.4: {report.notes[0].split(': ')[1]}",)
    assert {group.id for group in report.groups} == {group.id for group in inspect(digits[name]).groups}
    kept = {group.id: group.kept for group in report.groups}
    for removal in result.plan.removals:
        assert kept[removal.group] == removal.units - len(removal.remove)


def test_the_plan_replays_what_went(digits: dict[str, Path], tmp_path: Path) -> None:
    """Without recovery, all steps together are one cut of the original."""
    result = compress_in_steps(digits["resnet"], ratio=0.5, steps=3, schedule_name="linear")
    result.save(tmp_path / "steps.onnx", plan=tmp_path / "plan.json")
    apply(digits["resnet"], Plan.read(tmp_path / "plan.json")).save(tmp_path / "once.onnx")
    rng = np.random.default_rng(0)
    x = rng.standard_normal((9, 1, 8, 8)).astype(np.float32)
    data = Data("made", False, lambda: iter([Batch({"input": x})]))
    first = next(outputs_of(tmp_path / "once.onnx", data))
    np.testing.assert_allclose(first, next(outputs_of(tmp_path / "steps.onnx", data)), rtol=1e-4, atol=1e-5)
    assert result.plan.request["steps"] == 3


def test_every_step_recovers_towards_the_original(digits: dict[str, Path], tmp_path: Path) -> None:
    with np.load(digits["resnet"].parent / "digits_calibration.npz") as arrays:
        x = arrays["input"][:192]
    data = Data("digits", False, lambda: (Batch({"input": x[i : i + 64]}) for i in range(0, 192, 64)))
    values = []
    for recover in ("none", "reconstruct"):
        result = compress_in_steps(digits["resnet"], "l1", 0.4, steps=2, data=data, recover=recover)
        result.save(tmp_path / f"{recover}.onnx")
        reference = outputs_of(digits["resnet"], data)
        values.append(evaluate(tmp_path / f"{recover}.onnx", data, metric("snr", False), reference))
    assert values[1] > values[0] + 3
    assert result.report.recovery.method == "reconstruct"


def test_groups_keep_their_names_where_recovery_gives_biases_new_ones(digits: dict[str, Path]) -> None:
    """Two groups of this model are called after a bias; what the second step removes is found all the same."""
    path = digits["resnet"]
    whole = {group.id: group.units for group in inspect(path).groups}
    assert "stages.2.bn2.bias[0]" in whole
    data = load_data(str(path.with_name("digits_calibration.npz")), ports_of(open_model(path)), samples=32)
    plan = compress_in_steps(path, ratio=0.5, scope="uniform", steps=2, data=data).plan
    assert {removal.group for removal in plan.removals} == set(whole)
    assert all(len(removal.remove) >= whole[removal.group] // 2 - 1 for removal in plan.removals)
