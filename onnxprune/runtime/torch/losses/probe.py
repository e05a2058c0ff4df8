"""Random directions at the outputs of a model whose covariance is the curvature of its loss there.

Their gradients, squared, are the diagonal of the Fisher information, or Gauss-Newton matrix, in expectation. So are
those at labels drawn from the predictions, with far more noise: one label of a confident classifier says next to
nothing of the others.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from onnxprune.runtime.torch.losses.base import Outputs, choose_loss, log_probabilities


class CurvatureProbe:
    """A scalar whose gradient by the outputs z has the mean 0 and the covariance of the loss's curvature.

    Of a classifier with probabilities p that is diag(p) - p p'. With independent random signs e, the vector
    s = sqrt(p) * e - p * (sqrt(p) . e) has just this covariance (the output product of Martens 2020, "New Insights and
    Perspectives on the Natural Gradient Method", section 6, with signs in place of its draws). Other outputs are means
    of Gaussians of variance one, whose curvature is the identity: s = e. Signs are drawn on the processor, anew in
    every call.

    Args:
        outputs: the names of the model's outputs; the first is the prediction.
        seed: of the signs.
    """

    def __init__(self, outputs: Sequence[str], seed: int = 0) -> None:
        self._outputs = outputs
        self._generator = torch.Generator().manual_seed(seed)

    def __call__(self, found: Outputs) -> Tensor:
        """The sum over all samples, for outputs by name."""
        prediction = found[self._outputs[0]]
        if choose_loss(prediction, None) == "sampled":
            logarithms = log_probabilities(prediction)
            p = logarithms.detach().exp()
            root = p.sqrt() * self._signs(p)
            return ((root - p * root.sum(-1, keepdim=True)) * logarithms).sum()
        floats = [value for name in self._outputs if (value := found[name]).is_floating_point()]
        return torch.stack([(value * self._signs(value)).sum() for value in floats]).sum()

    def _signs(self, like: Tensor) -> Tensor:
        signs = torch.randint(0, 2, like.shape, generator=self._generator) * 2 - 1
        return signs.to(like)
