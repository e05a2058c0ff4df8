"""Cuts in several steps."""

from __future__ import annotations

import functools
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx_ir as ir
import pytest

from onnxprune.data.base import Batch, Data, load_data
from onnxprune.errors import TargetError, UsageError
from onnxprune.evaluation.metrics import evaluate, metric, outputs_of
from onnxprune.model.file import estimated_bytes, open_model
from onnxprune.model.signature import ports_of
from onnxprune.pipeline.recipe import Recipe
from onnxprune.pipeline.result import Result
from onnxprune.pipeline.run import apply, compress, inspect
from onnxprune.steps.base import Context, run_steps
from onnxprune.steps.plan import Plan
from onnxprune.steps.prune import candidates
from onnxprune.steps.prune.allocation.base import allocations
from onnxprune.steps.repeat import Repeat
from onnxprune.steps.sparsify.step import Sparsify
from onnxprune.steps.state import State


@pytest.mark.parametrize("name", ["resnet", "transformer"])
def test_many_steps_meet_the_target_of_one(digits: dict[str, Path], tmp_path: Path, name: str) -> None:
    result = compress(digits[name], target=["macs=0.4"], steps=3, recover="none")
    result.save(tmp_path / "small.onnx", plan=tmp_path / "plan.json")
    report = result.report
    assert report.before == compress(digits[name], ratio=0.5, recover="none").report.before
    assert 0.38 * report.before.macs < report.after.macs <= 0.4 * report.before.macs
    assert report.notes[0].startswith("target met, macs=0.4: ")
    assert {group.id for group in report.groups} == {group.id for group in inspect(digits[name]).groups}
    kept = {group.id: group.kept for group in report.groups}
    for removal in result.plan.removals:
        assert kept[removal.group] == removal.units - len(removal.remove)


def test_the_plan_replays_what_went(digits: dict[str, Path], tmp_path: Path) -> None:
    """Without recovery, all steps together are one cut of the original."""
    result = compress(digits["resnet"], ratio=0.5, steps=3, schedule="linear", recover="none")
    result.save(tmp_path / "steps.onnx", plan=tmp_path / "plan.json")
    apply(digits["resnet"], Plan.read(tmp_path / "plan.json")).save(tmp_path / "once.onnx")
    rng = np.random.default_rng(0)
    x = rng.standard_normal((9, 1, 8, 8)).astype(np.float32)
    data = Data("made", False, lambda: iter([Batch({"input": x})]))
    first = next(outputs_of(tmp_path / "once.onnx", data))
    np.testing.assert_allclose(first, next(outputs_of(tmp_path / "steps.onnx", data)), rtol=1e-4, atol=1e-5)
    assert result.plan.recipe["step"][0]["times"] == 3


def test_every_step_recovers_towards_the_original(digits: dict[str, Path], tmp_path: Path) -> None:
    with np.load(digits["resnet"].parent / "digits_calibration.npz") as arrays:
        x = arrays["input"][:192]
    data = Data("digits", False, lambda: (Batch({"input": x[i : i + 64]}) for i in range(0, 192, 64)))
    values = []
    for recover in ("none", "reconstruct"):
        result = compress(digits["resnet"], criterion="l1", ratio=0.4, steps=2, data=data, recover=recover)
        result.save(tmp_path / f"{recover}.onnx")
        reference = outputs_of(digits["resnet"], data)
        values.append(evaluate(tmp_path / f"{recover}.onnx", data, metric("snr", False), reference))
    assert values[1] > values[0] + 3
    assert result.report.recovery == "reconstruct"


def test_groups_keep_their_names_where_recovery_gives_biases_new_ones(digits: dict[str, Path]) -> None:
    """The first weight of two groups of this model is a bias; what the second step removes is found all the same."""
    path = digits["resnet"]
    whole = {group.id: group.units for group in inspect(path).groups}
    assert "stages.2.conv2" in whole
    data = load_data(str(path.with_name("digits_calibration.npz")), ports_of(open_model(path)), samples=32)
    plan = compress(path, ratio=0.5, scope="uniform", steps=2, data=data).plan
    assert {removal.group for removal in plan.removals} == set(whole)
    assert all(len(removal.remove) >= whole[removal.group] // 2 - 1 for removal in plan.removals)


# -- the end of the last step is that of a single one

COMPUTED = [name for name in allocations.names() if not allocations[name].needs]


analysed = functools.cache(inspect)


def lost(path: Path, **options: object) -> dict[str, int]:
    """What the steps of a recipe remove, without running the model."""
    steps = Recipe.of_options({"criterion": "l1", "recover": "none", **options}).steps
    plan = run_steps(steps, State.of(analysed(path), path), Context()).plan()
    return {removal.group: len(removal.remove) for removal in plan.removals}


@pytest.mark.parametrize("schedule", ["linear", "cubic", "geometric"])
@pytest.mark.parametrize("name", ["resnet", "transformer", "lstm"])
def test_uniform_steps_end_at_the_counts_of_one(digits: dict[str, Path], name: str, schedule: str) -> None:
    for ratio in (0.3, 0.45, 0.8):
        once = lost(digits[name], scope="uniform", ratio=ratio)
        assert lost(digits[name], scope="uniform", ratio=ratio, steps=3, schedule=schedule) == once


@pytest.mark.parametrize("scope", ["auto", "global", "isomorphic"])
@pytest.mark.parametrize("name", ["resnet", "transformer"])
def test_steps_of_a_ranking_end_at_the_number_of_units_of_one(digits: dict[str, Path], name: str, scope: str) -> None:
    once = sum(lost(digits[name], scope=scope, ratio=0.45).values())
    assert sum(lost(digits[name], scope=scope, ratio=0.45, steps=3).values()) == once


@pytest.mark.parametrize("name", ["resnet", "transformer"])
def test_steps_of_the_knapsack_end_at_the_size_of_one(digits: dict[str, Path], name: str) -> None:
    """The size is the mean of the shares of parameters and MACs; no more is left than uniform leaves in one step."""

    def size(**options: object) -> float:
        report = compress(digits[name], criterion="l1", ratio=0.45, recover="none", **options).report  # type: ignore[arg-type]
        before, after = report.before, report.after
        return (after.parameters / before.parameters + after.macs / before.macs) / 2

    whole = size(scope="uniform")
    assert size(scope="knapsack", steps=3) <= whole * (1 + 1e-9)
    assert size(scope="knapsack", steps=3) > 0.9 * whole


def test_constraints_hold_over_all_steps_together(digits: dict[str, Path]) -> None:
    units = {group.id: group.units for group in inspect(digits["resnet"]).groups}
    own = (("stages.*", 0.25),)
    found = lost(digits["resnet"], scope="global", ratio=0.6, steps=3, max_ratio=0.5, ratios=own)
    assert found
    for group, count in found.items():
        assert count <= 0.5 * units[group]
        if group.startswith("stages."):
            assert count == units[group] // 4
    rounded = lost(digits["resnet"], scope="uniform", ratio=0.6, steps=3, round_to=8)
    assert {group: (units[group] - count) % 8 for group, count in rounded.items()} == dict.fromkeys(rounded, 0)


def test_groups_whose_neighbours_are_down_to_a_unit_are_found(digits: dict[str, Path]) -> None:
    """Heads on the same axes as what is in a head: with one head left, the axis is that of the latter alone."""
    path = digits["transformer"]
    heads = {group.id for group in inspect(path).groups if group.kind == "heads"}
    own = (("heads", 0.9), ("head-dim", 0.5))
    once = lost(path, scope="uniform", ratio=0.0, ratios=own)
    assert heads <= set(once)
    assert lost(path, scope="uniform", ratio=0.0, ratios=own, steps=4) == once


def test_what_has_gone_stays_away_and_is_scored_on_what_is_left(digits: dict[str, Path]) -> None:
    """After the first step's units the weakest of the rest go, by the scores that they have then."""
    path = digits["resnet"]
    first = {
        r.group: set(r.remove)
        for r in compress(path, criterion="l1", ratio=0.2, scope="uniform", recover="none").plan.removals
    }
    both = compress(path, criterion="l1", ratio=0.4, scope="uniform", steps=2, schedule="linear", recover="none").plan
    assert all(first.get(removal.group, set()) <= set(removal.remove) for removal in both.removals)
    once = {
        r.group: set(r.remove)
        for r in compress(path, criterion="l1", ratio=0.4, scope="uniform", recover="none").plan.removals
    }
    assert any(set(removal.remove) != once[removal.group] for removal in both.removals)


def test_a_drop_holds_at_the_end(digits: dict[str, Path]) -> None:
    path = digits["resnet"]
    data = load_data(
        str(path.with_name("digits_calibration.npz")), ports_of(open_model(path)), samples=64, labels="labels"
    )
    result = compress(path, target=["macs=0.6", "drop=0.5"], steps=2, round_to=1, data=data)
    assert [note.split(": ")[0] for note in result.report.notes] == [
        "target met, macs=0.6",
        "target met, drop=0.5",
        "the drop is of accuracy, on 21 samples kept apart",
    ]
    with pytest.raises(TargetError, match=r"drop=0: .* allowed: the cut that meets the other targets"):
        compress(path, criterion="random", target=["macs=0.1", "drop=0"], steps=2, data=data, recover="none")
    with pytest.raises(UsageError, match="alone does not say how far"):
        compress(path, target=["drop=0.1"], steps=2, data=data)


def test_seconds_are_split_over_the_steps(digits: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the time is that of the file's size, a time of half of it is met at half the size."""

    def measure(models: list[Path | ir.Model], *_: object, **__: object) -> list[SimpleNamespace]:
        sizes = [model.stat().st_size if isinstance(model, Path) else estimated_bytes(model) for model in models]
        return [SimpleNamespace(seconds=(size * 1e-6,) * 3, processor_seconds=()) for size in sizes]

    monkeypatch.setattr(candidates, "measure_latency", measure)
    size = digits["resnet"].stat().st_size
    result = compress(digits["resnet"], target=[f"latency={size * 0.5e-3}ms"], steps=2, recover="none")
    assert 0.4 < result.report.file_bytes[1] / size < 0.52
    result = compress(digits["resnet"], ratio=0.5, scope="latency", steps=2, recover="none")
    assert 0.1 < result.report.file_bytes[1] / size < 0.8


def test_the_best_of_several_tries_is_kept(digits: dict[str, Path]) -> None:
    """Each try begins where the first began, with a seed of its own; the one that is kept is the best of them."""
    data = str(digits["lstm"].with_name("digits_calibration.npz"))
    tries = Sparsify(sparsity=0.6, weight_criterion="random", update="none")

    def agreement(result: Result) -> float:
        assert result.report.quality is not None
        return result.report.quality.scores[0].after

    loop = Repeat(times=3, best=True, steps=(tries,))
    best = Recipe((loop,))(digits["lstm"], data=data, allow_damage=True)
    (record,) = (each for each in best.state.records if each.step == "repeat")
    alone = [Recipe((tries,), {"seed": seed})(digits["lstm"], data=data, allow_damage=True) for seed in range(3)]
    masks = [next(iter(each.state.zeros.values())) for each in (best, *alone)]
    assert np.array_equal(masks[0], masks[record.numbers["kept"]])
    assert len(set(record.numbers["drops"])) > 1
    assert agreement(best) == max(map(agreement, alone))
    with pytest.raises(UsageError, match="--data"):
        Recipe((loop,))(digits["lstm"])
