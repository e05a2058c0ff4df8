"""Every sampler: values in range, the same for a seed; evolution beats chance on a problem with a known answer."""

from __future__ import annotations

from typing import Any

import pytest

from onnxprune.pipeline.search.pareto import hypervolume
from onnxprune.pipeline.search.samplers.base import samplers

optuna = pytest.importorskip("optuna", reason="the extra `search` is not installed")


def run(name: str, trials: int, seed: int) -> list[Any]:
    """Trials on (x, (1 - x) + distance of the others from 0.3): the front is where they are 0.3."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(directions=["minimize", "minimize"])

    def objective(trial: Any) -> tuple[float, float]:
        x = trial.suggest_float("x", 0, 1)
        rest = [trial.suggest_float(f"y{at}", 0, 1) for at in range(3)]
        k, choice = trial.suggest_int("k", 1, 4), trial.suggest_categorical("c", ["a", "b"])
        log = trial.suggest_float("log", 0.01, 1, log=True)
        assert 0 <= x <= 1
        assert 1 <= k <= 4
        assert 0.01 <= log <= 1
        return x, (1 - x) + sum(abs(each - 0.3) for each in rest) + 0.1 * k + 0.1 * (choice == "b") + log / 10

    for number in range(trials):
        study.sampler = samplers[name].make(seed * 1000 + number, trials)
        study.optimize(objective, n_trials=1)
    return list(study.trials)


SLOW = ("gp", "amc")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in samplers.names()]
)
def test_contract(name: str) -> None:
    if name in SLOW:
        pytest.importorskip("torch", reason="it needs torch")
    first, again = (run(name, 13, 5) for _ in range(2))
    assert [trial.params for trial in first] == [trial.params for trial in again]
    assert len({tuple(trial.params.values()) for trial in first}) == 13
    assert samplers[name].summary


@pytest.mark.parametrize("name", ["evolution", pytest.param("amc", marks=pytest.mark.slow)])
def test_our_own_samplers_beat_chance(name: str) -> None:
    if name == "amc":
        pytest.importorskip("torch", reason="it needs torch")

    def area(name: str, seed: int) -> float:
        return hypervolume([trial.values for trial in run(name, 80, seed)], (1.5, 2.5))

    ours, chance = (sum(area(each, seed) for seed in range(2)) / 2 for each in (name, "random"))
    assert ours > chance + 0.05
