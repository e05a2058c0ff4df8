"""Objectives of a candidate against what they are of, and limits as people write them."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest

from onnxprune.errors import UsageError
from onnxprune.pipeline.recipe import Recipe
from onnxprune.pipeline.samples import Sources
from onnxprune.pipeline.search.objectives.base import Aim, Reading, Requirement, aims_of, objectives
from onnxprune.pipeline.search.trial import make
from onnxprune.pipeline.search.workbench import Made, Workbench
from onnxprune.runtime.session import Session
from onnxprune.steps.prune.step import Prune
from onnxprune.steps.recover.step import Recover
from onnxprune.support.progress import silent

RECIPE = Recipe((Prune(ratio=0.5, criterion="l1", scope="uniform"), Recover("none")))


@pytest.fixture
def made(here: Path) -> Made:
    bench = Workbench.open(Path("model.onnx"), Sources("samples.npz"), RECIPE, here / "shared")
    return make(bench, RECIPE, silent)


def test_every_objective_is_measured(made: Made) -> None:
    for name in objectives.names():
        if name == "metric":
            continue
        found = Aim(name)(made)
        assert np.isfinite([found.value, found.before, found.after]).all()
        if objectives[name].relative:
            assert found.value == pytest.approx(found.after / found.before)
        assert objectives[name].summary


def test_costs_are_those_of_the_file(made: Made, here: Path) -> None:
    made.result.save("small.onnx")
    small, whole = (Path(name).read_bytes() for name in ("small.onnx", "model.onnx"))
    assert (Aim("params")(made).after, Aim("macs")(made).after) == (12 * 12 + 12 * 8 + 8 * 6,) * 2
    assert Aim("size")(made).after == pytest.approx(len(small), rel=0.05)
    zipped = Aim("zipped")(made)
    assert zipped.after == pytest.approx(len(zlib.compress(small, 6)), rel=0.05)
    assert zipped.before == pytest.approx(len(zlib.compress(whole, 6)), rel=0.05)


def test_quality_is_measured_on_the_samples_kept_apart(made: Made, here: Path) -> None:
    feed = {"x": np.concatenate([batch.feed["x"] for batch in made.bench.measured.batches()])}
    fitted = np.concatenate([batch.feed["x"] for batch in made.bench.context.data.batches()])  # type: ignore[union-attr]
    assert not {row.tobytes() for row in feed["x"]} & {row.tobytes() for row in fitted}
    made.result.save("small.onnx")
    old, new = (Session(Path(name)).run(feed)["y"].argmax(1) for name in ("model.onnx", "small.onnx"))
    agreement = float((old == new).mean())
    assert Aim("agreement")(made).value == pytest.approx(agreement)
    assert Aim("drop")(made).value == pytest.approx(1 - agreement)
    assert Aim("latency:cpu:4")(made).before > 0


def test_the_drop_of_a_metric_without_bound_is_the_share_of_noise(here: Path) -> None:
    """Of outputs that are no classes, the metric is the SNR, which is infinite for the original."""
    recipe = Recipe(RECIPE.steps, {"metric": "snr"})
    made = make(Workbench.open(Path("model.onnx"), Sources("samples.npz"), recipe, here / "shared"), recipe, silent)
    found = Aim("drop")(made)
    assert found.before == 0
    assert found.value == pytest.approx(10 ** (-Aim("snr")(made).value / 10))


@pytest.mark.parametrize(
    ("text", "found", "holds"),
    [
        ("macs<=0.5", Reading(0.4, 100, 40), True),
        ("macs<=0.5", Reading(0.6, 100, 60), False),
        ("macs <= 50%", Reading(0.6, 100, 60), False),
        ("macs<=50", Reading(0.6, 100, 60), False),
        ("macs<=70", Reading(0.6, 100, 60), True),
        ("size<=1kB", Reading(0.6, 2000, 1200), False),
        ("latency<=5ms", Reading(0.9, 0.005, 0.0045), True),
        ("accuracy>=0.9", Reading(0.89, 1, 0.89), False),
        ("drop<=0.01", Reading(0.0, 0, 0.0), True),
    ],
)
def test_limits(text: str, found: Reading, holds: bool) -> None:
    assert (Requirement.parse(text).excess(found) <= 0) is holds


@pytest.mark.parametrize("text", ["macs", "macs=0.5", "mcas<=0.5", "latency<=5MB", "drop<=5ms", "macs<=much"])
def test_what_is_no_limit_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        Requirement.parse(text)


def test_aims() -> None:
    assert [(aim.text, aim.maximize) for aim in aims_of((), ())] == [("macs", False), ("drop", False)]
    assert Aim("accuracy", maximize=True).cost(0.9) == -0.9
    with pytest.raises(UsageError, match="twice"):
        aims_of(("macs",), ("macs",))
    with pytest.raises(UsageError, match="did you mean 'macs'"):
        Aim("mac")
