"""What gradients are taken of: losses with labels, and losses that need none.

Without labels a classifier is asked for its own. Drawn from the distribution that it predicts, they give the true
Fisher information (Martens, "New insights and perspectives on the natural gradient method", JMLR 2020, section 5),
which gradients at other labels do not (Kunstner, Balles and Hennig, "Limitations of the empirical Fisher approximation
for natural gradient descent", NeurIPS 2019). Other outputs are taken as the means of Gaussians of variance one, and the
targets are drawn from those: the loss is half the squared distance to the output with noise added.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from onnxprune.errors import MissingExtraError, UsageError

try:
    import torch
    from torch import Tensor
    from torch.nn import functional as F  # noqa: N812  (its usual name)
except ImportError:
    raise MissingExtraError("torch", "torch") from None

from onnxprune.support.messages import did_you_mean, one_line
from onnxprune.support.registry import imported_function

Outputs = Mapping[str, Tensor]
Loss = Callable[[Outputs, Tensor | None], Tensor]

LOSSES = ("auto", "cross-entropy", "mse", "reconstruction", "sampled")
REDUCTIONS = ("mean", "sum")
_IGNORED = -100  # the label of positions that do not count, as in torch


def make_loss(
    name: str, outputs: Sequence[str], seed: int = 0, reduction: str = "mean", smoothing: float = 0.0
) -> Loss:
    """The loss of that name, a function of the model's outputs and of the labels, which gives a scalar.

    Args:
        name: "cross-entropy" or "mse" with labels, "sampled" or "reconstruction" without, "auto" for what fits (see
            `choose`), or `module:function`, a function of the outputs by name and the labels (None where there are
            none) that returns a scalar.
        outputs: the names of the model's outputs; the first is the prediction.
        seed: of the drawn labels. Every call draws new ones; the same seed gives the same sequence.
        reduction: "mean" or "sum" over the samples (for labels per position: over the positions that have one).
        smoothing: share of a label's weight that all classes get alike (Szegedy et al., 2016).

    Raises UsageError for an unknown name or reduction, and when it is called, for outputs or labels that do not fit.
    """
    if reduction not in REDUCTIONS:
        raise UsageError(f"unknown reduction '{reduction}'{did_you_mean(reduction, REDUCTIONS)}")
    if not outputs:
        raise UsageError("the model has no output to take a loss of")
    if ":" in name:
        return _checked(name, imported_function(name))
    if name not in LOSSES:
        raise UsageError(f"unknown loss '{name}'{did_you_mean(name, LOSSES)}; module:function names your own")
    draw = _Draw(seed)

    def loss(found: Outputs, labels: Tensor | None = None) -> Tensor:
        prediction = _as_float(found[outputs[0]], outputs[0])
        labels = labels if labels is None else labels.to(prediction.device)
        kind = choose(prediction, labels) if name == "auto" else name
        if kind == "sampled":
            return _cross_entropy(prediction, draw.labels(_log_probabilities(prediction)), reduction)
        if kind == "reconstruction":
            floats = [value for key in outputs if _is_float(value := found[key])]
            return torch.stack([_half_squares(value, draw.targets(value), reduction) for value in floats]).sum()
        if labels is None:
            raise UsageError(f"the loss '{kind}' needs labels; without them take 'sampled' or 'reconstruction'")
        if kind == "mse":
            return _mean_squares(prediction, labels, reduction)
        return _cross_entropy(prediction, labels, reduction, smoothing)

    return loss


def choose(prediction: Tensor, labels: Tensor | None) -> str:
    """The loss that fits a prediction.

    With labels: cross-entropy where they are integers and have one axis less than the prediction, of several classes,
    else mse. Without:
    sampled for [samples, classes] and [samples, positions, classes], else reconstruction.
    """
    if labels is not None:
        classes = (
            not labels.is_floating_point() and labels.ndim == prediction.ndim - 1 and max(prediction.shape[1:]) > 1
        )
        return "cross-entropy" if classes else "mse"
    return "sampled" if prediction.ndim in (2, 3) and prediction.shape[-1] > 1 else "reconstruction"


class _Draw:
    """The labels that are drawn; on the processor, so that all devices see the same ones."""

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    def labels(self, log_probabilities: Tensor) -> Tensor:
        """A class per position, drawn with these logarithms of probabilities [..., classes]."""
        shares = log_probabilities.detach().double().exp().cpu()
        drawn = torch.multinomial(shares.reshape(-1, shares.shape[-1]), 1, generator=self._generator)
        return drawn.reshape(shares.shape[:-1]).to(log_probabilities.device)

    def targets(self, output: Tensor) -> Tensor:
        """The output with normal noise of variance one."""
        noise = torch.randn(output.shape, generator=self._generator, dtype=output.dtype)
        return output.detach() + noise.to(output.device)


def _is_float(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _as_float(value: Any, name: str) -> Tensor:
    if not _is_float(value) or value.ndim == 0:
        raise UsageError(f"output '{name}' is no tensor of floats with samples, so no loss can be taken of it")
    found: Tensor = value
    return found


def are_probabilities(prediction: Tensor) -> bool:
    """Are the entries along the last axis a distribution already?"""
    with torch.no_grad():
        sums = prediction.sum(-1)
        return bool((prediction >= 0).all()) and bool(((sums - 1).abs() < 1e-3).all())


def _log_probabilities(prediction: Tensor) -> Tensor:
    """[..., classes]: the logarithm of the softmax, or of the prediction where that is a distribution already."""
    if are_probabilities(prediction):
        return torch.log(prediction.clamp(min=torch.finfo(prediction.dtype).tiny))
    return torch.log_softmax(prediction, -1)


def _cross_entropy(prediction: Tensor, labels: Tensor, reduction: str, smoothing: float = 0.0) -> Tensor:
    """Classes on the last axis, or on axis 1 as in segmentation, whichever the labels leave."""
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
    rows = _log_probabilities(prediction).reshape(-1, count)
    labels = labels.reshape(-1).long()
    loss = F.nll_loss(rows, labels, ignore_index=_IGNORED, reduction=reduction)
    if not smoothing:
        return loss
    even = -rows[labels != _IGNORED].mean(-1)
    return (1 - smoothing) * loss + smoothing * (even.mean() if reduction == "mean" else even.sum())


def _whole(labels: Tensor) -> Tensor:
    if not bool((labels == labels.round()).all()):
        raise UsageError("cross-entropy takes classes, these labels are fractions; take 'mse'")
    return labels.long()


def _mean_squares(prediction: Tensor, labels: Tensor, reduction: str) -> Tensor:
    """The mean over all entries, or the sum over the samples of their means."""
    if labels.numel() != prediction.numel():
        raise UsageError(
            f"labels of shape {tuple(labels.shape)} do not fit a prediction of shape {tuple(prediction.shape)}; "
            "mse takes one value per entry"
        )
    mean = (prediction - labels.reshape(prediction.shape).to(prediction.dtype)).square().mean()
    return mean if reduction == "mean" else mean * prediction.shape[0]


def _half_squares(output: Tensor, target: Tensor, reduction: str) -> Tensor:
    """Minus the logarithm of a Gaussian, up to a constant: summed over a sample's entries."""
    total = 0.5 * (output - target).square().sum()
    return total if reduction == "sum" or output.ndim == 0 else total / output.shape[0]


def _checked(name: str, function: Callable[..., Any]) -> Loss:
    def loss(found: Outputs, labels: Tensor | None = None) -> Tensor:
        try:
            value = function(dict(found), labels)
        except Exception as error:  # whatever the user's function raises
            raise UsageError(f"the loss '{name}' failed: {type(error).__name__}: {one_line(error)}") from error
        if not isinstance(value, Tensor) or value.numel() != 1 or not value.is_floating_point():
            raise UsageError(f"the loss '{name}' has to return one float as a tensor, not {_described(value)}")
        return value.reshape(())

    return loss


def _described(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)} and type {value.dtype}"
    return type(value).__name__
