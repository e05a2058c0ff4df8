"""The graph of a model as a file for other tools, with the dimensions of every tensor on its edges."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from onnxprune.analysis.groups import Analysis
from onnxprune.dims import describe
from onnxprune.errors import UsageError
from onnxprune.model.graph import exportable
from onnxprune.support.files import check_target, staged_text

if TYPE_CHECKING:
    import networkx as nx


def _graphml(graph: nx.DiGraph) -> str:
    import networkx as nx

    return "\n".join(nx.generate_graphml(graph)) + "\n"


def _json(graph: nx.DiGraph) -> str:
    """The form that `networkx.node_link_graph(data, edges="edges")` reads; its own writer differs by version."""
    nodes = [{"id": name, **attributes} for name, attributes in graph.nodes(data=True)]
    edges = [{"source": start, "target": end, **attributes} for start, end, attributes in graph.edges(data=True)]
    data = {"directed": True, "multigraph": False, "graph": {}, "nodes": nodes, "edges": edges}
    return json.dumps(data, indent=1) + "\n"


_WRITERS: dict[str, Callable[[nx.DiGraph], str]] = {".graphml": _graphml, ".json": _json}


def check_graph_file(path: Path, *models: Path) -> None:
    """Raises UsageError when no graph can be written to `path`: an unknown suffix, a folder, the model itself."""
    if path.suffix not in _WRITERS:
        raise UsageError(f"--graph {path} must end in .graphml (GraphML) or .json (networkx node-link data)")
    check_target(path, *models)


def write_graph(analysis: Analysis, path: Path) -> None:
    """Write the networkx view as GraphML (`.graphml`) or node-link data (`.json`); atomic.

    Raises UsageError for another suffix, ModelError when the file cannot be written.
    """
    check_graph_file(path, *analysis.model.meta["files"])
    names = analysis.names()
    edges = {
        tensor: {
            "shape": list(analysis.shapes.shapes[tensor]),
            "dims": f"[{', '.join(describe(dim, names) for dim in dims)}]",
        }
        for tensor, dims in analysis.dims.items()
    }
    text = _WRITERS[path.suffix](exportable(analysis.graph, edges))
    with staged_text(text, path):
        pass
