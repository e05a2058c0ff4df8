"""What trials share is computed once, and a trial that has no hope ends early."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxprune.data.base import load_data
from onnxprune.model.signature import ports_of
from onnxprune.pipeline.search.shared import Shared
from onnxprune.steps.prune import decide
from tests.search.conftest import searched

optuna = pytest.importorskip("optuna", reason="the extra `search` is not installed")


def test_arrays_are_made_once_and_mapped(tmp_path: Path) -> None:
    made = []

    def make() -> Any:
        made.append(1)
        return [np.arange(6.0), np.ones((2, 3), np.int8)], {"names": ["a", "b"]}

    for _ in range(2):
        (first, second), note = Shared(tmp_path).arrays("key", make)
    assert (first.tolist(), second.shape, note) == ([0, 1, 2, 3, 4, 5], (2, 3), {"names": ["a", "b"]})
    assert len(made) == 1
    assert isinstance(first.base, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        first[0] = 1
    Shared(tmp_path).arrays("other", make)
    assert len(made) == 2


def test_samples_come_back_as_they_were(here: Path) -> None:
    from onnxprune.model.file import open_model

    data = load_data("samples.npz", ports_of(open_model("model.onnx")), labels="labels")
    again, digest = Shared(here / "shared").data(data)
    for one, other in zip(data.batches(), again.batches(), strict=True):
        assert np.array_equal(one.feed["x"], other.feed["x"])
        assert np.array_equal(one.labels, other.labels)
    assert again.labelled
    np.savez("samples.npz", x=np.load("samples.npz")["x"] + 1e-3, labels=np.load("samples.npz")["labels"])
    changed = load_data("samples.npz", ports_of(open_model("model.onnx")), labels="labels")
    assert Shared(here / "shared").data(changed)[1] != digest


def test_units_are_scored_once_for_all_trials(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scored = []
    plain = decide.score_units
    monkeypatch.setattr(decide, "score_units", lambda *args: scored.append(args) or plain(*args))
    found = searched(trials=5)
    assert (len(found.candidates), len(scored)) == (5, 1)
    searched(trials=7)
    assert len(scored) == 1


def test_a_trial_that_three_others_beat_before_training_ends_there(here: Path) -> None:
    from onnxprune.pipeline.recipe import Recipe
    from onnxprune.pipeline.search.options import SearchOptions
    from onnxprune.pipeline.search.request import Request
    from onnxprune.pipeline.search.run import OpenStudy, Sources
    from onnxprune.pipeline.search.trial import make
    from onnxprune.pipeline.search.worker import Worker
    from onnxprune.steps.prune.step import Prune
    from onnxprune.support.progress import silent

    options = SearchOptions(space=Path("space.toml"), minimize=("macs", "drop"))
    study = OpenStudy(Request(Path("model.onnx"), Sources("samples.npz"), options), {}, "early")
    bench = study.opened()
    worker = Worker(study.study, study.request, bench, None, silent)
    made = make(bench, Recipe((Prune(ratio=0.5, criterion="l1"),)), silent)
    for number in range(3):
        worker._early(study.study.ask(), made, "cheap")  # nothing finished was better
        better = optuna.trial.create_trial(
            values=[0.1, 0.0], user_attrs={"early": {"macs": 0.0, "drop": 0.0}, "measured": {}, "number": number}
        )
        study.study.add_trial(better)
    with pytest.raises(optuna.TrialPruned, match="3 trials were better"):
        worker._early(study.study.ask(), made, "cheap")
