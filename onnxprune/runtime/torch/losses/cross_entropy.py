"""The loss of classifiers."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (its usual name)

from onnxprune.errors import UsageError
from onnxprune.runtime.torch.losses.base import LossInput, LossSample, log_probabilities, loss

_IGNORED = -100  # the label of positions that do not count, as in torch
_COIN = LossSample([[0.25, 0.75], [0.75, 0.25]], labels=[1, 0], value=0.2876820725)  # -log 0.75


@loss("cross-entropy", labels=True, sample=_COIN)
def cross_entropy(seen: LossInput) -> Tensor:
    """Minus the logarithm of the probability of the label's class.

    Classes lie on the last axis, or on axis 1 as in segmentation, whichever the labels leave.
    """
    prediction, labels = seen.prediction, seen.given
    if labels.is_floating_point():
        labels = _whole(labels)
    if prediction.ndim > 2 and tuple(labels.shape) != tuple(prediction.shape[:-1]):
        prediction = prediction.movedim(1, -1)
    if tuple(labels.shape) != tuple(prediction.shape[:-1]):
        raise UsageError(
            f"labels of shape {tuple(labels.shape)} do not fit a prediction of shape {tuple(prediction.shape)}; "
            "cross-entropy takes one class per sample or position"
        )
    count, wrong = prediction.shape[-1], labels[labels != _IGNORED]
    if wrong.numel() and (int(wrong.min()) < 0 or int(wrong.max()) >= count):
        raise UsageError(f"labels from {int(wrong.min())} to {int(wrong.max())} where the model has {count} classes")
    rows = log_probabilities(prediction).reshape(-1, count)
    labels = labels.reshape(-1).long()
    found = F.nll_loss(rows, labels, ignore_index=_IGNORED, reduction=seen.reduction)
    if not seen.smoothing:
        return found
    even = -rows[labels != _IGNORED].mean(-1)
    return (1 - seen.smoothing) * found + seen.smoothing * (even.mean() if seen.reduction == "mean" else even.sum())


def _whole(labels: Tensor) -> Tensor:
    if not bool((labels == torch.round(labels)).all()):
        raise UsageError("cross-entropy takes classes, these labels are fractions; take 'mse'")
    return labels.long()
