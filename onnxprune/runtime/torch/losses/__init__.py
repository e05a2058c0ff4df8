"""Losses, which gradients are taken of, one per file: with labels, and without.

Every file of this package, and every plug-in of the entry point group `onnxprune.losses`, adds to the table of `base`.

Without labels a classifier is asked for its own. Drawn from the distribution that it predicts, they give the true
Fisher information (Martens, "New insights and perspectives on the natural gradient method", JMLR 2020, section 5),
which gradients at other labels do not (Kunstner, Balles and Hennig, "Limitations of the empirical Fisher approximation
for natural gradient descent", NeurIPS 2019). Other outputs are taken as the means of Gaussians of variance one, and the
targets are drawn from those: the loss is half the squared distance to the output with noise added.
"""

from onnxprune.runtime.torch.losses.base import (
    LOSSES,
    Loss,
    LossInput,
    LossSample,
    Outputs,
    are_probabilities,
    choose_loss,
    loss,
    make_loss,
)

__all__ = [
    "LOSSES",
    "Loss",
    "LossInput",
    "LossSample",
    "Outputs",
    "are_probabilities",
    "choose_loss",
    "loss",
    "make_loss",
]
