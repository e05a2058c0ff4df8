"""Every rule has a sample: a rule that the oracle cannot see is a red build."""

from __future__ import annotations

import importlib
from pathlib import Path

import onnxprune.ops
from onnxprune.ops.base import RULES
from tests.rule_oracle import SAMPLES


# A choice is no node of its own: its branches are walked with the rest of the graph, see tests/test_traps.py.
IN_WHOLE_GRAPHS = {("", "If")}


def test_every_rule_has_a_sample() -> None:
    for file in sorted(Path(__file__).parent.glob("test_*.py")):
        importlib.import_module(f"{__package__}.{file.stem}")
    onnxprune.ops.find_rule(("", "Conv"))  # fills the tables
    missing = sorted(".".join(filter(None, key)) for key in RULES.keys() - SAMPLES.keys() - IN_WHOLE_GRAPHS)
    assert not missing, f"rules without a sample in tests/ops: {', '.join(missing)}"


def test_every_sample_has_a_rule() -> None:
    """A sample of an operator without a rule would pass unseen: nothing of it can be pruned."""
    onnxprune.ops.find_rule(("", "Conv"))
    assert not SAMPLES.keys() - RULES.keys()
