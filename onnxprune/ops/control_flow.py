"""Control flow: a choice between branches. Loop and Scan have no rule, so what they read and write keeps its size."""

from __future__ import annotations

from onnxprune.ops.base import Op, RefuseError, rule


@rule("If")
def choice(op: Op) -> None:
    """Output k is output k of either branch; the branches themselves are walked like the rest of the graph."""
    op.free(*op.x[0])
    for outputs in op.branches:
        for y, chosen in zip(op.y, outputs, strict=True):
            if len(y) != len(chosen):
                raise RefuseError("the branches differ in rank")
            op.same_all(y, chosen)
