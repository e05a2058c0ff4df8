"""What a sampler is: a function that makes one of optuna's for a seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnxprune.support.registry import Registry, summary

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

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
