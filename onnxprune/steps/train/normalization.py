"""Normalizations put back behind the convolutions of a deployed file for the length of a training, then folded away.

Exporters fold BatchNormalization into the convolution in front of it. The folded network computes the same, and trains
far worse: rates that suited the original make it diverge. Here every convolution gets one again that changes nothing,
since its statistics are those of the convolution's output and its scale and shift undo them:

    before   x ── Conv(w, b) ── y
    while    x ── Conv(w k, b k) ── BatchNormalization(scale s, shift m, mean m k, variance v k^2) ── y
    after    x ── Conv(w', b') ── y

with mean m, variance v and s = sqrt(v). A loss does not change with the size of a normalized kernel, but the rate at
which it learns does, so k brings each to the norm that it would have when drawn afresh (He et al., 2015): the network
trains at the rates that are usual for fresh ones, whatever the sizes in the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch
from torch import Tensor

from onnxprune.analysis.layers import Layer, layers_of
from onnxprune.ops.learned import WEIGHT, learned
from onnxprune.ops.traits import convolves
from onnxprune.runtime.torch.module import TorchModel

EPSILON = 1e-5
_OPERATOR = "BatchNormalization"


@dataclass(frozen=True)
class Inserted:
    """A normalization that was put in.

    Attributes:
        weight, bias: the convolution's initializers; outputs along axis 0.
        scale, shift, mean, variance: the normalization's.
    """

    weight: str
    bias: str
    scale: str
    shift: str
    mean: str
    variance: str


def lacks_normalization(model: ir.Model) -> bool:
    """Is it a network mostly of convolutions, without a normalization of any kind?"""
    nodes = [node for node in model.graph if learned(node).roles]
    layers = [node for node in nodes if WEIGHT in learned(node).roles.values() and not learned(node).entrywise]
    return (
        not any(learned(node).norm for node in nodes)
        and len(_places(model)) > 1
        and 2 * sum(map(convolves, layers)) >= len(layers)
    )


def _places(model: ir.Model) -> list[Layer]:
    """Convolutions with a weight and a bias of their own that some other layer comes after."""
    found = []
    for layer in layers_of(model):
        own = [value for value in layer.node.inputs[1:3] if value is not None and value.is_initializer()]
        alone = len(own) == 2 and all(len(value.uses()) == 1 and not value.is_graph_output() for value in own)
        if convolves(layer.node) and layer.norm is None and alone and _has_layer_behind(layer.node):
            found.append(layer)
    return found


def _has_layer_behind(node: ir.Node) -> bool:
    seen: set[ir.Node] = set()
    waiting = [node]
    while waiting:
        for output in waiting.pop().outputs:
            for reader, _ in output.uses():
                if WEIGHT in learned(reader).roles.values() and not learned(reader).entrywise:
                    return True
                if reader not in seen:
                    seen.add(reader)
                    waiting.append(reader)
    return False


def insert_normalization(
    model: ir.Model, feeds: Sequence[Mapping[str, Tensor]], device: torch.device
) -> list[Inserted]:
    """Put normalizations into a model, in place; it computes the same as before.

    Args:
        model: a copy that is trained on; names of values stay.
        feeds: inputs that the statistics are of.
        device: where they are computed.
    """
    places = _places(model)
    statistics = _statistics(
        TorchModel(model).to(device), feeds, [layer.node.outputs[0].name or "" for layer in places]
    )
    return [
        _insert(model, layer.node, mean, variance) for layer, (mean, variance) in zip(places, statistics, strict=True)
    ]


def _statistics(
    module: TorchModel, feeds: Iterable[Mapping[str, Tensor]], names: Sequence[str]
) -> list[tuple[Tensor, Tensor]]:
    """Mean and variance of every channel of each value, over all feeds: float64."""
    count = dict.fromkeys(names, 0)
    sums = {name: torch.zeros(2, 1, dtype=torch.float64) for name in names}
    for feed in feeds:
        with torch.no_grad():
            values = module(feed, names)
        for name in names:
            value = values[name].double()
            axes = [axis for axis in range(value.ndim) if axis != 1]
            count[name] += value.numel() // value.shape[1]
            sums[name] = sums[name] + torch.stack([value.sum(axes), value.square().sum(axes)]).cpu()
    means = {name: sums[name] / count[name] for name in names}
    return [(means[name][0], (means[name][1] - means[name][0].square()).clamp(min=0)) for name in names]


def _insert(model: ir.Model, node: ir.Node, mean: Tensor, variance: Tensor) -> Inserted:
    weight, bias = node.inputs[1], node.inputs[2]
    assert weight is not None
    assert bias is not None
    assert weight.const_value is not None
    assert bias.const_value is not None
    kernel = weight.const_value.numpy().astype(np.float64)
    norms = np.sqrt(np.square(kernel.reshape(len(kernel), -1)).sum(1))
    size = np.divide(sqrt(2.0), norms, out=np.ones_like(norms), where=norms > 0)
    factor = torch.from_numpy(size)
    resized = mean * factor, variance * factor.square()
    arrays = {
        "scale": torch.sqrt(resized[1] + EPSILON) / factor,
        "shift": mean,
        "mean": resized[0],
        "variance": resized[1],
    }
    name = node.outputs[0].name or ""
    made = {part: _constant(model, f"{name}/{part}", array.numpy()) for part, array in arrays.items()}
    weight.const_value = _tensor(weight, kernel * size.reshape(-1, *[1] * (kernel.ndim - 1)))
    bias.const_value = _tensor(bias, bias.const_value.numpy().astype(np.float64) * size)
    norm = ir.node(_OPERATOR, [node.outputs[0], *made.values()], {"epsilon": EPSILON}, name=f"{name}/normalization")
    inner, outer = node.outputs[0], norm.outputs[0]
    outer.shape, outer.type = inner.shape, inner.type
    ir.convenience.replace_all_uses_with(inner, outer, replace_graph_outputs=True)
    norm.replace_input_with(0, inner)
    inner.name, outer.name = f"{name}/convolved", name
    model.graph.insert_after(node, norm)
    return Inserted(weight.name or "", bias.name or "", *(made[part].name or "" for part in arrays))


def _tensor(value: ir.Value, array: npt.NDArray[np.float64]) -> ir.TensorProtocol:
    """In float32, whatever the file has: it is a master copy."""
    return ir.Tensor(array.astype(np.float32), name=value.name)


def _constant(model: ir.Model, name: str, array: npt.NDArray[np.float64]) -> ir.Value:
    while name in model.graph.initializers:
        name += "'"
    tensor = ir.Tensor(array.astype(np.float32), name=name)
    value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(ir.DataType.FLOAT), const_value=tensor)
    model.graph.register_initializer(value)
    return value


def folded(weights: Mapping[str, Tensor], inserted: Sequence[Inserted]) -> dict[str, Tensor]:
    """The weights of the network without the normalizations that were put in: float64, by name.

    Args:
        weights: weights and statistics of the network with them.
        inserted: what `insert` gave.
    """
    result = {name: value.detach().cpu().double() for name, value in weights.items()}
    for norm in inserted:
        scale, shift, mean, variance = (result.pop(name) for name in (norm.scale, norm.shift, norm.mean, norm.variance))
        factor = scale / torch.sqrt(variance + EPSILON)
        kernel = result[norm.weight]
        result[norm.weight] = kernel * factor.reshape(-1, *[1] * (kernel.ndim - 1))
        result[norm.bias] = (result[norm.bias] - mean) * factor + shift
    return result
