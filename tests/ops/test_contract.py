"""Every rule has a sample: a rule that the oracle cannot see is a red build.

Samples stand beside the rule or in a test file here; those beside a rule are run by this file.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest

from onnxprune.dims import concat
from onnxprune.ops.base import RULES, Op
from tests.rule_oracle import (
    PRIMES,
    SAMPLES,
    Build,
    Case,
    Form,
    SampleDraw,
    beside_a_rule,
    case,
    check,
    declared,
    forms,
    in_tests,
    oracle_of,
)

# Bodies are walked with the rest of the graph, see tests/test_traps.py and tests/test_control_flow.py.
IN_WHOLE_GRAPHS = {("", "If"), ("", "Loop"), ("", "Scan")}


@pytest.fixture(autouse=True)
def everything_is_loaded() -> None:
    for file in sorted(Path(__file__).parent.glob("test_*.py")):
        importlib.import_module(f"{__package__}.{file.stem}")


def test_every_rule_has_a_sample() -> None:
    missing = sorted(".".join(filter(None, key)) for key in set(RULES) - set(SAMPLES) - IN_WHOLE_GRAPHS)
    assert not missing, f"rules without a sample beside them or in tests/ops: {', '.join(missing)}"


def test_every_sample_has_a_rule() -> None:
    """A sample of an operator without a rule would pass unseen: nothing of it can be pruned."""
    sampled = {key for key, samples in SAMPLES.items() for each in samples if in_tests(each) or beside_a_rule(each)}
    assert not sampled - set(RULES)


RULES.names()  # samples beside rules are declared now
test_rule = oracle_of(forms(beside_a_rule))


def _transpose(op: Op) -> None:
    """Inverts the permutation."""
    perm = op.attr("perm")
    op.same_all(op.y[0], [op.x[0][perm.index(axis)] for axis in range(len(perm))])


def _concat(op: Op) -> None:
    """Takes the parts in the wrong order."""
    op.same(op.y[0][0], concat(op.x[1][0], op.x[0][0]))
    op.free(op.x[0][0], op.x[1][0])


def _softmax(op: Op) -> None:
    """Lets go of what competes."""
    op.same_all(op.y[0], op.x[0])


def _gemm(op: Op) -> None:
    """Freezes everything."""


def _square(d: SampleDraw) -> Case:
    (n,) = d.sizes(1)
    return case(a=d.normal(n, n), b=d.normal(n, n))


def _pair(d: SampleDraw) -> Case:
    (n,) = d.sizes(1)
    return case(a=d.normal(n), b=d.normal(n), axis=0)


def _permuted(d: SampleDraw) -> Case:
    (n,) = d.sizes(1)
    return case(a=d.normal(n, n, n), perm=[1, 2, 0])


@pytest.mark.parametrize(
    ("name", "rule", "build"),
    [
        ("Transpose", _transpose, _permuted),
        ("Concat", _concat, _pair),
        ("Softmax", _softmax, lambda d: case(a=d.normal(*d.sizes(2)))),
        ("Gemm", _gemm, _square),
    ],
)
def test_a_broken_rule_is_caught(name: str, rule: Callable[[Op], None], build: Build) -> None:
    """Of equal sizes, so that nothing but the values can tell; and a rule that freezes everything is not a rule."""
    form = Form(declared(("", name), build, prunable="a[0]"), opset=13)
    with mock.patch.dict(RULES._members, {("", name): rule}), pytest.raises(AssertionError):
        _check_five_times(form)


def _check_five_times(form: Form) -> None:
    for seed in range(5):
        check(form, SampleDraw(PRIMES, seed))
