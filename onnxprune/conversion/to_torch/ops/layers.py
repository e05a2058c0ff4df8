"""Layers with weights, as modules of torch.nn where their weights are stored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from onnxprune.conversion.to_torch.base import Array, Call, listed, tupled, written


def window_pads(op: Call, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]) -> list[int]:
    """All begins, then all ends, with `auto_pad` worked out. Raises ModelError where they depend on the run."""
    mode, count = op.attr("auto_pad", "NOTSET"), len(kernel)
    if mode in ("NOTSET", ""):
        return list(op.attr("pads") or [0] * (2 * count))
    if mode == "VALID":
        return [0] * (2 * count)
    begins, ends = [], []
    for axis, (width, stride, dilation) in enumerate(zip(kernel, strides, dilations, strict=True)):
        reach = (width - 1) * dilation + 1
        size = op.size(0, axis + 2) if stride > 1 else "1"
        if not size.isdecimal():
            raise op.refuse(f"its padding ({mode}) depends on the size of the input")
        total = max(0, (-(-int(size) // stride) - 1) * stride + reach - int(size)) if stride > 1 else reach - 1
        small, large = total // 2, total - total // 2
        begins.append(large if mode == "SAME_LOWER" else small)
        ends.append(small if mode == "SAME_LOWER" else large)
    return begins + ends


def padded(x: str, pads: Sequence[int], value: str = "") -> str:
    """F.pad takes pairs, the last axis first."""
    half = len(pads) // 2
    pairs = [pads[axis + end] for axis in reversed(range(half)) for end in (0, half)]
    return f"F.pad({x}, ({listed(pairs)}){value})" if any(pairs) else x


def _steps(op: Call, count: int) -> tuple[list[int], list[int]]:
    if not 1 <= count <= 3:
        raise op.refuse(f"convolutions of torch have one to three spatial axes, this one has {count}")
    return list(op.attr("strides") or [1] * count), list(op.attr("dilations") or [1] * count)


def _weights(**arrays: Array | None) -> dict[str, Array]:
    return {name: array for name, array in arrays.items() if array is not None}


@written("Conv")
def convolution(op: Call) -> str:
    """Conv1d, Conv2d, Conv3d; pads that differ from side to side come before."""
    weight, bias = op.constant(1), op.constant(2)
    count = op.known_rank(1) - 2
    strides, dilations = _steps(op, count)
    kernel = list(weight.shape[2:]) if weight is not None else list(op.attr("kernel_shape") or [])
    pads, groups = window_pads(op, kernel, strides, dilations), int(op.attr("group", 1))
    same = pads[:count] == pads[count:] and min(pads) >= 0
    x = op.tensor(0) if same else padded(op.tensor(0), pads)
    around = pads[:count] if same else [0] * count
    options = _options(stride=(strides, 1), padding=(around, 0), dilation=(dilations, 1), groups=([groups], 1))
    if weight is None or (op.has(2) and bias is None):
        extra = f", {op.tensor(2)}" if op.has(2) else ", None"
        return f"F.conv{count}d({x}, {op.tensor(1)}{extra}{options})"
    options += "" if bias is not None else ", bias=False"
    sizes = f"{weight.shape[1] * groups}, {weight.shape[0]}, {_window(kernel)}"
    return f"{op.module(f'Conv{count}d', sizes + options, _weights(weight=weight, bias=bias))}({x})"


def _window(kernel: Sequence[int]) -> str:
    return tupled(kernel) if len(set(kernel)) == 1 else f"({listed(kernel)})"


def _options(**given: tuple[Sequence[int], int]) -> str:
    """`, stride=2, padding=(1, 0)`: those that are not torch's defaults."""
    return "".join(
        f", {name}={tupled(values)}"
        for name, (values, default) in given.items()
        if any(each != default for each in values)
    )


@written("ConvTranspose")
def transposed_convolution(op: Call) -> str:
    """ConvTranspose1d, 2d, 3d; pads that differ from side to side are cut off afterwards."""
    weight, bias = op.constant(1), op.constant(2)
    if weight is None or (op.has(2) and bias is None) or op.attr("output_shape"):
        raise op.refuse("its weights are computed, or its output's size is stated")
    count = weight.ndim - 2
    strides, dilations = _steps(op, count)
    if op.attr("auto_pad", "NOTSET") not in ("NOTSET", "", "VALID"):
        raise op.refuse("its padding depends on the size of the input")
    pads = list(op.attr("pads") or [0] * (2 * count))
    same = pads[:count] == pads[count:]
    groups = int(op.attr("group", 1))
    options = _options(
        stride=(strides, 1),
        padding=(pads[:count] if same else [0] * count, 0),
        output_padding=(list(op.attr("output_padding") or [0] * count), 0),
        groups=([groups], 1),
        dilation=(dilations, 1),
    ) + ("" if bias is not None else ", bias=False")
    sizes = f"{weight.shape[0]}, {weight.shape[1] * groups}, {_window(weight.shape[2:])}"
    module = op.module(f"ConvTranspose{count}d", sizes + options, _weights(weight=weight, bias=bias))
    y = f"{module}({op.tensor(0)})"
    return y if same else padded(y, [-pad for pad in pads])


@written("Gemm")
def gemm(op: Call) -> str:
    """Linear where it is one, else a product."""
    weight, bias = op.constant(1), op.constant(2)
    alpha, beta = op.attr("alpha", 1.0), op.attr("beta", 1.0)
    weight = weight if weight is None or op.attr("transB", 0) else weight.T
    flat = None if bias is None else bias.reshape(-1)
    fits = weight is not None and (not op.has(2) or (flat is not None and flat.size in (1, len(weight))))
    if fits and weight is not None and not op.attr("transA", 0) and alpha == beta == 1:
        flat = None if flat is None else np.broadcast_to(flat, (len(weight),))
        return _linear(op, weight, flat, op.tensor(0))
    a, b = (f"{op.tensor(slot)}{'.T' if op.attr(name, 0) else ''}" for slot, name in ((0, "transA"), (1, "transB")))
    product = f"{'' if alpha == 1 else f'{alpha} * '}({a} @ {b})"
    return product if not op.has(2) else f"{product} + {'' if beta == 1 else f'{beta} * '}{op.tensor(2)}"


def _linear(op: Call, weight: Array, bias: Array | None, x: str) -> str:
    arguments = f"{weight.shape[1]}, {weight.shape[0]}{'' if bias is not None else ', bias=False'}"
    return f"{op.module('Linear', arguments, _weights(weight=weight, bias=bias))}({x})"


@written("MatMul")
def product(op: Call) -> str:
    """Linear where the second factor is a stored matrix, with the bias that is added to it; else a product."""
    weight = op.constant(1)
    if weight is None or weight.ndim != 2 or not op.is_float() or (op.rank(0) or 2) < 2:
        return f"{op.tensor(0)} @ {op.tensor(1)}"
    bias = _added_behind(op, weight.shape[1])
    return _linear(op, weight.T, bias, op.tensor(0))


def _added_behind(op: Call, size: int) -> Array | None:
    """A stored bias that alone is added to what the node makes; the addition is written with it."""
    value = op.node.outputs[0]
    uses = list(value.uses())
    if len(uses) != 1 or value.is_graph_output():
        return None
    adding, slot = uses[0]
    other = adding.inputs[1 - slot] if len(adding.inputs) == 2 else None
    if adding.op_type != "Add" or other is None:
        return None
    array = op.writer.constant(other)
    if array is None or array.shape != (size,):
        return None
    op.writer.join(adding, op.node)
    return array


_NORMS = {2: 1, 3: 1, 4: 2, 5: 3}


def _epsilon(op: Call) -> str:
    epsilon = float(op.attr("epsilon", 1e-5))
    return "" if abs(epsilon - 1e-5) < 1e-9 else f", eps={epsilon:.7g}"


@written("BatchNormalization")
def batch_norm(op: Call) -> str:
    """BatchNorm1d, 2d, 3d, by its running statistics in evaluation."""
    arrays = [op.constant(slot) for slot in range(1, 5)]
    rank = op.known_rank(0)
    if op.attr("training_mode", 0) or rank not in _NORMS:
        raise op.refuse("it normalizes by the batch, or has another number of axes than norms of torch have")
    if any(array is None for array in arrays):
        x, scale, bias, mean, variance = (op.tensor(slot) for slot in range(5))
        return f"F.batch_norm({x}, {mean}, {variance}, {scale}, {bias}{_epsilon(op)})"
    names = ("weight", "bias", "running_mean", "running_var")
    parameters = {name: array for name, array in zip(names, arrays, strict=True) if array is not None}
    momentum = 1 - op.attr("momentum", 0.9)
    arguments = (
        f"{len(parameters['weight'])}{_epsilon(op)}{'' if abs(momentum - 0.1) < 1e-6 else f', momentum={momentum:.4g}'}"
    )
    parameters["num_batches_tracked"] = np.array(0)
    return f"{op.module(f'BatchNorm{_NORMS[rank]}d', arguments, parameters)}({op.tensor(0)})"


@written("InstanceNormalization")
def instance_norm(op: Call) -> str:
    """InstanceNorm1d, 2d, 3d with scale and shift."""
    scale, bias, rank = op.constant(1), op.constant(2), op.known_rank(0)
    if scale is None or bias is None:
        raise op.refuse("its scale is computed")
    if rank not in (3, 4, 5):
        raise op.refuse("instance norms of torch have one to three spatial axes")
    arguments = f"{len(scale)}{_epsilon(op)}, affine=True"
    return f"{op.module(f'InstanceNorm{_NORMS[rank]}d', arguments, _weights(weight=scale, bias=bias))}({op.tensor(0)})"


@written("GroupNormalization")
def group_norm(op: Call) -> str:
    """GroupNorm; before opset 21 with one scale per group."""
    scale, bias = op.constant(1), op.constant(2)
    channels, groups = op.size(0, 1), int(op.attr("num_groups"))
    if scale is None or bias is None or not channels.isdecimal():
        raise op.refuse("its scale is computed")
    scale, bias = (
        part if len(part) == int(channels) else np.repeat(part, int(channels) // groups) for part in (scale, bias)
    )
    parameters = _weights(weight=scale, bias=bias)
    return f"{op.module('GroupNorm', f'{groups}, {channels}{_epsilon(op)}', parameters)}({op.tensor(0)})"


@written("LayerNormalization", "RMSNormalization")
def layer_norm(op: Call) -> str:
    """LayerNorm or RMSNorm over the last axes."""
    if op.wants(1) or op.wants(2):
        raise op.refuse("it gives out its statistics")
    rms = op.node.op_type == "RMSNormalization"
    scale, bias, rank = op.constant(1), op.constant(2), op.known_rank(0)
    shape: list[Any] = [op.size(0, axis) for axis in range(op.axis(-1), rank)]
    said = f"({listed(shape)},)" if len(shape) == 1 else f"({listed(shape)})"
    if scale is None or (op.has(2) and bias is None) or not all(size.isdecimal() for size in shape):
        extra = f", {op.tensor(2)}" if op.has(2) else ""
        return f"F.{'rms' if rms else 'layer'}_norm({op.tensor(0)}, {said}, {op.tensor(1)}{extra}{_epsilon(op)})"
    sizes = [int(size) for size in shape]
    parameters = {name: np.broadcast_to(array, sizes) for name, array in _weights(weight=scale, bias=bias).items()}
    plain = "" if bias is not None or rms else ", bias=False"
    epsilon = f", eps={float(op.attr('epsilon', 1e-5)):.7g}" if rms else _epsilon(op)
    arguments = f"{shape[0] if len(shape) == 1 else said}{epsilon}{plain}"
    return f"{op.module('RMSNorm' if rms else 'LayerNorm', arguments, parameters)}({op.tensor(0)})"
