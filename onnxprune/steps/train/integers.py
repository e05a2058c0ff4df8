"""Weights that the file has as integers: trained as floats that are rounded through the operators of the file.

    the file          integers ──────────────────────────── DequantizeLinear(scale, zero) ── Conv
    while it trains   floats ── QuantizeLinear ── Clip ───── DequantizeLinear(scale, zero) ── Conv

Gradients pass straight through the rounding (Bengio, Léonard and Courville, 2013; Jacob et al., 2018), as they do
through the pairs around activations. The floats begin near the numbers that the integers represent, each somewhere in
the interval that rounds to its integer, so before the first update the network computes the same as the file; at the
end their nearest integers are written back. Clip keeps weights that use fewer levels than their type has, those of
`--weight-bits 4`, at these levels.

Scales are learned as s * exp(t), from t = 0 (the gradient of s is that of Esser et al. 2020, "Learned step size
quantization"). A bias of 32 bits is stored in the unit of input scale times weight scale, which kernels take for
granted, so its scale follows the two.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch
from torch import Tensor

from onnxprune.ops.base import attribute
from onnxprune.ops.dequantize import aligned, is_real, is_rounding, is_scale, layout_of
from onnxprune.ops.learned import SCALE

# Units of two scales may differ by so much from their product, as they are stored in float32.
_SAME_UNIT = 1e-4
_WIDE = ir.DataType.INT32
# Floats begin within so much of a step of their integers: less than a half, so that they round to them.
_SPREAD = 0.45


@dataclass(frozen=True)
class Rounded:
    """A weight that the file has as integers.

    Attributes:
        name: of the initializer, also of the floats that are trained in its place.
        integers: those of the file, as float32.
        floats: with what training begins: numbers that round to them.
        scale: the name of the initializer with its scale.
        shape: of the scale as it broadcasts against the weight.
        zero: the zero point, as it broadcasts.
        low, high: the least and the largest integer.
        unit: of a bias, the names of the two scales whose product its own scale is; empty otherwise.
    """

    name: str
    integers: Tensor
    floats: Tensor
    scale: str
    shape: tuple[int, ...]
    zero: Tensor
    low: int
    high: int
    unit: tuple[str, ...] = ()

    def of(self, floats: Tensor, scale: Tensor, *, same_scale: bool) -> Tensor:
        """The integers of trained floats, exactly as the network in training rounds them.

        Entries that no update has moved keep theirs: float32 does not hold all integers of 32 bits.
        """
        wide = scale.float().reshape(self.shape)
        found = torch.clamp(torch.round(floats.float() / wide) + self.zero, self.low, self.high)
        return torch.where(floats.float() == self.floats, self.integers, found) if same_scale else found


@dataclass
class TrainedIntegers:
    """All weights of a network that the file has as integers.

    Attributes:
        weights: each of them.
        scales: of what is learned as an exponent, the name of the exponent by the name of the scale.
        fixed: names of integers that no gradient reaches, for the operator holds them in another form.
    """

    weights: list[Rounded] = field(default_factory=list)
    scales: dict[str, str] = field(default_factory=dict)
    fixed: list[str] = field(default_factory=list)

    @property
    def roles(self) -> dict[str, str]:
        """Of the exponents, see `ops.learned`."""
        return dict.fromkeys(self.scales.values(), SCALE)

    def written(self, trained: Mapping[str, Tensor], stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What the file gets for what was trained: integers for floats, scales for exponents: by name.

        Args:
            trained: tensors of the network in training, by name.
            stored: the scales that it began with, by name.
        """
        found = {name: tensor for name, tensor in trained.items() if name not in set(self.scales.values())}
        scales = dict(stored)
        for name, exponent in self.scales.items():
            if exponent in trained:
                moved = stored[name].detach().cpu().float() * torch.exp(trained[exponent].detach().cpu().float())
                found[name] = scales[name] = moved
        for each in self.weights:
            if each.unit and any(name in found for name in each.unit):
                one, other = (scales[name].detach().cpu().float() for name in each.unit)
                found[each.scale] = scales[each.scale] = (one * other).reshape(stored[each.scale].shape)
            if each.name in trained or each.scale in found:
                floats = trained.get(each.name, each.floats)
                scale = scales[each.scale].detach().cpu()
                found[each.name] = each.of(floats.detach().cpu(), scale, same_scale=each.scale not in found)
        return found


def train_integers(model: ir.Model, *, scales: bool) -> TrainedIntegers:
    """Put floats in place of integer weights, in place; the network computes the same as before.

    Args:
        model: a copy that is trained on.
        scales: learn the scales of weights and activations, too.
    """
    readers: dict[ir.Value, list[ir.Node]] = {}
    found = TrainedIntegers()
    for value in list(model.graph.initializers.values()):
        if value.const_value is None or not value.const_value.dtype.is_integer() or value.is_graph_input():
            continue
        held = [node for node, slot in value.uses() if layout_of(node).get(slot) is not None]
        if held and all(is_real(node) for node in held) and _known(held):
            readers[value] = held
        elif held:
            found.fixed.append(value.name or "")
    units = {value: _unit_of(nodes[0]) for value, nodes in readers.items()}
    for value, nodes in readers.items():
        found.weights.append(_take(model, value, nodes, units[value]))
    if scales:
        _learn_scales(model, found)
    return found


def _known(nodes: list[ir.Node]) -> bool:
    """Do all read the integers by the same constant scale and zero point, which nothing else says more about?"""
    first = nodes[0]
    same = all(list(node.inputs[1:]) == list(first.inputs[1:]) for node in nodes)
    held = all(
        value is None or (value.is_initializer() and value.const_value is not None) for value in first.inputs[1:]
    )
    return same and held


def _take(model: ir.Model, value: ir.Value, nodes: list[ir.Node], unit: tuple[str, ...]) -> Rounded:
    """Put floats, QuantizeLinear and Clip in place of integers that these nodes read."""
    node, tensor, name = nodes[0], value.const_value, value.name or ""
    assert tensor is not None
    array, layout = tensor.numpy(), layout_of(node)[0]
    scale, zero = (node.inputs[at] if at < len(node.inputs) else None for at in (1, 2))
    assert scale is not None
    assert scale.const_value is not None
    factor = aligned(scale.const_value.numpy(), array, layout)
    shift = np.zeros((), np.float32)
    if zero is not None and zero.const_value is not None:
        shift = aligned(zero.const_value.numpy(), array, layout)
    integers = array.astype(np.float32)
    low, high = _levels(array, tensor.dtype, symmetric=not shift.any())
    floats = np.asarray((integers - shift + _within_steps(name, array, tensor.dtype)) * factor, np.float32)
    del model.graph.initializers[name]
    master = _constant(name, floats)
    down = ir.node(
        "QuantizeLinear",
        [master, *node.inputs[1:]],
        {"axis": layout.axis, "block_size": layout.block, "output_dtype": tensor.dtype.value},
        domain=node.domain,
        name=f"{name}/rounded",
    )
    clip = ir.node("Clip", [down.outputs[0]], {"min": low, "max": high}, name=f"{name}/levels")
    for made in (down, clip):
        made.outputs[0].name, made.outputs[0].type = made.name, ir.TensorType(tensor.dtype)
        made.outputs[0].shape = value.shape
    model.graph.insert_before(next(iter(model.graph)), [down, clip])
    for reader in nodes:
        reader.replace_input_with(0, clip.outputs[0])
    model.graph.register_initializer(master)
    shape = (1,) * array.ndim if factor.ndim == 0 else factor.shape
    parts = [torch.from_numpy(np.array(part)) for part in (integers, floats, shift)]
    return Rounded(name, parts[0], parts[1], scale.name or "", shape, parts[2], low, high, unit)


def _within_steps(name: str, array: npt.NDArray[np.generic], dtype: ir.DataType) -> npt.NDArray[np.float64]:
    """Where in the interval that an integer stands for a float begins, in steps from its middle.

    Begun in the middle, all floats of a weight would reach the next integer in the same update, for an optimizer that
    normalizes gradients moves them alike. Begun anywhere, a share of them does that grows with the way.
    """
    if dtype == _WIDE:
        return np.zeros(array.shape)
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return rng.uniform(-_SPREAD, _SPREAD, array.shape)


def _levels(array: npt.NDArray[np.generic], dtype: ir.DataType, *, symmetric: bool) -> tuple[int, int]:
    """The integers that a weight may become: of as many bits as it uses where they lie about zero, else of its type."""
    least, most = int(dtype.min), int(dtype.max)
    if not symmetric or dtype == _WIDE or least == 0 or not array.size:
        return least, most
    lowest, highest = int(array.min()), int(array.max())
    largest = (1 << max(highest.bit_length(), (-lowest - 1).bit_length() if lowest < 0 else 0, 1)) - 1
    return -largest if lowest >= -largest else least if largest == most else -largest - 1, largest


def _constant(name: str, array: npt.NDArray[np.float32]) -> ir.Value:
    tensor = ir.Tensor(np.array(array, order="C"), name=name)
    return ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(ir.DataType.FLOAT), const_value=tensor)


# -- scales


def _unit_of(node: ir.Node) -> tuple[str, ...]:
    """Of a bias of 32 bits, the scales of input and weight beside it whose product its own is; else nothing."""
    stored, scale = node.inputs[0], node.inputs[1]
    uses = list(node.outputs[0].uses())
    if stored is None or scale is None or stored.dtype != _WIDE or len(uses) != 1 or uses[0][1] != 2:
        return ()
    parts = [_scale_behind(value) for value in uses[0][0].inputs[:2]]
    if any(part is None for part in parts):
        return ()
    arrays = [part.const_value.numpy().astype(np.float64) for part in parts if part is not None and part.const_value]
    own = scale.const_value.numpy().astype(np.float64) if scale.const_value is not None else np.zeros(0)
    if len(arrays) != 2 or arrays[0].size != 1 or own.size != arrays[1].size:
        return ()
    agrees = np.allclose(own.reshape(-1), (arrays[0].reshape(()) * arrays[1]).reshape(-1), rtol=_SAME_UNIT, atol=0)
    return tuple(part.name or "" for part in parts if part is not None) if agrees else ()


def _scale_behind(value: ir.Value | None) -> ir.Value | None:
    node = None if value is None else value.producer()
    return node.inputs[1] if node is not None and is_real(node) else None


def _learn_scales(model: ir.Model, found: TrainedIntegers) -> None:
    """Put scale * exp(exponent) in place of every scale, in place; those of biases follow the two that they are of."""
    moved: dict[str, ir.Value] = {}
    first = next(iter(model.graph))
    biases = {each.scale for each in found.weights if each.high > np.iinfo(np.int16).max}
    for scale in list(_scales(model)):
        name = scale.name or ""
        if name in biases or not _by_pairs(scale):
            continue
        array = scale.const_value.numpy() if scale.const_value is not None else np.ones(1)
        exponent = _constant(f"{name}/exponent", np.zeros(array.shape, np.float32))
        model.graph.register_initializer(exponent)
        factor = ir.node("Exp", [exponent], name=f"{name}/factor")
        product = ir.node("Mul", [scale, factor.outputs[0]], name=f"{name}/learned")
        _replace(model, scale, [factor, product], first)
        found.scales[name], moved[name] = f"{name}/exponent", product.outputs[0]
    for each in found.weights:
        if each.unit and all(name in moved for name in each.unit):
            scale = model.graph.initializers[each.scale]
            product = ir.node("Mul", [moved[name] for name in each.unit], name=f"{each.scale}/learned")
            _replace(model, scale, [product], first)


def _scales(model: ir.Model) -> Iterator[ir.Value]:
    for value in model.graph.initializers.values():
        if value.const_value is not None and value.dtype == ir.DataType.FLOAT and is_scale(value):
            yield value


def _by_pairs(scale: ir.Value) -> bool:
    """Do only QuantizeLinear and DequantizeLinear read it, each with one for all or one per channel?"""
    return not scale.is_graph_output() and all(
        (is_real(node) or is_rounding(node)) and slot == 1 and not attribute(node, "block_size", 0)
        for node, slot in scale.uses()
    )


def _replace(model: ir.Model, scale: ir.Value, made: list[ir.Node], first: ir.Node) -> None:
    """Have what reads a scale read what the last of these nodes gives; they are put in front of `first`."""
    for node in made:
        node.outputs[0].name, node.outputs[0].shape = node.name, scale.shape
        node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    for node, slot in [(node, slot) for node, slot in scale.uses() if node not in made]:
        node.replace_input_with(slot, made[-1].outputs[0])
    model.graph.insert_before(first, made)
