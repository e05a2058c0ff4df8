"""Normalizations by mean and variance."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from onnxprune.runtime.torch.ops.base import TorchNode, per_channel, spatial, torch_op


@torch_op("BatchNormalization")
def batch_normalization(op: TorchNode, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> Any:
    """By running statistics; where the model is trained, or the node asks for it, by those of the batch.

    A node with `training_mode` gives the statistics that ONNX defines, with the biased variance. A model in training
    moves its running ones as torch does, with the unbiased variance, unless another node reads them too.
    """
    epsilon, momentum = op.attr("epsilon", 1e-5), op.attr("momentum", 0.9)
    if op.attr("training_mode", 0):
        y = F.batch_norm(x, None, None, scale, bias, True, 0.0, epsilon)
        with torch.no_grad():
            new_variance, new_mean = torch.var_mean(x, _all_but_channels(x), correction=0)
            return y, *(old.lerp(new, 1 - momentum) for old, new in ((mean, new_mean), (variance, new_variance)))
    if op.settings.training:
        moves = not op.shared & {3, 4} and not isinstance(mean, torch.nn.Parameter)
        if op.settings.across is not None:
            return _across(op, x, scale, bias, (mean, variance) if moves else None)
        running = (mean, variance) if moves else (None, None)
        return F.batch_norm(x, running[0], running[1], scale, bias, True, 1 - momentum, epsilon)
    if mean.requires_grad or variance.requires_grad:  # computed, of which torch's own knows no gradient
        factor = torch.rsqrt(variance + epsilon) * scale
        return x * per_channel(factor, x.ndim) + per_channel(bias - mean * factor, x.ndim)
    return F.batch_norm(x, mean, variance, scale, bias, False, 0.0, epsilon)


def _across(op: TorchNode, x: Tensor, scale: Tensor, bias: Tensor, running: tuple[Tensor, Tensor] | None) -> Tensor:
    """By the statistics of the batches of all processes together."""
    assert op.settings.across is not None
    axes = _all_but_channels(x)
    mine = x.new_full((1,), x.numel() / x.shape[1])
    sums = op.settings.across(torch.cat([mine, x.sum(axes)]))
    count, mean = sums[0], sums[1:] / sums[0]
    centred = x - per_channel(mean, x.ndim)
    variance = op.settings.across(centred.square().sum(axes)) / count
    if running is not None:
        with torch.no_grad():
            share = 1 - op.attr("momentum", 0.9)
            running[0].lerp_(mean, share)
            running[1].lerp_(variance * count / (count - 1), share)
    factor = torch.rsqrt(variance + op.attr("epsilon", 1e-5)) * scale
    return centred * per_channel(factor, x.ndim) + per_channel(bias, x.ndim)


def _all_but_channels(x: Tensor) -> list[int]:
    return [axis for axis in range(x.ndim) if axis != 1]


@torch_op("InstanceNormalization")
def instance_normalization(op: TorchNode, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """By the statistics of each channel of each sample."""
    variance, mean = torch.var_mean(x, spatial(x), correction=0, keepdim=True)
    y = (x - mean) * torch.rsqrt(variance + op.attr("epsilon", 1e-5))
    return y * per_channel(scale, x.ndim) + per_channel(bias, x.ndim)


@torch_op("GroupNormalization")
def group_normalization(op: TorchNode, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """By the statistics of groups of channels (Wu & He, 2018); before opset 21 one scale per group."""
    groups = op.attr("num_groups")
    if scale.numel() != x.shape[1]:
        scale, bias = (part.repeat_interleave(x.shape[1] // groups) for part in (scale, bias))
    return F.group_norm(x, groups, scale, bias, op.attr("epsilon", 1e-5))


@torch_op("LayerNormalization")
def layer_normalization(op: TorchNode, x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Any:
    """By the statistics of all axes from `axis` on (Ba et al., 2016), with the mean and inverse deviation used."""
    axes = list(range(op.attr("axis", -1) % x.ndim, x.ndim))
    epsilon = op.attr("epsilon", 1e-5)
    shape = x.shape[axes[0] :]
    if not op.wants(1) and not op.wants(2) and scale.shape == shape and (bias is None or bias.shape == shape):
        return F.layer_norm(x, shape, scale, bias, epsilon)
    variance, mean = torch.var_mean(x, axes, correction=0, keepdim=True)
    inverse = torch.rsqrt(variance + epsilon)
    y = (x - mean) * inverse * scale
    return (y if bias is None else y + bias), mean, inverse


@torch_op("RMSNormalization", "SimplifiedLayerNormalization")
def rms_normalization(op: TorchNode, x: Tensor, scale: Tensor) -> Any:
    """By the root of the mean square of all axes from `axis` on (Zhang & Sennrich, 2019)."""
    axes = list(range(op.attr("axis", -1) % x.ndim, x.ndim))
    inverse = torch.rsqrt(x.square().mean(axes, keepdim=True) + op.attr("epsilon", 1e-5))
    y = x * inverse * scale
    return (y, inverse) if len(op.wanted) > 1 else y


@torch_op("MeanVarianceNormalization")
def mean_variance_normalization(op: TorchNode, x: Tensor) -> Tensor:
    """To mean zero and variance one over `axes`."""
    axes = op.attr("axes") or [0, 2, 3]
    variance, mean = torch.var_mean(x, axes, correction=0, keepdim=True)
    return (x - mean) / (torch.sqrt(variance) + 1e-9)
