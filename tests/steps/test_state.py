"""The state: what is left of the original is carried along, and nothing is opened or analysed more than needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxprune.analysis import coupling
from onnxprune.analysis import inspect as opening
from onnxprune.analysis.copy import copy_analysis
from onnxprune.analysis.groups import Analysis
from onnxprune.analysis.inspect import analyze_model, inspect
from onnxprune.data.base import Data
from onnxprune.data.options import DataOptions
from onnxprune.data.split import hold_out
from onnxprune.dims import atoms, units_of
from onnxprune.model import file as files
from onnxprune.model.signature import ports_of
from onnxprune.pipeline.run import compress
from onnxprune.runtime.session import Session
from onnxprune.steps import state as states
from onnxprune.steps.base import Context
from onnxprune.steps.evaluate import EVERY, MOST
from onnxprune.steps.prune.step import Prune
from onnxprune.steps.recover.step import Recover
from onnxprune.steps.state import State

ROOT = Path(__file__).resolve().parents[2]
CALIBRATION = ROOT / "models" / "digits_calibration.npz"


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How often a model is opened and analysed, and how many files are written and loaded."""
    counts = {"opened": 0, "analysed": 0, "saved": 0}

    def count(what: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def counting(*args: Any, **options: Any) -> Any:
            counts[what] += 1
            return function(*args, **options)

        return counting

    monkeypatch.setattr(opening, "analyze", count("analysed", coupling.analyze))
    monkeypatch.setattr(files, "_read_proto", count("opened", files._read_proto))
    monkeypatch.setattr(files, "_write", count("saved", files._write))
    return counts


def some(samples: int = 64) -> DataOptions:
    return DataOptions(data=str(CALIBRATION), samples=samples)


@pytest.mark.parametrize(
    ("options", "with_data", "most"),
    [
        ({"ratio": 0.5, "recover": "none"}, False, 1),
        ({"target": "macs=0.5", "recover": "none"}, False, 1),
        ({"steps": 3, "recover": "none"}, False, 3),
        ({"ratio": 0.5}, True, 2),
        ({"steps": 3}, True, 4),
        ({"lossless": True}, False, 1),
    ],
)
def test_a_model_is_opened_once_and_analysed_once_per_change(
    digits: dict[str, Path], counted: dict[str, int], options: dict[str, Any], with_data: bool, most: int
) -> None:
    compress(digits["resnet"], data=some() if with_data else None, **options)
    assert counted == {"opened": 1, "analysed": most, "saved": 0}


def test_a_target_for_drop_takes_one_analysis_per_candidate(
    digits: dict[str, Path], counted: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []
    result = compress(digits["lstm"], target="drop=0.1", data=some(), progress=tried.append)
    candidates = sum(line == "trying a cut" for line in tried)
    assert result.plan.removed_units
    assert candidates > 1
    assert counted["analysed"] <= candidates + 1
    assert counted["saved"] == 0


def test_candidates_for_a_latency_are_timed_in_memory(digits: dict[str, Path], counted: dict[str, int]) -> None:
    compress(digits["lstm"], target="latency=0.95", recover="none")
    assert counted["analysed"] == 1
    assert counted["saved"] == 0


def reduced(analysis: Analysis) -> dict[str, list[list[tuple[str, list[int]]]]]:
    """For every axis of every weight, the kinds of the groups in it, and which unit each entry belongs to."""
    kinds = {group.atom: group.kind for group in analysis.groups}
    return {
        name: [
            [(kinds[atom], units_of(dim, atom).tolist()) for atom in dict.fromkeys(atoms(dim)) if atom in kinds]
            for dim in analysis.dims[name]
        ]
        for name in analysis.model.graph.initializers
        if name in analysis.dims
    }


@pytest.mark.parametrize("name", ["resnet", "transformer", "lstm"])
def test_what_recovery_puts_in_is_known_to_the_analysis(digits: dict[str, Path], name: str) -> None:
    """The analysis that recovery has kept up to date is the one that the model would get if it were analysed anew."""
    analysis = inspect(digits[name])
    context = Context(data=some().open(lambda: analysis.model, 0))
    state = Recover()(Prune(ratio=0.4, scope="uniform")(State.of(analysis), context), context)
    fresh = analyze_model(copy_analysis(state.analysis).model)
    assert reduced(state.analysis) == reduced(fresh)
    assert (
        state.analysis.shapes.shapes.items()
        >= {
            name: shape for name, shape in fresh.shapes.shapes.items() if name in fresh.model.graph.initializers
        }.items()
    )


@pytest.mark.parametrize("name", ["resnet", "transformer", "lstm"])
def test_units_know_which_unit_of_the_original_they_are(digits: dict[str, Path], name: str) -> None:
    """Cut twice: what a weight holds in the end are the slices of the original that the masks name."""
    analysis = inspect(digits[name])
    state, rng = State.of(analysis), np.random.default_rng(0)
    for _ in range(2):
        left = {}
        for group in analysis.groups:
            mask = state.mask(group).copy()
            mask[rng.choice(np.flatnonzero(mask)[1:], mask.sum() // 3, replace=False)] = False
            left[group.atom] = mask
        state = state.cut(left)
        now = state.now(analysis.groups)
        for group in analysis.groups:
            assert now[group.id].units == state.mask(group).sum() == left[group.atom].sum()
    once = State.of(analysis).cut(state.left).model.graph.initializers
    for tensor, value in state.model.graph.initializers.items():
        if tensor in analysis.model.graph.initializers:
            assert np.array_equal(value.const_value.numpy(), once[tensor].const_value.numpy()), tensor  # type: ignore[union-attr]


def test_a_step_leaves_the_state_that_it_was_given_alone(digits: dict[str, Path]) -> None:
    analysis = inspect(digits["transformer"])
    context = Context(data=some().open(lambda: analysis.model, 0))
    before = {name: value.const_value.numpy().copy() for name, value in analysis.model.graph.initializers.items()}  # type: ignore[union-attr]
    nodes = [node.name for node in analysis.model.graph]
    first = State.of(analysis)
    cut = Prune()(first, context)
    shapes = {name: value.const_value.shape for name, value in cut.model.graph.initializers.items()}  # type: ignore[union-attr]
    names = [node.name for node in cut.model.graph]
    Recover()(cut, context)
    assert [node.name for node in first.model.graph] == nodes
    assert [node.name for node in cut.model.graph] == names
    assert {name: value.const_value.shape for name, value in cut.model.graph.initializers.items()} == shapes  # type: ignore[union-attr]
    for name, value in first.model.graph.initializers.items():
        assert np.array_equal(value.const_value.numpy(), before[name])  # type: ignore[union-attr]


def test_masks_of_zeros_lose_the_units_that_are_removed(digits: dict[str, Path]) -> None:
    analysis = inspect(digits["lstm"])
    group = analysis.groups[0]
    place = group.occurrences[0]
    shape = analysis.shapes.shapes[place.tensor]
    zeros = np.random.default_rng(0).random(shape) < 0.5
    keep = np.arange(group.units) % 2 == 0
    state = State.of(analysis)
    state = states.replace(state, zeros={place.tensor: zeros}).cut({group.atom: keep})
    value = state.model.graph.initializers[place.tensor].const_value
    assert value is not None
    assert state.zeros[place.tensor].shape == value.numpy().shape
    plain = State.of(analysis).cut({group.atom: keep})
    again = plain.model.graph.initializers[place.tensor].const_value
    assert again is not None
    assert np.array_equal(value.numpy(), again.numpy())


def test_a_state_can_be_named_and_gone_back_to(digits: dict[str, Path]) -> None:
    state = State.of(inspect(digits["lstm"]))
    kept = states.replace(state, checkpoints={"start": state})
    group = state.original.groups[0]
    later = kept.cut({group.atom: np.arange(group.units) < group.units // 2})
    back = later.checkpoints["start"].cut(later.left)
    for name, value in later.model.graph.initializers.items():
        same = back.model.graph.initializers[name].const_value
        assert np.array_equal(value.const_value.numpy(), same.numpy())  # type: ignore[union-attr]


def outputs(model: Any, data: Data) -> Iterator[Any]:
    session = Session(model)
    for batch in data.batches():
        yield from session.run(batch.feed).values()


def test_a_recipe_ends_where_its_steps_end(digits: dict[str, Path]) -> None:
    """`compress` is the recipe of its steps: one by one they give the same weights."""
    analysis = inspect(digits["lstm"])
    samples = some().open(lambda: analysis.model, 0)
    assert samples is not None
    apart = hold_out(samples, ports_of(analysis.model), EVERY, MOST)  # what the quality is measured on
    context = Context(data=apart.fitting, apart=apart)
    by_hand = Recover()(Prune(ratio=0.5)(State.of(analysis), context), context)
    for one, other in zip(
        outputs(by_hand.model, samples),
        outputs(compress(digits["lstm"], data=some(), ratio=0.5).model, samples),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)
