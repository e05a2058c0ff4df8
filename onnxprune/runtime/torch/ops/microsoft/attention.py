"""ONNX Runtime's fused attention (com.microsoft)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from onnxprune.runtime.torch.ops.base import MICROSOFT, TorchNode, standard, torch_op

_HIDDEN = -10000.0  # added to the scores of masked keys


def _in_heads(x: Tensor, heads: int) -> Tensor:
    """[batch, steps, heads * size] as [batch, heads, steps, size]."""
    return x.reshape(*x.shape[:2], heads, -1).transpose(1, 2)


def _attend(op: TorchNode, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """[batch, heads, steps, size] -> [batch, steps, heads * size]."""
    scores = q @ k.transpose(-1, -2) * (op.attr("scale", 0.0) or 1 / math.sqrt(q.shape[-1]))
    shares = torch.softmax(scores if bias is None else scores + bias, -1)
    return (shares @ v).transpose(1, 2).flatten(2)


def _bias(op: TorchNode, q: Tensor, keys: int, mask: Tensor | None, added: Tensor | None) -> Tensor | None:
    """The addition to the scores: masked keys far down, later keys (unidirectional) at minus infinity."""
    bias = None if added is None else added
    if mask is not None:
        hidden = torch.zeros_like(_seen(op, mask, q.shape[0], keys), dtype=q.dtype)
        hidden = hidden.masked_fill(~_seen(op, mask, q.shape[0], keys), op.attr("mask_filter_value", _HIDDEN))
        bias = hidden if bias is None else bias + hidden
    if op.attr("unidirectional", 0):
        row = torch.arange(q.shape[2], device=q.device).reshape(-1, 1) + keys - q.shape[2]
        later = torch.arange(keys, device=q.device) > row
        causal = torch.zeros(later.shape, dtype=q.dtype, device=q.device).masked_fill(later, -torch.inf)
        bias = causal if bias is None else bias + causal
    return bias


def _seen(op: TorchNode, mask: Tensor, batch: int, keys: int) -> Tensor:
    """The keys that a mask leaves: it gives the ends, ends and starts, or a flag per key (and query)."""
    at = torch.arange(keys, device=mask.device)
    if mask.ndim == 1 and mask.shape[0] in (batch, 2 * batch):
        ends, starts = mask[:batch], mask[batch:] if mask.shape[0] > batch else torch.zeros_like(mask)
        return ((at < ends.reshape(-1, 1)) & (at >= starts.reshape(-1, 1)))[:, None, None, :]
    if mask.ndim == 2:
        return (mask > 0)[:, None, None, :]
    if mask.ndim == 3:
        return (mask > 0)[:, None]
    raise op.refuse(f"a mask of shape {tuple(mask.shape)} is not supported")


def _packed(
    op: TorchNode,
    x: Tensor,
    w: Tensor,
    bias: Tensor | None,
    mask: Tensor | None,
    past: Tensor | None,
    added: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Self-attention behind one product for queries, keys and values; `past` is [2, batch, heads, steps, size]."""
    if op.attr("do_rotary", 0):
        raise op.refuse("do_rotary is not supported")
    heads = op.attr("num_heads")
    sizes = op.attr("qkv_hidden_sizes") or [w.shape[1] // 3] * 3
    both = x @ w if bias is None else x @ w + bias
    q, k, v = (_in_heads(part, heads) for part in torch.split(both, sizes, -1))
    if past is not None:
        k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
    y = _attend(op, q, k, v, _bias(op, q, k.shape[2], mask, added))
    return y, torch.stack([k, v]) if k.shape == v.shape else k


@torch_op("Attention", domain=MICROSOFT)
def attention(
    op: TorchNode,
    x: Tensor,
    w: Tensor,
    bias: Tensor | None = None,
    mask: Tensor | None = None,
    past: Tensor | None = None,
    added: Tensor | None = None,
    length: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Self-attention, and the keys and values with those of the past."""
    if length is not None:
        raise op.refuse("a cache that shares its buffer is not supported")
    return _packed(op, x, w, bias, mask, past, added)


@torch_op("QAttention", domain=MICROSOFT)
def quantized_attention(
    op: TorchNode,
    x: Tensor,
    w: Tensor,
    bias: Tensor,
    x_scale: Tensor,
    w_scale: Tensor,
    mask: Tensor | None = None,
    x_zero: Tensor | None = None,
    w_zero: Tensor | None = None,
    past: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The same of integers."""
    x = x.to(x_scale.dtype) - (0 if x_zero is None else x_zero.to(x_scale.dtype))
    w = w.to(w_scale.dtype) - (0 if w_zero is None else w_zero.to(w_scale.dtype))
    return _packed(op, x * x_scale, w * w_scale, bias, mask, past)


@torch_op("MultiHeadAttention", domain=MICROSOFT)
def multi_head_attention(
    op: TorchNode,
    query: Tensor,
    key: Tensor | None = None,
    value: Tensor | None = None,
    bias: Tensor | None = None,
    mask: Tensor | None = None,
    added: Tensor | None = None,
    past_key: Tensor | None = None,
    past_value: Tensor | None = None,
    *others: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Attention of queries to keys and values, apart or in one, and those with the past ones."""
    if any(other is not None for other in others):
        raise op.refuse("caches that share their buffer or are rearranged are not supported")
    heads = op.attr("num_heads")
    if query.ndim == 5:  # [batch, steps, heads, 3, size]
        q, k, v = query.permute(3, 0, 2, 1, 4)
    else:
        q = _in_heads(query, heads)
        if key is not None and key.ndim == 5:  # [batch, steps, heads, 2, size]
            k, v = key.permute(3, 0, 2, 1, 4)
        else:
            assert key is not None
            assert value is not None
            k, v = (x if x.ndim == 4 else _in_heads(x, heads) for x in (key, value))
    if bias is not None:
        parts = torch.split(bias, [heads * x.shape[-1] for x in (q, k, v)])
        cached = key is not None and key.ndim == 4  # keys and values out of a cache have their biases already
        q, k, v = (
            x if cached and i else x + part.reshape(heads, 1, -1)
            for i, (x, part) in enumerate(zip((q, k, v), parts, strict=True))
        )
    if past_key is not None and past_value is not None:
        k, v = torch.cat([past_key, k], 2), torch.cat([past_value, v], 2)
    return _attend(op, q, k, v, _bias(op, q, k.shape[2], mask, added)), k, v


@torch_op("GroupQueryAttention", domain=MICROSOFT, numbers=(5,))
def group_query_attention(
    op: TorchNode,
    query: Tensor,
    key: Tensor | None,
    value: Tensor | None,
    past_key: Tensor | None,
    past_value: Tensor | None,
    last: Any,
    total: Any,  # noqa: ARG001  (the longest of them)
    cosine: Tensor | None = None,
    sine: Tensor | None = None,
    positions: Tensor | None = None,
    added: Tensor | None = None,
    sinks: Tensor | None = None,
    *others: Tensor | None,
) -> tuple[Tensor, ...]:
    """Causal attention whose key heads serve several query heads (Ainslie et al., 2023), with caches and rotation.

    `last` is the index of the last key of each sample; samples of one length only.
    """
    if any(other is not None for other in others):
        raise op.refuse("quantized caches and norms of queries and keys are not supported")
    ends = last if isinstance(last[0], int) else [int(row[0]) for row in last]
    steps, heads, served = query.shape[1], op.attr("num_heads"), op.attr("kv_num_heads")
    if len(set(ends)) > 1:
        raise op.refuse("samples of unequal lengths are not supported")
    if key is None or value is None:
        size = query.shape[2] // (heads + 2 * served)
        query, key, value = torch.split(query, [heads * size, served * size, served * size], -1)
    q, k, v = _in_heads(query, heads), _in_heads(key, served), _in_heads(value, served)
    past = ends[0] + 1 - steps
    if op.attr("do_rotary", 0):
        at = positions if positions is not None else torch.arange(past, past + steps, device=q.device)
        at = at.reshape(-1, steps).expand(q.shape[0], steps)
        turn = {"interleaved": op.attr("rotary_interleaved", 0), "rotary_embedding_dim": _width(cosine)}
        q, k = (standard(op, "RotaryEmbedding", x, cosine, sine, at, **turn) for x in (q, k))
    if past_key is not None and past_value is not None and past > 0:
        k, v = torch.cat([past_key[:, :, :past], k], 2), torch.cat([past_value[:, :, :past], v], 2)
    y, scores = _grouped(op, q, k, v, added, sinks)
    return y, k, v, scores


def _width(cosine: Tensor | None) -> int:
    return 0 if cosine is None else 2 * cosine.shape[-1]


def _grouped(
    op: TorchNode, q: Tensor, k: Tensor, v: Tensor, added: Tensor | None, sinks: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The output, and the scores before (qk_output=1) or after (2) the softmax."""
    repeats = q.shape[1] // k.shape[1]
    keys, values = k.repeat_interleave(repeats, 1), v.repeat_interleave(repeats, 1)
    scores = q @ keys.transpose(-1, -2) * (op.attr("scale", 0.0) or 1 / math.sqrt(q.shape[-1]))
    softcap = op.attr("softcap", 0.0)
    scores = softcap * torch.tanh(scores / softcap) if softcap else scores
    row = torch.arange(q.shape[2], device=q.device).reshape(-1, 1) + k.shape[2] - q.shape[2]
    column = torch.arange(k.shape[2], device=q.device)
    window = op.attr("local_window_size", -1)
    hidden = (column > row) | (column <= row - window if window > 0 else torch.zeros_like(column > row))
    scores = (scores if added is None else scores + added).masked_fill(hidden, -torch.inf)
    if sinks is not None or op.attr("smooth_softmax", 0):  # a further key that nothing is read from
        sink = torch.zeros(q.shape[1], device=q.device, dtype=q.dtype) if sinks is None else sinks
        padded = torch.cat([scores, sink.reshape(1, -1, 1, 1).expand(*scores.shape[:3], 1)], -1)
        shares = torch.softmax(padded, -1)[..., :-1]
    else:
        shares = torch.softmax(scores, -1)
    y = (shares @ values).transpose(1, 2).flatten(2)
    return y, shares if op.attr("qk_output", 0) == 2 else scores.masked_fill(hidden, 0)
