"""Combinations of criteria, as `--criterion "taylor1*0.7+lda*0.3"` writes them.

    combination := ["+" | "-"] term {("+" | "-") term}
    term        := NAME ["*" NUMBER]

Spaces may be between the parts. Names may hold dashes, so a minus between two names needs spaces: `l1 - random`.

Criteria differ in scale and in how their scores are spread, so ranks are added: within each group the weakest unit of a
criterion has 0, the strongest 1, equal ones share the mean of their places. Minus turns a ranking round.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

from onnxprune.analysis.groups import Group
from onnxprune.errors import UsageError
from onnxprune.steps.prune.criteria.base import NEEDS, Criterion, Scores, ScoringContext, criteria
from onnxprune.support.registry import imported_function

_SIGN = re.compile(r"\s*([+-]?)\s*")
_NAME = re.compile(r"[A-Za-z]\w*(-[A-Za-z]\w*)*")
_TIMES = re.compile(r"\s*\*\s*")
_NUMBER = re.compile(r"\d+(\.\d*)?|\.\d+")
_END = re.compile(r"\s*$")


def resolve_criterion(expression: str | Callable[..., Any]) -> Criterion:
    """The criterion that a name, a combination, a function of the user or `module:function` represents.

    A function is called as the registered ones are, with a group and a ScoringContext, and returns float64 [units].
    Raises UsageError for a name that is unknown and for what is not a combination, with the position.
    """
    if not isinstance(expression, str):
        return _of_user(getattr(expression, "__name__", "function"), expression)
    if ":" in expression:
        return _of_user(expression, imported_function(expression))
    if _NAME.fullmatch(expression.strip()):
        return _known(expression.strip())
    terms = [(weight, _known(name)) for weight, name in parse_expression(expression)]
    parts = list(dict.fromkeys(part for _, part in terms))

    def score(group: Group, context: ScoringContext) -> Scores:
        """Weighted sum of the ranks that several criteria give."""
        return np.asarray(sum(weight * ranks(part(group, context)) for weight, part in terms))

    return Criterion(
        name=expression,
        score=score,
        needs=tuple(need for need in NEEDS if any(need in part.needs for part in parts)),
        cost="; ".join(dict.fromkeys(part.cost for part in parts)),
        source="; ".join(part.source for part in parts),
        comparable=True,
    )


def _of_user(name: str, function: Callable[..., Any]) -> Criterion:
    return Criterion(name, function, ("weights",), "as it is written", "a function of the user", False)


def ranks(scores: Scores) -> Scores:
    """The place of each unit among the others, from 0 (weakest) to 1 (strongest); equal scores share theirs."""
    _, place, count = np.unique(scores, return_inverse=True, return_counts=True)
    middle = np.cumsum(count) - (count + 1) / 2
    return np.asarray(middle[place] / max(1, len(scores) - 1))


def parse_expression(expression: str) -> list[tuple[float, str]]:
    """Weight and name of each term. Raises UsageError with the position of what does not belong."""
    terms: list[tuple[float, str]] = []
    at = 0
    while not (terms and _END.match(expression, at)):
        sign = _SIGN.match(expression, at)
        assert sign is not None  # it matches nothing, too
        if terms and not sign[1]:
            _fail(expression, sign.end(), "+ or -")
        name = _NAME.match(expression, sign.end())
        if name is None:
            _fail(expression, sign.end(), "the name of a criterion")
        at, weight = name.end(), 1.0
        if times := _TIMES.match(expression, at):
            number = _NUMBER.match(expression, times.end())
            if number is None:
                _fail(expression, times.end(), "a number")
            at, weight = number.end(), float(number[0])
        terms.append((-weight if sign[1] == "-" else weight, name[0]))
    return terms


def _known(name: str) -> Criterion:
    start = name.partition("-")[0]
    if start != name and name not in criteria.names() and start in criteria.names():
        raise UsageError(f"unknown criterion '{name}'; if the dash is a minus, put spaces around it")
    return criteria[name]


def _fail(expression: str, at: int, expected: str) -> NoReturn:
    found = f"found '{expression[at:]}'" if expression[at:] else "but it ends there"
    raise UsageError(
        f"criterion '{expression}': expected {expected} at position {at + 1}, {found}; "
        "a combination looks like l2*0.7+random*0.3"
    )
