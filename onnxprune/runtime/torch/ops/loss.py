"""The losses of training graphs."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from onnxprune.runtime.torch.ops.base import TorchNode, torch_op

_NO_LABEL = -(2**31)


@torch_op("NegativeLogLikelihoodLoss")
def negative_log_likelihood(op: TorchNode, x: Tensor, labels: Tensor, weight: Tensor | None = None) -> Tensor:
    """Minus the entry of each label, weighted by class."""
    ignored = op.attr("ignore_index", _NO_LABEL)
    shape = labels.shape
    flat = x.reshape(*x.shape[:2], -1) if x.ndim > 2 else x
    loss = F.nll_loss(
        flat,
        labels.reshape(flat.shape[0], -1).long() if x.ndim > 2 else labels.long(),
        weight,
        ignore_index=ignored,
        reduction=op.attr("reduction", "mean"),
    )
    return loss.reshape(shape) if op.attr("reduction", "mean") == "none" else loss


@torch_op("SoftmaxCrossEntropyLoss")
def softmax_cross_entropy(
    op: TorchNode, x: Tensor, labels: Tensor, weight: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The same of the logarithm of the softmax over axis 1, and that logarithm."""
    logarithms = torch.log_softmax(x, 1)
    return negative_log_likelihood(op, logarithms, labels, weight), logarithms
