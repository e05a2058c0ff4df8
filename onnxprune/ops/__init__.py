"""Operator families: per operator its axis rule, the constants that name sizes, and its cost, side by side.

Every file of this package, and every plug-in of the entry point group `onnxprune.ops`, adds to the tables of `base`
and `matmul_view`.
"""

from __future__ import annotations

from onnxprune.ops.base import COSTS, EVALUATORS, RULES, SHAPES, Cost, Evaluator, Key, Rule, ShapeRule
from onnxprune.ops.matmul_view import FORMS, MakeForm


def find_rule(key: Key) -> Rule | None:
    """The axis rule of an operator, None when there is none."""
    return RULES.get(key)


def find_evaluator(key: Key) -> Evaluator | None:
    """How to compute an operator on small constants, None when it is not in the table."""
    return EVALUATORS.get(key)


def find_cost(key: Key) -> Cost | None:
    """The multiply-accumulate count of an operator, None when it has none to speak of."""
    return COSTS.get(key)


def find_shape_rule(key: Key) -> ShapeRule | None:
    """The shapes of an operator's outputs where onnx cannot infer them, None when it is not in the table."""
    return SHAPES.get(key)


def find_form(key: Key) -> MakeForm | None:
    """How an operator is a matrix product of an activation and a weight, None when it is not in the table."""
    return FORMS.get(key)
