"""The methods of recovery by name. Each is a pass in a file of its own, which registers itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

import onnx_ir as ir

from onnxprune.passes.base import PassResult
from onnxprune.steps.recover.layerwise import LayerError
from onnxprune.support.registry import Registry, summary


class RecoveryPass(Protocol):
    """A pass on the pruned model of a pairing that notes the error of each layer."""

    @property
    def errors(self) -> list[LayerError]:
        """How far each layer is off, before and after."""

    def __call__(self, model: ir.Model) -> PassResult:
        """Apply in place."""


Make = TypeVar("Make", bound=Callable[..., RecoveryPass])


@dataclass(frozen=True)
class Method:
    """A way to recover.

    Attributes:
        name: what the command line calls it.
        make: the pass; called with pairing, feeds, seed, providers and progress, without data with the pairing only.
        on_data: does it need inputs?
        compensates: are weights that stay changed to make up for those that went, as criteria like obs count on?
    """

    name: str
    make: Callable[..., RecoveryPass]
    on_data: bool = True
    compensates: bool = False

    @property
    def summary(self) -> str:
        """The first line of the pass's docstring."""
        return summary(self.make)


METHODS: Registry[str, Method] = Registry("recovery", __package__, "onnxprune.recovery")


def recovery(name: str, *, on_data: bool = True, compensates: bool = False) -> Callable[[Make], Make]:
    """Decorator: make a pass known as the recovery `name`; see Method. Raises ValueError when the name is taken."""

    def add(make: Make) -> Make:
        METHODS.register(name)(Method(name, make, on_data, compensates))
        return make

    return add
