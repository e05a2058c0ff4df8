"""Equal weights are stored once."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import onnx_ir as ir

from onnxprune.passes.base import PassResult

_SMALL = 1 << 20


@dataclass(frozen=True)
class ShareInitializers:
    """Merge initializers of equal type, shape and content of up to a megabyte: the reverse of the copies that
    passes.Canonicalize made, for those that are still equal after removal. `onnx_ir.passes.common` has the same, but
    reads every weight, where here only those are read of which another has the type and shape.

    Before:  zeros ── Conv a, zeros/1 ── Conv b       After:  zeros ── Conv a, Conv b
    """

    def __call__(self, model: ir.Model) -> PassResult:
        """Apply in place; a second time changes nothing."""
        alike: dict[tuple[object, ...], list[ir.Value]] = {}
        for value in model.graph.initializers.values():
            tensor = value.const_value
            if tensor is None or tensor.nbytes > _SMALL or value.is_graph_input() or value.is_graph_output():
                continue
            if tensor.dtype != ir.DataType.STRING:
                alike.setdefault((tensor.dtype, tuple(tensor.shape.numpy())), []).append(value)
        merged = [_merge(model.graph, values) for values in alike.values() if len(values) > 1]
        return PassResult(model, any(merged))


def _merge(graph: ir.Graph, values: list[ir.Value]) -> bool:
    """Keep the first of each content; were there equal ones?"""
    first: dict[bytes, ir.Value] = {}
    for value in values:
        assert value.const_value is not None
        digest = hashlib.blake2b(value.const_value.tobytes(), digest_size=16).digest()
        kept = first.setdefault(digest, value)
        if kept is not value:
            ir.convenience.replace_all_uses_with(value, kept)
            del graph.initializers[value.name or ""]
    return len(first) < len(values)
