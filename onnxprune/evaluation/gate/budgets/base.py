"""The parts that a budget is written with.

A function gets the limit and the model, and raises OnnxpruneError where it cannot tell; that is never a pass:

    @budget("max-nodes", number(low=1), written="100", sample=(1000, 1), plain=True)
    def max_nodes(limit, model):
        return Finding(len(model.nodes) <= limit, ...)

The option, its help, the key in a configuration and the row in docs/gate.md are made from that. Heavy modules are
imported inside the functions, for `onnxprune gate --help` reads these files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from onnxprune.errors import UsageError
from onnxprune.support.registry import Registry, summary

if TYPE_CHECKING:
    from onnxprune.evaluation.gate.baseline import BaselineEntry
    from onnxprune.evaluation.gate.subject import Subject


@dataclass(frozen=True)
class Finding:
    """The finding of a budget.

    Attributes:
        holds: whether the model keeps it.
        found: the number, or the operators that are not allowed.
        shown: the same for people.
        limit: what was allowed, for people.
        note: what else is worth knowing.
    """

    holds: bool
    found: float | list[str]
    shown: str
    limit: str
    note: str = ""


Check = Callable[[Any, "Subject"], Finding]


@dataclass(frozen=True)
class Budget:
    """A registered budget; called with a limit and a model it gives a finding.

    Attributes:
        name: the option without dashes in front.
        check: the function itself.
        read: the limit from what a person has given. Raises ValueError with what is expected.
        written: how people write limits: examples, or words.
        plain: the limit is a plain number.
        several: the option may be given several times; the limits are then joined with commas.
        sample: for the contract tests a limit that a small network keeps, and one that it does not. The network is
            right in 94% of its answers, and the baseline is one that is right in 99%.
    """

    name: str
    check: Check
    read: Callable[[Any], Any]
    written: str
    sample: tuple[Any, Any]
    plain: bool = False
    several: bool = False

    def __call__(self, limit: Any, model: Subject) -> Finding:
        """Check one model."""
        return self.check(limit, model)

    @property
    def summary(self) -> str:
        """The first line of the function's docstring."""
        return summary(self.check)


BUDGETS: Registry[str, Budget] = Registry("budget", __package__, "onnxprune.gate")


class NoBaselineError(UsageError):
    """There is nothing to compare with; --update-baseline is about to change that."""


def budget(
    name: str,
    read: Callable[[Any], Any],
    *,
    written: str,
    sample: tuple[Any, Any],
    plain: bool = False,
    several: bool = False,
) -> Callable[[Check], Check]:
    """Decorator: the function checks the budget that option `--name` sets; see Budget.

    Raises ValueError when the name is taken.
    """

    def add(check: Check) -> Check:
        BUDGETS.register(name)(Budget(name, check, read, written, sample, plain, several))
        return check

    return add


def baseline_of(model: Subject) -> Subject | BaselineEntry:
    """The reference of the model. Raises NoBaselineError where there is nothing."""
    if model.baseline is None:
        raise NoBaselineError("there is nothing to compare with: give --baseline, a model or a file of numbers")
    return model.baseline
