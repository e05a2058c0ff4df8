"""Drop what no output depends on."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from onnxprune.model import graph as graphs
from onnxprune.passes.base import PassResult


@dataclass(frozen=True)
class RemoveDead:
    """Remove operators that no graph output depends on, and weights that nothing reads.

    Before:  x ── Conv ── y (output)        After:  x ── Conv ── y (output)
             └── Relu ── (unread)
    """

    def __call__(self, model: ir.Model) -> PassResult:
        """Apply in place; a second time changes nothing."""
        graph = graphs.view(model)
        dead = graphs.dead(graph)
        operators = [graph.nodes[name]["node"] for name in dead if graph.nodes[name]["kind"] == "operator"]
        model.graph.remove(operators, safe=False)
        weights = [
            value
            for value in model.graph.initializers.values()
            if f"weight/{value.name}" in dead and not value.is_graph_input()
        ]
        for value in weights:
            del model.graph.initializers[value.name or ""]
        return PassResult(model, bool(operators or weights))
