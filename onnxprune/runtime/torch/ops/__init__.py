"""Operators in torch, one file per family: each is a function of its node and its inputs, found in one table.

Every file of this package, and every plug-in of the entry point group `onnxprune.runtime.torch_ops`, adds to the
table of `base`.
"""

from __future__ import annotations

from onnxprune.ops.base import Key
from onnxprune.runtime.torch.ops.base import TABLE, TorchOperator


def find_operator(key: Key) -> TorchOperator | None:
    """How torch computes an operator, None when it is not in the table."""
    return TABLE.get(key)


def known() -> list[Key]:
    """(domain, operator) of everything in the table, sorted."""
    return TABLE.names()
