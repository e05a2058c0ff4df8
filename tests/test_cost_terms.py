"""Costs as a sum of terms: the same numbers as from looking at the whole model, whatever is asked in which order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onnxprune.analysis import cost
from onnxprune.analysis.cost_model import CostTerms
from onnxprune.dims import Atom
from onnxprune.pipeline.run import inspect


@pytest.mark.parametrize("name", ["resnet", "transformer", "lstm"])
def test_equal_to_the_whole_model(digits: dict[str, Path], name: str) -> None:
    analysis, rng = inspect(digits[name]), np.random.default_rng(0)
    terms = CostTerms(analysis)
    assert terms.measure({}) == cost.measure(analysis)
    for _ in range(5):
        kept = {group.atom: int(rng.integers(1, group.units + 1)) for group in analysis.groups}
        assert terms.measure(kept) == cost.measure(analysis, kept)
        for group in analysis.groups:
            count = int(rng.integers(1, group.units + 1))
            after = {**kept, group.atom: count}
            now, then = cost.measure(analysis, kept), cost.measure(analysis, after)
            due = now.parameters - then.parameters, now.macs - then.macs, now.weight_bytes - then.weight_bytes
            assert terms.saved(kept, group.atom, count) == due


def test_neighbours_are_the_groups_that_change_what_a_unit_saves(digits: dict[str, Path]) -> None:
    analysis = inspect(digits["transformer"])
    terms = CostTerms(analysis)

    def saved(atom: Atom, other: Atom) -> tuple[int, int, int]:
        return terms.saved({other: other.size - 1} if other is not atom else {}, atom, atom.size - 1)

    for group in analysis.groups:
        whole = saved(group.atom, group.atom)
        for other in analysis.groups:
            if other is not group and saved(group.atom, other.atom) != whole:
                assert other.atom in terms.neighbours(group.atom)
