"""Fresh weights, drawn by the rule that fits each layer.

kernels and matrices   normal with variance 2 / fan-in where a rectifier comes next (He et al., 2015), else uniform
                       within sqrt(6 / (fan-in + fan-out)) (Glorot and Bengio, 2010)
recurrent weights      orthogonal, gate by gate (Saxe, McClelland and Ganguli, 2014)
biases                 zero; the forget gate's of a cell that has one is 1 (Jozefowicz et al., 2015)
norms                  scale 1, shift 0, running mean 0, running variance 1
tables                 normal with deviation 0.02
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from math import prod, sqrt

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch

from onnxprune.dims import Mask
from onnxprune.ops.learned import BIAS, RECURRENT, SCALE, TABLE, learned, out_axis
from onnxprune.ops.traits import adds, moves, rectifies, statistics
from onnxprune.steps.train.parameters import Slot, trainable
from onnxprune.steps.train.write import Written, write_weights

Array = npt.NDArray[np.float64]
_TABLE_DEVIATION = 0.02
_FORGETTING = {4: 2}  # gates of a cell -> which of them forgets: input, output, forget, cell


def reinitialize(model: ir.Model, seed: int = 0, zeros: Mapping[str, Mask] | None = None) -> Written:
    """Draw all weights that are trained anew, in place.

    Args:
        model: the model.
        seed: of the draws; each weight has a stream of its own, so one that is not there changes no other.
        zeros: per weight, which entries may be other than zero: bool, of its shape.
    """
    fresh: dict[str, torch.Tensor] = {}
    for index, (name, slot) in enumerate(trainable(model).items()):
        value = model.graph.initializers[name]
        assert value.const_value is not None
        shape = tuple(value.const_value.shape.numpy())
        fresh[name] = torch.from_numpy(np.array(_drawn(shape, slot, np.random.default_rng([seed, index]))))
    for name, array in _running(model):
        fresh[name] = torch.from_numpy(array)
    return write_weights(model, fresh, zeros)


def _running(model: ir.Model) -> Iterator[tuple[str, Array]]:
    """Running statistics: mean 0 and variance 1."""
    for node in model.graph:
        for slot, content in zip(statistics(node), (0.0, 1.0), strict=False):
            value = node.inputs[slot]
            if value is not None and value.is_initializer() and value.const_value is not None:
                yield value.name or "", np.full(tuple(value.const_value.shape.numpy()), content)


def _drawn(shape: tuple[int, ...], slot: Slot, rng: np.random.Generator) -> Array:
    if slot.role == BIAS:
        return _bias(shape, slot)
    if slot.role == SCALE:
        return np.ones(shape)
    if slot.role == TABLE:
        return rng.normal(0, _TABLE_DEVIATION, shape)
    gates = learned(slot.node).gates
    if slot.role == RECURRENT:
        return _by_gate(shape, gates, lambda part: _orthogonal(part, rng))
    if RECURRENT in learned(slot.node).roles.values():
        return _by_gate(shape, gates, lambda part: _glorot(part, part[1], part[0], rng))
    into, out = _fans(shape, slot)
    if _is_rectified(slot.node):
        return rng.normal(0, sqrt(2 / into), shape)
    return _glorot(shape, into, out, rng)


def _fans(shape: tuple[int, ...], slot: Slot) -> tuple[int, int]:
    """How many entries are summed up for an output, and how many outputs an input goes to."""
    if len(shape) < 2:
        return max(prod(shape), 1), 1
    axis = out_axis(slot.node, slot.slot) % len(shape) if slot.direct else 0
    if len(shape) > 2 and axis in (0, 1):  # a kernel: outputs, inputs of a group, window
        window = prod(shape[2:])
        return prod(shape) // shape[axis], shape[axis] * window
    inner = shape[-2] if axis == len(shape) - 1 else shape[-1]  # a matrix, or a stack of them
    return inner, shape[axis]


def _glorot(shape: tuple[int, ...], into: int, out: int, rng: np.random.Generator) -> Array:
    limit = sqrt(6 / (into + out))
    return rng.uniform(-limit, limit, shape)


def _orthogonal(shape: tuple[int, int], rng: np.random.Generator) -> Array:
    """Rows, or columns where those are fewer, of length 1 at right angles to each other."""
    tall = rng.normal(size=(max(shape), min(shape)))
    basis, triangle = np.linalg.qr(tall)
    signed: Array = basis * np.sign(np.diag(triangle))  # without it the draw is not uniform
    return signed if shape[0] >= shape[1] else signed.T


def _by_gate(shape: tuple[int, ...], gates: int, draw: Callable[[tuple[int, int]], Array]) -> Array:
    """[directions, gates * units, inputs], or of one direction, every gate's matrix drawn by itself."""
    rows, columns = shape[-2:]
    parts = [draw((rows // gates, columns)) for _ in range(prod(shape[:-2]) * gates)]
    return np.concatenate(parts).reshape(shape)


def _bias(shape: tuple[int, ...], slot: Slot) -> Array:
    """Zeros; of a recurrent cell [directions, 2 * gates * units] the first half's forget gate 1."""
    bias = np.zeros(shape)
    gate = _FORGETTING.get(learned(slot.node).gates)
    if gate is not None and slot.direct:
        units = shape[1] // (2 * learned(slot.node).gates)
        bias[:, gate * units : (gate + 1) * units] = 1.0
    return bias


def _is_rectified(node: ir.Node) -> bool:
    """Does a rectifier read what the node makes, perhaps behind a bias, a norm or a pool?"""
    seen = 0
    waiting = [output for output in node.outputs if output.name]
    while waiting and seen < 8:
        seen += 1
        for reader, _ in waiting.pop(0).uses():
            if rectifies(reader):
                return True
            if adds(reader) or learned(reader).norm or moves(reader):
                waiting += reader.outputs
    return False
