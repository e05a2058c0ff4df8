"""Evolution by mutation alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from onnxprune.pipeline.search.samplers.base import AT_RANDOM, number_by_number, sampler

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

# A parent is the best of so many that are drawn; a number moves by this share of its range; so many trials come first,
# at random.
_DRAWN, _MOVES, _FIRST = 3, 0.15, 10


@sampler("evolution")
def evolution(seed: int, trials: int) -> BaseSampler:  # noqa: ARG001
    """Mutants of the trials that the fewest others dominate, by tournament (Real et al. 2019, for several aims)."""
    return number_by_number(_Mutant(seed), seed)


class _Mutant:
    """The numbers of a parent, some of them changed."""

    def __init__(self, seed: int) -> None:
        import numpy as np

        self._random = np.random.default_rng(seed)
        self._parent: dict[str, object] = {}
        self._moving: set[str] = set()

    def begin(self, study: Any) -> None:
        """Choose the parent, and which of its parameters change: each with even chance, and one at least."""
        from optuna.trial import TrialState

        from onnxprune.pipeline.search.pareto import dominated_by, is_feasible

        done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        done = [each for each in done if is_feasible(each)] or done
        self._parent, self._moving = {}, set()
        if len(done) < _FIRST:
            return
        costs = [tuple(_costs(study, each)) for each in done]
        ranks = [dominated_by(each, costs) for each in costs]
        drawn = self._random.choice(len(done), size=min(_DRAWN, len(done)), replace=False)
        self._parent = dict(done[min(drawn, key=lambda at: (ranks[at], -at))].params)
        names = sorted(self._parent)
        self._moving = {name for name in names if self._random.random() < 0.5}
        self._moving |= {names[int(self._random.integers(len(names)))]}

    def value(self, name: str, distribution: Any) -> object:
        """The value of the parent, or one near it."""
        value = self._parent.get(name)
        if value is None or not distribution._contains(distribution.to_internal_repr(value)):
            return AT_RANDOM
        if name not in self._moving:
            return value
        return AT_RANDOM if hasattr(distribution, "choices") else _near(value, distribution, self._random)


def _costs(study: Any, trial: Any) -> list[float]:
    """Values of a trial, less is better."""
    directions = [direction.name for direction in study.directions]
    return [
        -value if direction == "MAXIMIZE" else value for value, direction in zip(trial.values, directions, strict=True)
    ]


def _near(value: Any, distribution: Any, random: Any) -> Any:
    """A normal step in the range of a number, reflected at its ends."""
    import numpy as np

    low, high = distribution.low, distribution.high
    log, step = distribution.log, distribution.step
    at, start, end = (np.log(each) if log else float(each) for each in (value, low, high))
    moved = at + random.normal() * _MOVES * (end - start)
    moved = end - abs(end - (start + abs(moved - start)))
    moved = min(max(moved, start), end)
    moved = float(np.exp(moved)) if log else moved
    if step:
        moved = low + step * round((moved - low) / step)
    whole = isinstance(low, int) and isinstance(high, int)
    return round(moved) if whole else min(max(moved, low), high)
