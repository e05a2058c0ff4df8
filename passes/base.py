"""The base of every pass: `Model -> PassResult`, and the same thing again changes nothing.

A pass that can be asked for by name is a clean-up: it leaves the outputs of a model as they are.

    @clean_up("skip-identity", nodes=True, sample="net (float[2] x) => (float[2] y) { h = Identity(x)  y = Relu(h) }")
    @dataclass(frozen=True)
    class SkipIdentity: ...
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import onnx_ir as ir

from onnxprune.support.registry import Registry, summary


@dataclass(frozen=True)
class PassResult:
    """The result of a pass. `model` is the object that was given, changed in place; `modified=False`: it is equal."""

    model: ir.Model
    modified: bool
    notes: list[str] = field(default_factory=list)


class Pass(Protocol):
    """A frozen dataclass whose fields are its options."""

    def __call__(self, model: ir.Model) -> PassResult:
        """Apply the pass in place."""


@dataclass(frozen=True)
class CleanUp:
    """A pass that can be asked for by name.

    Attributes:
        name: what the command line calls it.
        make: the pass, without arguments.
        nodes: it removes or adds nodes. Those come first: the others see what is left.
        sample: a graph in ONNX's textual syntax, with something to do for the pass. What the graph declares in its
            <...> and no node computes is a weight of normal numbers.
    """

    name: str
    make: Callable[[], Pass]
    nodes: bool
    sample: str

    @property
    def summary(self) -> str:
        """The first line of the pass's docstring."""
        return summary(self.make)


CLEAN_UPS: Registry[str, CleanUp] = Registry("clean-up", __package__, "onnxprune.passes")
Make = TypeVar("Make", bound=Callable[[], Pass])


def clean_up(name: str, *, sample: str, nodes: bool = False) -> Callable[[Make], Make]:
    """Decorator: make a pass known as clean-up `name`; see CleanUp. Raises ValueError when the name is taken."""

    def add(make: Make) -> Make:
        CLEAN_UPS.register(name)(CleanUp(name, make, nodes, sample))
        return make

    return add


def in_order(names: set[str]) -> list[CleanUp]:
    """The named clean-ups in the order in which they are applied.

    Raises UsageError for a name that is not known.
    """
    return sorted((CLEAN_UPS[name] for name in sorted(names)), key=lambda found: not found.nodes)
