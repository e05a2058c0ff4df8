"""Drop what exporters wrote about their author's machine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from onnxprune.analysis.names import SCOPES
from onnxprune.passes.base import PassResult


@dataclass(frozen=True)
class StripMetadata:
    """Clear doc strings and metadata of nodes and inner values: stack traces with local paths, in dynamo exports.

    The model's own metadata (labels, licences) and the descriptions of inputs and outputs stay, and so do the names of
    the modules that nodes come from: groups are called after those.

    Before:  Conv {pkg.torch.onnx.stack_trace: 'File "/home/ann/net.py", line 7'}     After:  Conv
    """

    def __call__(self, model: ir.Model) -> PassResult:
        """Apply in place; a second time changes nothing."""
        found = list(annotated(model))
        for item in found:
            for key in _notes(item):
                del item.metadata_props[key]
            if isinstance(item, ir.Node):
                item.doc_string = None
        return PassResult(model, bool(found))


def annotated(model: ir.Model) -> Iterator[ir.Node | ir.Value]:
    """The nodes and inner values that carry metadata, other than the names of modules, or doc strings."""
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        if _notes(node) or node.doc_string:
            yield node
        for value in node.outputs:
            if _notes(value) and not value.is_graph_output():
                yield value
    for value in model.graph.initializers.values():
        if _notes(value):
            yield value


def _notes(item: ir.Node | ir.Value) -> list[str]:
    return [key for key in item.metadata_props if key != SCOPES]
