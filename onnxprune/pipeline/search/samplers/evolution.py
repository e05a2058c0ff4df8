"""Evolution by mutation alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from onnxprune.pipeline.search.samplers.base import sampler

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

# A parent is the best of so many that are drawn; a number moves by this share of its range.
_DRAWN, _MOVES, _AT_RANDOM = 3, 0.15, 10


@sampler("evolution")
def evolution(seed: int, trials: int) -> BaseSampler:  # noqa: ARG001
    """Mutants of the trials that the fewest others dominate, by tournament (Real et al. 2019, for several aims)."""
    import numpy as np
    from optuna.distributions import BaseDistribution, CategoricalDistribution
    from optuna.samplers import BaseSampler, RandomSampler
    from optuna.study import Study
    from optuna.trial import FrozenTrial, TrialState

    from onnxprune.pipeline.search.pareto import dominated_by, is_feasible

    class Evolution(BaseSampler):
        """A sampler of optuna; what it knows is in the study."""

        def __init__(self) -> None:
            self._random = np.random.default_rng(seed)
            self._first = RandomSampler(seed=seed)

        def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:  # noqa: ARG002
            return {}

        def sample_relative(self, study: Study, trial: FrozenTrial, search_space: object) -> dict[str, object]:  # noqa: ARG002
            return {}

        def before_trial(self, study: Study, trial: FrozenTrial) -> None:  # noqa: ARG002
            """Choose the parent, and which of its parameters change: each with even chance, and one at least."""
            done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
            done = [each for each in done if is_feasible(each)] or done
            self._parent: dict[str, object] = {}
            self._moving: set[str] = set()
            if len(done) < _AT_RANDOM:
                return
            costs = [tuple(_costs(study, each)) for each in done]
            ranks = [dominated_by(each, costs) for each in costs]
            drawn = self._random.choice(len(done), size=min(_DRAWN, len(done)), replace=False)
            self._parent = dict(done[min(drawn, key=lambda at: (ranks[at], -at))].params)
            names = sorted(self._parent)
            self._moving = {name for name in names if self._random.random() < 0.5}
            self._moving |= {names[int(self._random.integers(len(names)))]}

        def sample_independent(
            self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
        ) -> object:
            """The value of the parent, or one near it."""
            value = self._parent.get(param_name)
            if value is None or not param_distribution._contains(param_distribution.to_internal_repr(value)):
                return self._first.sample_independent(study, trial, param_name, param_distribution)
            if param_name not in self._moving:
                return value
            if isinstance(param_distribution, CategoricalDistribution):
                return self._first.sample_independent(study, trial, param_name, param_distribution)
            return _near(value, param_distribution, self._random)

    return Evolution()


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
