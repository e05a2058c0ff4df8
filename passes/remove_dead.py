"""Drop what no output depends on."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from onnxprune.model.graph import remove_dead
from onnxprune.passes.base import PassResult


@dataclass(frozen=True)
class RemoveDead:
    """Remove operators that no graph output depends on, and weights that nothing reads.

    Before:  x ── Conv ── y (output)        After:  x ── Conv ── y (output)
             └── Relu ── (unread)
    """

    def __call__(self, model: ir.Model) -> PassResult:
        """Apply in place; a second time changes nothing."""
        return PassResult(model, remove_dead(model))
