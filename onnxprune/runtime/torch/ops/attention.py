"""Attention and rotary embeddings of the standard."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from onnxprune.runtime.torch.ops.base import TorchNode, torch_op


@torch_op("Attention")
def attention(
    op: TorchNode,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    past_key: Tensor | None = None,
    past_value: Tensor | None = None,
    filled: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Scaled dot-product attention (Vaswani et al., 2017) with shared key heads, caches, masks and windows.

    Returns: the output, the keys and values with those of the past, and the scores at the stage that is asked for.
    """
    flat = query.ndim == 3
    query, key, value = (
        _in_heads(x, op.attr(f"{kind}_num_heads")) if flat else x
        for x, kind in ((query, "q"), (key, "kv"), (value, "kv"))
    )
    past = 0 if past_key is None else past_key.shape[2]
    key = key if past_key is None else torch.cat([past_key, key], 2)
    value = value if past_value is None else torch.cat([past_value, value], 2)
    repeats = query.shape[1] // key.shape[1]
    keys, values = (x if repeats == 1 else x.repeat_interleave(repeats, 1) for x in (key, value))

    factor = math.sqrt(op.attr("scale", 1 / math.sqrt(query.shape[-1])))
    stages = [(query * factor) @ (keys * factor).transpose(-1, -2)]
    softcap = op.attr("softcap", 0.0)
    stages.append(softcap * torch.tanh(stages[0] / softcap) if softcap > 0 else stages[0])
    allowed = _visible(op, query.shape[2], key.shape[2], past, filled, query.device)
    bias = torch.zeros_like(stages[0]).masked_fill(~allowed, -torch.inf)
    if mask is not None:
        bias = bias + _as_bias(mask, key.shape[2], bias)
    stages.append(stages[1] + bias)
    exact = op.dtype(op.attr("softmax_precision")) if op.attr("softmax_precision") else query.dtype
    nothing = (bias == -torch.inf).all(-1, keepdim=True)
    shares = torch.softmax(stages[2].masked_fill(nothing, 0).to(exact), -1).masked_fill(nothing, 0).to(query.dtype)
    stages.append(shares)
    y = shares @ values
    y = y.transpose(1, 2).flatten(2) if flat else y
    return y, key, value, stages[op.attr("qk_matmul_output_mode", 0)]


def _in_heads(x: Tensor, heads: int) -> Tensor:
    """[batch, steps, heads * size] as [batch, heads, steps, size]."""
    return x.reshape(*x.shape[:2], heads, -1).transpose(1, 2)


def _visible(op: TorchNode, rows: int, columns: int, past: int, filled: Tensor | None, device: torch.device) -> Tensor:
    """Which keys a query may see: not later ones (is_causal), within a window, and none that is padding."""
    key = torch.arange(columns, device=device)
    position = torch.arange(rows, device=device).reshape(-1, 1) + past
    allowed = torch.ones(rows, columns, dtype=torch.bool, device=device)
    if filled is not None:
        lengths = filled.to(device).reshape(-1, 1, 1, 1)
        position = position + (lengths - rows)
        allowed = key < lengths
    if op.attr("is_causal", 0):
        allowed = allowed & (key <= position)
    left, right = op.attr("left_window_size", -1), op.attr("right_window_size", -1)
    if left >= 0:
        allowed = allowed & (key >= position - left)
    if right >= 0:
        allowed = allowed & (key <= position + right)
    return allowed


def _as_bias(mask: Tensor, columns: int, like: Tensor) -> Tensor:
    """A mask as something to add; what it is too short for cannot be seen."""
    if mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=like.dtype).masked_fill(~mask, -torch.inf)
    missing = columns - mask.shape[-1]
    return torch.nn.functional.pad(mask, (0, missing), value=-torch.inf) if missing > 0 else mask


@torch_op("RotaryEmbedding")
def rotary_embedding(op: TorchNode, x: Tensor, cosine: Tensor, sine: Tensor, positions: Tensor | None = None) -> Tensor:
    """Pairs of entries rotated by an angle that grows with the position (Su et al., 2021)."""
    heads = x.transpose(1, 2) if x.ndim == 4 else x.reshape(*x.shape[:2], op.attr("num_heads"), -1)
    width = op.attr("rotary_embedding_dim", 0) or heads.shape[-1]
    if positions is not None:
        cosine, sine = (table[positions.long()] for table in (cosine, sine))
    cosine, sine = cosine.unsqueeze(2), sine.unsqueeze(2)
    turning, rest = heads[..., :width], heads[..., width:]
    interleaved = op.attr("interleaved", 0)
    first, second = (turning[..., 0::2], turning[..., 1::2]) if interleaved else turning.chunk(2, -1)
    turned = [cosine * first - sine * second, sine * first + cosine * second]
    y = torch.stack(turned, -1).flatten(-2) if interleaved else torch.cat(turned, -1)
    y = torch.cat([y, rest], -1)
    return y.transpose(1, 2) if x.ndim == 4 else y.reshape(x.shape)
