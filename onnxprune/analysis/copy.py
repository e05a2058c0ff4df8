"""Copies of analysed models: the model is another one, weights and dimensions are shared."""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir

from onnxprune.analysis.groups import Analysis, Group
from onnxprune.ops.findings import Findings


def copy_model(model: ir.Model) -> ir.Model:
    """A model with nodes and values of its own; the tensors of its weights are shared, for nothing changes a tensor."""
    copy = model.clone()
    copy.meta.update(model.meta, from_file=False)
    return copy


def copy_analysis(analysis: Analysis) -> Analysis:
    """The analysis of a copy of the model. Atoms are those of the original, so masks of units hold for both."""
    model = copy_model(analysis.model)
    nodes = dict(zip(_nodes(analysis.model), _nodes(model), strict=True))
    found = analysis.findings
    findings = Findings(
        size_refs=[replace(each, node=nodes[each.node]) for each in found.size_refs],
        index_refs=[replace(each, node=nodes[each.node]) for each in found.index_refs],
        contractions=[replace(each, node=nodes[each.node]) for each in found.contractions],
        pinned=[replace(each, node=nodes[each.node]) for each in found.pinned],
        tags=[(tag, dim, nodes[node]) for tag, dim, node in found.tags],
    )
    shapes = replace(
        analysis.shapes,
        shapes=dict(analysis.shapes.shapes),
        known=dict(analysis.shapes.known),
        dtypes=dict(analysis.shapes.dtypes),
        dynamic=set(analysis.shapes.dynamic),
    )
    groups = [_copy_group(group) for group in analysis.groups]
    return replace(
        analysis,
        model=model,
        shapes=shapes,
        dims=dict(analysis.dims),
        groups=groups,
        findings=findings,
        activations=set(analysis.activations),
    )


def _copy_group(group: Group) -> Group:
    return replace(group, occurrences=list(group.occurrences))


def _nodes(model: ir.Model) -> list[ir.Node]:
    """All nodes, those in bodies included, in an order that copies share."""
    return list(ir.traversal.RecursiveGraphIterator(model.graph))
