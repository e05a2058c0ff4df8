"""Values out of nothing, and values in another type."""

from __future__ import annotations

import torch
from torch import Tensor

from onnxprune.runtime.torch.ops.base import TorchNode, torch_op

_FLOAT = 1


@torch_op("Constant")
def constant(op: TorchNode) -> Tensor:
    """The attribute."""
    if op.attr("value") is not None:
        value: Tensor = op.attr("value")
        return value
    for name, code in (("value_float", 1), ("value_floats", 1), ("value_int", 7), ("value_ints", 7)):
        if op.attr(name) is not None:
            return torch.tensor(op.attr(name), dtype=op.dtype(code))
    raise op.refuse("it holds no number")


@torch_op("ConstantOfShape", numbers=(0,))
def constant_of_shape(op: TorchNode, shape: list[int]) -> Tensor:
    """A shape filled with one value, on the host."""
    value = op.attr("value")
    value = torch.zeros(1, dtype=op.dtype(_FLOAT)) if value is None else value
    return value.reshape([1] * len(shape)).expand(shape).clone()


@torch_op("Range", data_sized=True)
def range_(_: TorchNode, start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    """Numbers from start up to limit, which is not reached."""
    first, last, step = start.item(), limit.item(), delta.item()
    count = max(0, -int((first - last) // step))
    return (torch.arange(count, device=start.device) * step + first).to(start.dtype)


@torch_op("EyeLike")
def eye_like(op: TorchNode, x: Tensor) -> Tensor:
    """Ones on a diagonal."""
    dtype = op.dtype(op.attr("dtype")) if op.attr("dtype") else x.dtype
    rows = torch.arange(x.shape[0], device=x.device).reshape(-1, 1) + op.attr("k", 0)
    return torch.eq(rows, torch.arange(x.shape[1], device=x.device)).to(dtype)


def _generator(op: TorchNode, device: torch.device) -> torch.Generator | None:
    """A seed in the graph gives the same draw in every run."""
    seed = op.attr("seed")
    return None if seed is None else torch.Generator(device).manual_seed(int(seed * 2**20) % 2**63)


def _draw(op: TorchNode, shape: list[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    generator = _generator(op, device)
    kind = dtype if dtype.is_floating_point else torch.float32
    if op.op_type.startswith("RandomNormal"):
        drawn = torch.randn(shape, generator=generator, dtype=kind, device=device)
        return drawn.mul(op.attr("scale", 1.0)).add(op.attr("mean", 0.0)).to(dtype)
    drawn = torch.rand(shape, generator=generator, dtype=kind, device=device)
    low, high = op.attr("low", 0.0), op.attr("high", 1.0)
    return drawn.mul(high - low).add(low).to(dtype)


@torch_op("RandomNormal", "RandomUniform", random=True)
def random(op: TorchNode) -> Tensor:
    """Drawn from a distribution."""
    return _draw(op, op.attr("shape"), op.dtype(op.attr("dtype", _FLOAT)), torch.device("cpu"))


@torch_op("RandomNormalLike", "RandomUniformLike", random=True)
def random_like(op: TorchNode, x: Tensor) -> Tensor:
    """Drawn in the shape of another tensor."""
    dtype = op.dtype(op.attr("dtype")) if op.attr("dtype") else x.dtype
    return _draw(op, list(x.shape), dtype, x.device)


@torch_op("Bernoulli", random=True)
def bernoulli(op: TorchNode, x: Tensor) -> Tensor:
    """One with the probability that the input says."""
    dtype = op.dtype(op.attr("dtype")) if op.attr("dtype") else x.dtype
    return torch.bernoulli(x, generator=_generator(op, x.device)).to(dtype)


@torch_op("Multinomial", random=True)
def multinomial(op: TorchNode, x: Tensor) -> Tensor:
    """Classes drawn with logarithmic weights."""
    shares = torch.softmax(x, -1)
    drawn = torch.multinomial(shares, op.attr("sample_size", 1), replacement=True, generator=_generator(op, x.device))
    return drawn.to(op.dtype(op.attr("dtype", 6)))
