"""Names that people know: of a layer as its module is called (`layer1.0.conv1`), of a group as the layer that makes it.

A file names a layer in several ways: by its node, by its weights, by the bias behind it and, in exports by torch's
dynamo, by scopes in the node's metadata. Exporters invent some of these (`onnx::Conv_626`, `val_12`, `node_conv2d_3`);
the best of the others is taken.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator, Set
from itertools import pairwise

import onnx_ir as ir

from onnxprune.analysis.groups import Analysis
from onnxprune.dims import Atom, atoms, resolve
from onnxprune.model.graph import subgraphs
from onnxprune.model.weights import is_weight
from onnxprune.ops.traits import adds, look_ups

SCOPES = "pkg.torch.onnx.name_scopes"

TORCH_NAME = re.compile(r"[A-Za-z_]\w*(\.\w+)*")
_INVENTED = re.compile(r"\d+|val_\d+|Parameter\d+|.*::.*")
# How layers call their own parameters: weight, in_proj_weight, weight_ih_l0, parametrizations.weight.original0, w_0.
_ROLE = re.compile(
    r"[._](parametrizations\.)?(weight|bias|kernel|[wb]_0)(_bias|_[gv]|_[ih]h_l\d+(_reverse)?|\.original\d)?$"
)
_ADDED_BY_TENSORFLOW = re.compile(r"((Stateful)?PartitionedCall/)*((model|functional|sequential)(_\d+)?/)?")
# Several groups of these kinds share a layer, so their names always say which part of it they are.
_PARTS = ("heads", "kv-heads", "head-dim")


def name_groups(analysis: Analysis) -> None:
    """Give every group its name: that of the layer that makes it, unique in the model.

    Groups of heads add their kind (`attn.qkv:heads`); of several that still have one name the later ones add `#2`, ...
    """
    makers = _makers(analysis)
    taken: set[str] = set()
    for group in sorted(analysis.groups, key=lambda group: makers[group.atom][0]):
        name = layer_name(makers[group.atom][1], analysis.activations) or group.first_axis
        name += f":{group.kind}" if group.kind in _PARTS else ""
        group.id = distinct(name, taken)


def distinct(name: str, taken: set[str]) -> str:
    """The name, or the first of `name#2`, `name#3`, ... that is not taken; it is now."""
    found, count = name, 1
    while found in taken:
        count += 1
        found = f"{name}#{count}"
    taken.add(found)
    return found


def _makers(analysis: Analysis) -> dict[Atom, tuple[int, ir.Node]]:
    """The node whose layer makes each group, with how sure that is (0 is best).

    It is the first in the file whose result has the units through a weight and (0) that sums over something else or
    looks up, as layers do; else (1) any; else (2) the first that reads them. A node that sums over the only axis of a
    weight that has the units just reads them.
    """
    wanted = {group.atom for group in analysis.groups}
    summed: dict[ir.Node, set[Atom]] = {}
    for contraction in analysis.findings.contractions:
        summed.setdefault(contraction.node, set()).update(atoms(resolve(contraction.dim)))
    makers: dict[Atom, tuple[int, ir.Node]] = {}
    for node in _in_order(analysis.model.graph):
        rank = 0 if node in summed or look_ups(node) else 1
        made: set[Atom] | None = None
        for axes in _weight_axes(analysis, node, wanted):
            made = _results(analysis, node) if made is None else made
            only_read = {atom for atom, count in axes.items() if count == 1} & summed.get(node, set())
            for atom in axes:
                found = rank if atom in made - only_read else 2
                if atom not in makers or found < makers[atom][0]:
                    makers[atom] = (found, node)
    return makers


def _in_order(graph: ir.Graph) -> Iterator[ir.Node]:
    """The nodes as the file has them, those inside bodies before the node that runs them."""
    for node in graph:
        for body in subgraphs(node):
            yield from _in_order(body)
        yield node


def _weight_axes(analysis: Analysis, node: ir.Node, wanted: set[Atom]) -> Iterator[Counter[Atom]]:
    """Per weight that a node reads, on how many of its axes each group occurs."""
    for value in node.inputs:
        if value is None or value.name in analysis.activations:
            continue
        dims = analysis.dims.get(value.name or "", ())
        axes = Counter(atom for dim in dims for atom in wanted.intersection(atoms(resolve(dim))))
        if axes and any(_parameters(value, analysis.activations)):
            yield axes


def _results(analysis: Analysis, node: ir.Node) -> set[Atom]:
    """The atoms in the results of a node that computes on data."""
    names = [value.name or "" for value in node.outputs]
    if analysis.activations.isdisjoint(names):
        return set()
    return {atom for name in names for dim in analysis.dims.get(name, ()) for atom in atoms(resolve(dim))}


def _parameters(value: ir.Value, activations: Set[str]) -> Iterator[ir.Value]:
    """The parameters that a value is computed from, where it is computed from those alone."""
    producer = value.producer()
    if value.name in activations:
        return
    if producer is not None:
        for given in producer.inputs:
            if given is not None:
                yield from _parameters(given, activations)
    elif value.is_initializer() and is_weight(value):
        yield value


def layer_name(node: ir.Node, activations: Set[str]) -> str:
    """How a person calls the layer that a node computes; empty where nothing in the file says it.

    Its own parameters say most (`attn.in_proj.weight`), then a bias behind it, the module in its scopes or its name,
    parameters that others read too (they may be called after those), the path of another exporter, the bare name of a
    weight, that of the node.

    Args:
        node: an operator with weights.
        activations: the names of all values that depend on a graph input.
    """
    weights = [weight for value in node.inputs if value is not None for weight in _parameters(value, activations)]
    names = [weight.name or "" for weight in weights]
    module = torch_module(node) or _scope(node)
    bias = _owner(bias_behind(node) or "")
    candidates = (
        *(_owner(weight.name or "", node) for weight in weights if len(weight.uses()) == 1),
        bias if _is_inside(bias, module) else "",
        module,
        *(_owner(name, node) for name in names),
        _path(node.name or ""),
        *(_path(name) if "/" in name else name for name in names if not _INVENTED.fullmatch(name)),
        (node.name or "").strip("/"),
    )
    return next(filter(None, candidates), "")


def _is_inside(layer: str, module: str) -> bool:
    """Is a layer inside a module? Nodes are called after the modules that ran, which need not be all around a layer."""
    outer = iter(layer.split("."))
    return not module or all(part in outer for part in module.split("."))


def torch_module(node: ir.Node) -> str:
    """`layer1.0.conv1` for a node called `/layer1/layer1.0/conv1/Conv`; nothing for names of other makes."""
    parts = (node.name or "").split("/")[:-1]
    if len(parts) < 2 or parts[0]:
        return ""
    # The children of a Sequential are written with its name before theirs: /layer1/layer1.0
    return ".".join(part.removeprefix(f"{before}.") for before, part in pairwise(parts))


def bias_behind(node: ir.Node) -> str | None:
    """The name of a bias that alone is added to what a node makes, if it is one of torch's."""
    uses = list(node.outputs[0].uses())
    if len(uses) != 1 or not adds(uses[0][0]):
        return None
    add, slot = uses[0]
    other = add.inputs[1 - slot]
    name = "" if other is None or not other.is_initializer() else other.name or ""
    return name if name.endswith(".bias") and TORCH_NAME.fullmatch(name) else None


def _scope(node: ir.Node) -> str:
    """The innermost module in the metadata of torch's dynamo: `['', 'layer1', 'layer1.0', 'conv2d_3']`."""
    try:
        scopes = ast.literal_eval(node.metadata_props.get(SCOPES, "[]"))
    except (ValueError, SyntaxError):
        return ""
    modules = [scope for scope in scopes[:-1] if isinstance(scope, str) and scope] if isinstance(scopes, list) else []
    return modules[-1] if modules else ""


def _owner(parameter: str, node: ir.Node | None = None) -> str:
    """`layer1.0.conv1` for a parameter called `layer1.0.conv1.weight`; nothing for names that an exporter invented."""
    name = parameter.removesuffix("_quantized")
    owner = _ROLE.sub("", name)
    if "/" in name or _INVENTED.fullmatch(name) or ("." not in name and owner == name):
        return ""
    return owner if node is None else owner.removesuffix(f".{node.op_type}")


def _path(name: str) -> str:
    """`conv1` for `StatefulPartitionedCall/model/conv1/Conv2D` or `conv1/kernel:0`, as Keras names them."""
    parts = _ADDED_BY_TENSORFLOW.sub("", name, count=1).split("/")[:-1]
    return ".".join(parts[:-1] if parts[-1:] == ["Tensordot"] else parts)
