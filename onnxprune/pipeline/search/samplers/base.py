"""A sampler: a function that makes one of optuna's for a seed; and samplers that decide number by number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from onnxprune.support.registry import Registry, summary

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.study import Study
    from optuna.trial import FrozenTrial

# From a seed and how many trials there are to be. It is made anew for every trial, with a seed of the trial's own, so
# that a search that was interrupted goes on as if it had not been: what it knows is in the storage.
MakeSampler = Callable[[int, int], "BaseSampler"]


@dataclass(frozen=True)
class Sampler:
    """A registered sampler.

    Attributes:
        name: what the command line calls it.
        make: see `MakeSampler`.
    """

    name: str
    make: MakeSampler

    @property
    def summary(self) -> str:
        """The first line of the function's docstring."""
        return summary(self.make)


samplers: Registry[str, Sampler] = Registry("sampler", __package__, "onnxprune.samplers")


def sampler(name: str) -> Callable[[MakeSampler], MakeSampler]:
    """Decorator: make a function known as sampler `name`. Raises ValueError when the name is taken."""

    def add(make: MakeSampler) -> MakeSampler:
        samplers.register(name)(Sampler(name, make))
        return make

    return add


# The answer of a `Chooser` that leaves a number to chance.
AT_RANDOM = object()


class Chooser(Protocol):
    """A sampler at work: it decides the numbers of a trial."""

    def begin(self, study: Any) -> None:
        """A trial begins; the study has those before it."""

    def value(self, name: str, distribution: Any) -> object:
        """The number that a parameter gets, within its distribution, or AT_RANDOM."""


def number_by_number(chooser: Chooser, seed: int) -> BaseSampler:
    """A sampler of optuna that asks `chooser` for every number, and draws those that it leaves to chance."""
    from optuna.samplers import BaseSampler, RandomSampler

    class NumberByNumber(BaseSampler):
        """A sampler of optuna; what it knows is in the study."""

        def __init__(self) -> None:
            self._random = RandomSampler(seed=seed)

        def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:  # noqa: ARG002
            return {}

        def sample_relative(self, study: Study, trial: FrozenTrial, search_space: object) -> dict[str, object]:  # noqa: ARG002
            return {}

        def before_trial(self, study: Study, trial: FrozenTrial) -> None:  # noqa: ARG002
            chooser.begin(study)

        def sample_independent(
            self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
        ) -> object:
            value = chooser.value(param_name, param_distribution)
            if value is not AT_RANDOM:
                return value
            return self._random.sample_independent(study, trial, param_name, param_distribution)

    return NumberByNumber()
