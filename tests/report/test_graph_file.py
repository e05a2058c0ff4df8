"""The graph as a file: what other tools read is what the analysis walked."""

from __future__ import annotations

import json
from pathlib import Path

import networkx as nx
import pytest

from onnxprune.errors import UsageError
from onnxprune.pipeline import run as pipeline
from onnxprune.report.graph_file import write_graph


def test_both_formats_hold_the_same_graph(digits: dict[str, Path], tmp_path: Path) -> None:
    analysis = pipeline.inspect(digits["lstm"])
    for suffix in ("graphml", "json"):
        write_graph(analysis, tmp_path / f"graph.{suffix}")
    graphml = nx.read_graphml(tmp_path / "graph.graphml")
    node_link = nx.node_link_graph(json.loads((tmp_path / "graph.json").read_text()), edges="edges")
    assert dict(graphml.nodes(data=True)) == dict(node_link.nodes(data=True))
    assert {edge[:2]: edge[2] for edge in graphml.edges(data=True)} == {e[:2]: e[2] for e in node_link.edges(data=True)}
    assert set(graphml.edges) == set(analysis.graph.edges)
    assert nx.is_directed_acyclic_graph(graphml)


def test_dimensions_of_an_edge(digits: dict[str, Path], tmp_path: Path) -> None:
    write_graph(pipeline.inspect(digits["resnet"]), tmp_path / "graph.graphml")
    edge = nx.read_graphml(tmp_path / "graph.graphml").edges["weight/stem.0.weight", "/stem/stem.0/Conv"]
    assert edge == {
        "tensors": "stem.0.weight", "shapes": "[16, 1, 3, 3]", "dims": "[stem.0:16, 1, 3, 3]",
    }  # fmt: skip


def test_other_suffixes_are_refused(digits: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"must end in \.graphml"):
        write_graph(pipeline.inspect(digits["lstm"]), tmp_path / "graph.dot")
    assert not list(tmp_path.iterdir())
