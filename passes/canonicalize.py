"""One form of each thing, so that the analysis sees few forms and numbers that depended on sizes are fixed."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from onnxprune.analysis.canonicalize import canonicalize
from onnxprune.analysis.shapes import Observe
from onnxprune.passes.base import PassResult


@dataclass(frozen=True)
class Canonicalize:
    """Inline functions, lift constants to initializers, fold what follows from static shapes, give tied fillers copies.

    Before:  x ── Shape ── Gather(2) ── Cast ── Sqrt ── Div(q, ·)          zeros ── Conv a
             x ── Shape ── Gather(0) ── Concat(·, 12, 64) ── Reshape            └── Conv b
    After:   Div(q, 8.0)                                                    zeros ── Conv a
             x ── Shape ── Gather(0) ── Concat(·, 12, 64) ── Reshape        zeros/1 ── Conv b

    What is folded keeps the value that it had in the original: an attention scale computed from a head size does not
    change when heads shrink. Exporters deduplicate equal initializers, so constant fillers (all zeros, all ones) that
    have several readers get a copy per reader; passes.ShareInitializers merges them again. A weight with a content of
    its own that has several readers is a deliberate tie and stays one.

    `observe` is asked for shapes that depend on data, see shapes.infer.
    """

    observe: Observe | None = None

    def __call__(self, model: ir.Model) -> PassResult:
        """Apply in place; a second time changes nothing."""
        modified, _ = canonicalize(model, self.observe)
        return PassResult(model, modified)
