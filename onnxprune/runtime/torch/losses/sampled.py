"""The loss of classifiers without labels."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (its usual name)

from onnxprune.runtime.torch.losses.base import LossInput, LossSample, log_probabilities, loss


@loss("sampled", sample=LossSample([[0.0, 1.0], [2.0, 0.0]]))
def sampled(seen: LossInput) -> Tensor:
    """Cross-entropy at labels that are drawn from the classes that the model predicts."""
    logarithms = log_probabilities(seen.prediction)
    drawn = seen.draw.labels(logarithms)
    return F.nll_loss(logarithms.reshape(-1, logarithms.shape[-1]), drawn.reshape(-1), reduction=seen.reduction)
