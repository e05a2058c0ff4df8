"""The loss of regressions."""

from __future__ import annotations

from torch import Tensor

from onnxprune.errors import UsageError
from onnxprune.runtime.torch.losses.base import LossInput, LossSample, loss


@loss("mse", labels=True, sample=LossSample([[1.0, 3.0], [0.0, 0.0]], labels=[[0.0, 1.0], [0.0, 0.0]], value=1.25))
def mse(seen: LossInput) -> Tensor:
    """The squared difference, a mean over all entries, or the sum over the samples of their means."""
    prediction, labels = seen.prediction, seen.given
    if labels.numel() != prediction.numel():
        raise UsageError(
            f"labels of shape {tuple(labels.shape)} do not fit a prediction of shape {tuple(prediction.shape)}; "
            "mse takes one value per entry"
        )
    mean = (prediction - labels.reshape(prediction.shape).to(prediction.dtype)).square().mean()
    return mean if seen.reduction == "mean" else mean * prediction.shape[0]
