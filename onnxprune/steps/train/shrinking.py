"""Proximal steps: the nearest weights that a penalty finds cheap enough. They end in exact zeros.

A penalty with a proximal step is no term of the loss. After each step of the optimizer weights w become

    argmin over x of 1/2 |x - w|^2 + rate * strength * penalty(x)

(Parikh and Boyd 2014, "Proximal Algorithms", sections 4.2 and 6.5), so weights that are not worth their price are
zero and not just small.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from onnxprune.steps.train.units import UnitGroup


def soft_threshold(weight: Tensor, amount: float | Tensor) -> Tensor:
    """That of amount * |x|: every entry so much nearer to zero, and zero where it was nearer than that."""
    return weight.sign() * (weight.abs() - amount).clamp(min=0)


def as_matrices(weight: Tensor, filters: int | None) -> Tensor:
    """A kernel as filters x the rest, `filters` being their axis; other weights as they are: [..., rows, columns]."""
    return weight if filters is None else weight.movedim(filters, 0).flatten(1)


def shrink_units(group: UnitGroup, weights: Mapping[str, Tensor], amount: float) -> None:
    """That of amount * sum over units of sqrt(entries) * |all weights of the unit|, in place (Yuan and Lin 2006).

    A weight between two groups belongs to a unit of each: it is shrunk by one after the other.
    """
    sizes = group.squares(weights).sqrt()
    prices = amount * group.entries(weights).sqrt()
    group.scale(weights, (1 - prices / sizes.clamp(min=1e-30)).clamp(min=0))
