"""ONNX Runtime's fused activations, norms and products (com.microsoft)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from onnxprune.runtime.torch.ops.base import MICROSOFT, TABLE, TorchNode, standard, torch_op

_TANH = "tanh"
# The positions of the parameters of an activation among its attributes.
_PARAMETERS = {
    "LeakyRelu": ("alpha",),
    "Elu": ("alpha",),
    "ThresholdedRelu": ("alpha",),
    "HardSigmoid": ("alpha", "beta"),
    "Clip": ("min", "max"),
}


@torch_op("Gelu", "BiasGelu", domain=MICROSOFT)
def gelu(_: TorchNode, x: Tensor, bias: Tensor | None = None) -> Tensor:
    """Gelu of the sum."""
    return F.gelu(x if bias is None else x + bias)


@torch_op("FastGelu", domain=MICROSOFT)
def fast_gelu(_: TorchNode, x: Tensor, bias: Tensor | None = None) -> Tensor:
    """Its approximation by tanh."""
    return F.gelu(x if bias is None else x + bias, approximate=_TANH)


@torch_op("QuickGelu", domain=MICROSOFT)
def quick_gelu(op: TorchNode, x: Tensor) -> Tensor:
    """Its approximation by a sigmoid."""
    return x * torch.sigmoid(op.attr("alpha", 1.702) * x)


@torch_op("BiasAdd", domain=MICROSOFT)
def bias_add(_: TorchNode, x: Tensor, bias: Tensor, skip: Tensor) -> Tensor:
    """The sum of all three."""
    return x + bias + skip


@torch_op("BiasSplitGelu", domain=MICROSOFT)
def bias_split_gelu(_: TorchNode, x: Tensor, bias: Tensor) -> Tensor:
    """The first half times the gelu of the second."""
    left, right = (x + bias).chunk(2, -1)
    return left * F.gelu(right)


@torch_op("BiasSoftmax", domain=MICROSOFT)
def bias_softmax(op: TorchNode, x: Tensor, bias: Tensor) -> Tensor:
    """The softmax of the sum over all axes from `axis` on."""
    total = x + bias
    return torch.softmax(total.flatten(op.attr("axis", 1) % x.ndim), -1).reshape(x.shape)


@torch_op("SimplifiedLayerNormalization", domain=MICROSOFT)
def simplified_layer_normalization(op: TorchNode, x: Tensor, scale: Tensor) -> Any:
    """As RMSNormalization."""
    return TABLE["", "RMSNormalization"].function(op, x, scale)


@torch_op("SkipLayerNormalization", domain=MICROSOFT)
def skip_layer_normalization(
    op: TorchNode, x: Tensor, skip: Tensor, scale: Tensor, shift: Tensor | None = None, bias: Tensor | None = None
) -> tuple[Tensor, ...]:
    """The norm of the sum, its statistics, and the sum."""
    total = x + skip if bias is None else x + skip + bias
    variance, mean = torch.var_mean(total, -1, correction=0, keepdim=True)
    inverse = torch.rsqrt(variance + op.attr("epsilon", 1e-12))
    y = (total - mean) * inverse * scale
    return y if shift is None else y + shift, mean, inverse, total


@torch_op("SkipSimplifiedLayerNormalization", domain=MICROSOFT)
def skip_simplified_layer_normalization(
    op: TorchNode, x: Tensor, skip: Tensor, scale: Tensor, bias: Tensor | None = None
) -> tuple[Tensor, ...]:
    """The root-mean-square norm of the sum, and the sum."""
    total = x + skip if bias is None else x + skip + bias
    inverse = torch.rsqrt(total.square().mean(-1, keepdim=True) + op.attr("epsilon", 1e-12))
    return total * inverse * scale, torch.zeros_like(inverse), inverse, total


@torch_op("EmbedLayerNormalization", domain=MICROSOFT)
def embed_layer_normalization(
    op: TorchNode,
    ids: Tensor,
    segments: Tensor | None,
    words: Tensor,
    places: Tensor,
    kinds: Tensor | None,
    scale: Tensor,
    shift: Tensor,
    mask: Tensor | None = None,
    positions: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The norm of the sum of rows of the tables, how many entries of the mask are set, and the sum."""
    at = torch.arange(ids.shape[1], device=ids.device) if positions is None else positions.long()
    total = words[ids.long()] + places[at]
    if segments is not None and kinds is not None:
        total = total + kinds[segments.long()]
    y = F.layer_norm(total, scale.shape, scale, shift, op.attr("epsilon", 1e-12))
    lengths = torch.zeros(ids.shape[0], dtype=torch.int32) if mask is None else mask.sum(1).to(torch.int32)
    return y, lengths, total


@torch_op("GroupNorm", domain=MICROSOFT)
def group_norm(op: TorchNode, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Norms over groups of channels, which come last unless `channels_last` says no; then SiLU if asked for."""
    last = op.attr("channels_last", 1)
    y = F.group_norm(x.movedim(-1, 1) if last else x, op.attr("groups"), scale, shift, op.attr("epsilon", 1e-5))
    y = F.silu(y) if op.attr("activation", 0) else y
    return y.movedim(1, -1) if last else y


@torch_op("SkipGroupNorm", domain=MICROSOFT)
def skip_group_norm(
    op: TorchNode, x: Tensor, scale: Tensor, shift: Tensor, skip: Tensor, bias: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The same of a sum, and the sum."""
    total = x + (skip if skip.ndim == x.ndim else skip[:, None, None, :])
    total = total if bias is None else total + bias
    return group_norm(op, total, scale, shift), total


@torch_op("RotaryEmbedding", domain=MICROSOFT)
def rotary_embedding(op: TorchNode, x: Tensor, positions: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """As in the standard; one position is that of the first step."""
    steps = x.shape[-2]
    if positions.numel() == 1:
        positions = positions.reshape(1, 1) + torch.arange(steps, device=positions.device)
    positions = positions.expand(x.shape[0], steps)
    heads = op.attr("num_heads", 0) or (1 if x.ndim == 4 else x.shape[-1] // (2 * cosine.shape[-1]))
    y: Tensor = standard(op, "RotaryEmbedding", x, cosine, sine, positions, num_heads=heads)
    return y


@torch_op("FusedMatMul", "TransposeMatMul", domain=MICROSOFT)
def fused_matmul(op: TorchNode, a: Tensor, b: Tensor) -> Tensor:
    """Alpha a b, with optional transposes, also of the first axis with those behind it."""
    a, b = (
        _transposed(x, op.attr(f"trans{side}", 0), op.attr(f"transBatch{side}", 0)) for side, x in (("A", a), ("B", b))
    )
    return torch.matmul(a, b).mul(op.attr("alpha", 1.0))


def _transposed(x: Tensor, last: int, batch: int) -> Tensor:
    if batch and x.ndim > 2:
        x = x.movedim(0, -2)  # [m, batch..., k] -> [batch..., m, k]
    return x.transpose(-1, -2) if last and x.ndim > 1 else x


def _activated(op: TorchNode, y: Tensor, name: str | None, parameters: list[float]) -> Tensor:
    if not name:
        return y
    stated = dict(zip(_PARAMETERS.get(name, ()), parameters, strict=False))
    plain = replace(op, attributes=stated)
    found: Tensor = standard(plain, name, y)
    return found


@torch_op("FusedGemm", domain=MICROSOFT)
def fused_gemm(op: TorchNode, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    """Gemm and an activation."""
    stated = [op.attr(f"activation_{name}") for name in ("alpha", "beta", "gamma")]
    y = standard(op, "Gemm", a, b, c)
    return _activated(op, y, op.attr("activation"), [value for value in stated if value is not None])


@torch_op("FusedConv", domain=MICROSOFT)
def fused_convolution(
    op: TorchNode, x: Tensor, w: Tensor, bias: Tensor | None = None, added: Tensor | None = None
) -> Tensor:
    """Conv, a sum and an activation."""
    y = standard(op, "Conv", x, w, bias)
    y = y if added is None else y + added
    return _activated(op, y, op.attr("activation"), op.attr("activation_params") or [])


@torch_op("NhwcConv", domain=MICROSOFT)
def convolution_with_channels_last(op: TorchNode, x: Tensor, w: Tensor, bias: Tensor | None = None) -> Tensor:
    """Conv of [N, ..., C] by [O, ..., C]."""
    y: Tensor = standard(op, "Conv", x.movedim(-1, 1), w.movedim(-1, 1), bias)
    return y.movedim(1, -1)


@torch_op("MoE", domain=MICROSOFT)
def mixture_of_experts(
    op: TorchNode,
    x: Tensor,
    routes: Tensor,
    w1: Tensor,
    b1: Tensor | None,
    w2: Tensor,
    b2: Tensor | None = None,
    w3: Tensor | None = None,
    b3: Tensor | None = None,
) -> Tensor:
    """The k likeliest experts of each row, weighted by how likely they are."""
    rows = x.reshape(-1, x.shape[-1])
    shares = torch.softmax(routes.reshape(rows.shape[0], -1), -1)
    best, chosen = torch.topk(shares, op.attr("k", 1))
    if op.attr("normalize_routing_weights", 0):
        best = best / best.sum(-1, keepdim=True)
    weights = torch.zeros_like(shares).scatter(1, chosen, best)
    hidden = torch.einsum("nh,eih->nei", rows, w1)
    hidden = _expert(op, hidden if b1 is None else hidden + b1)
    if w3 is not None:
        gate = torch.einsum("nh,eih->nei", rows, w3)
        hidden = hidden * (gate if b3 is None else gate + b3)
    y = torch.einsum("nei,ehi->neh", hidden, w2)
    y = y if b2 is None else y + b2
    return (y * weights.unsqueeze(-1)).sum(1).reshape(x.shape)


def _expert(op: TorchNode, x: Tensor) -> Tensor:
    kind = op.attr("activation_type", "relu")
    if kind != "swiglu":
        return {"relu": torch.relu, "gelu": F.gelu, "silu": F.silu, "identity": torch.clone}[kind](x)
    interleaved = op.attr("swiglu_fusion", 0) == 1
    gate, linear = (x[..., 0::2], x[..., 1::2]) if interleaved else x.chunk(2, -1)
    limit = op.attr("swiglu_limit")
    if limit is not None:
        gate, linear = gate.clamp(max=limit), linear.clamp(-limit, limit)
    y: Tensor = (
        gate * torch.sigmoid(op.attr("activation_alpha", 1.0) * gate) * (linear + op.attr("activation_beta", 0.0))
    )
    return y
