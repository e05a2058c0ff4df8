"""Discrete Fourier transforms: every entry along the transformed axis reads all of them; other axes pass through."""

from __future__ import annotations

from onnxprune.ops.base import Op, RefuseError, rule


@rule("DFT")
def dft(op: Op) -> None:
    """X [..., 1 or 2] -> y [..., 2]: the last axis holds real and imaginary parts."""
    x, y = op.x[0], op.y[0]
    given = op.const(2) if op.opset >= 20 else op.const("axis")
    if given is None and op.has(2):
        raise RefuseError("an axis that is computed")
    transformed = (int(given.item()) if given is not None else -2 if op.opset >= 20 else 1) % len(x)
    for axis in range(len(x) - 1):
        if axis == transformed:
            op.freeze(x[axis], "a Fourier transform runs over it")
            op.freeze(y[axis], "a Fourier transform runs over it")
        else:
            op.same(y[axis], x[axis])
