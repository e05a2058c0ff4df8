"""Losses, which gradients are taken of: the losses by name, and how one is made for a model.

A loss is a function under `@loss(...)` of what it sees of a batch; it returns a scalar:

    @loss("mse", labels=True, sample=LossSample([[1.0, 3.0]], value=2.5, labels=[[0.0, 1.0]]))
    def mse(seen): ...
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from onnxprune.errors import MissingExtraError, UsageError

try:
    import torch
    from torch import Tensor
except ImportError:
    raise MissingExtraError("torch", "torch") from None

from onnxprune.support.messages import did_you_mean, one_line
from onnxprune.support.registry import Registry, imported_function, summary

Outputs = Mapping[str, Tensor]
Loss = Callable[[Outputs, Tensor | None], Tensor]

REDUCTIONS = ("mean", "sum")
AUTO = "auto"


class LabelDraw:
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


@dataclass(frozen=True)
class LossInput:
    """A batch as a loss sees it.

    Attributes:
        prediction: the model's first output, floats [samples, ...].
        labels: on the same device; None where there are none.
        floats: all outputs that are floats, in the model's order.
        reduction: "mean" or "sum" over the samples (for labels per position: over the positions that have one).
        draw: makes labels up, new ones in every call.
        smoothing: share of a label's weight that all classes get alike.
    """

    prediction: Tensor
    labels: Tensor | None
    floats: Sequence[Tensor]
    reduction: str
    draw: LabelDraw
    smoothing: float = 0.0

    @property
    def given(self) -> Tensor:
        """The labels of a loss that needs some."""
        assert self.labels is not None
        return self.labels


@dataclass(frozen=True)
class LossSample:
    """One case for the contract tests.

    Attributes:
        output: of a model, samples along axis 0.
        value: of the loss, as a mean; None where labels are drawn.
        labels: where it needs them.
    """

    output: Sequence[Any]
    value: float | None = None
    labels: Sequence[Any] | None = None


@dataclass(frozen=True)
class NamedLoss:
    """A registered loss.

    Attributes:
        name: what the command line calls it.
        function: of what it sees of a batch, to a scalar.
        labels: it needs labels.
        sample: a case with a known value.
    """

    name: str
    function: Callable[[LossInput], Tensor]
    labels: bool
    sample: LossSample

    @property
    def summary(self) -> str:
        """The first line of the function's docstring."""
        return summary(self.function)


LOSSES: Registry[str, NamedLoss] = Registry("loss", __package__, "onnxprune.losses")


def loss(
    name: str, *, sample: LossSample, labels: bool = False
) -> Callable[[Callable[[LossInput], Tensor]], Callable[[LossInput], Tensor]]:
    """Decorator: make a function known as loss `name`; see NamedLoss. Raises ValueError when the name is taken."""

    def add(function: Callable[[LossInput], Tensor]) -> Callable[[LossInput], Tensor]:
        LOSSES.register(name)(NamedLoss(name, function, labels, sample))
        return function

    return add


def make_loss(
    name: str, outputs: Sequence[str], seed: int = 0, reduction: str = "mean", smoothing: float = 0.0
) -> Loss:
    """The loss of that name, a function of the model's outputs and of the labels, which gives a scalar.

    Args:
        name: one of LOSSES, "auto" for the one that fits (see `choose`), or `module:function`, a function of the
            outputs by name and the labels (None where there are none) that returns a scalar.
        outputs: the names of the model's outputs; the first is the prediction.
        seed: of the drawn labels. Every call draws new ones; the same seed gives the same sequence.
        reduction: "mean" or "sum" over the samples (for labels per position: over the positions that have one).
        smoothing: share of a label's weight that all classes get alike (Szegedy et al. 2016, "Rethinking the Inception
            Architecture for Computer Vision", section 7).

    Raises UsageError for an unknown name or reduction, and when it is called, for outputs or labels that do not fit.
    """
    if reduction not in REDUCTIONS:
        raise UsageError(f"unknown reduction '{reduction}'{did_you_mean(reduction, REDUCTIONS)}")
    if not outputs:
        raise UsageError("the model has no output to take a loss of")
    if ":" in name:
        return _checked(name, imported_function(name))
    if name != AUTO and name not in LOSSES:
        raise UsageError(f"{LOSSES.unknown(name, AUTO)}; module:function names your own")
    draw = LabelDraw(seed)

    def value_of(found: Outputs, labels: Tensor | None = None) -> Tensor:
        prediction = _as_float(found[outputs[0]], outputs[0])
        labels = labels if labels is None else labels.to(prediction.device)
        kind = LOSSES[choose_loss(prediction, labels) if name == AUTO else name]
        if kind.labels and labels is None:
            raise UsageError(f"the loss '{kind.name}' needs labels; without them take 'sampled' or 'reconstruction'")
        floats = [value for key in outputs if _is_float(value := found[key])]
        return kind.function(LossInput(prediction, labels, floats, reduction, draw, smoothing))

    return value_of


def choose_loss(prediction: Tensor, labels: Tensor | None) -> str:
    """The loss that fits a prediction.

    With labels: cross-entropy where they are integers and have one axis less than the prediction, of several classes,
    else mse. Without: sampled for [samples, classes] and [samples, positions, classes], else reconstruction.
    """
    if labels is not None:
        classes = (
            not labels.is_floating_point() and labels.ndim == prediction.ndim - 1 and max(prediction.shape[1:]) > 1
        )
        return "cross-entropy" if classes else "mse"
    return "sampled" if prediction.ndim in (2, 3) and prediction.shape[-1] > 1 else "reconstruction"


def are_probabilities(prediction: Tensor) -> bool:
    """Are the entries along the last axis a distribution already?"""
    with torch.no_grad():
        sums = prediction.sum(-1)
        return bool((prediction >= 0).all()) and bool(((sums - 1).abs() < 1e-3).all())


def log_probabilities(prediction: Tensor) -> Tensor:
    """[..., classes]: the logarithm of the softmax, or of the prediction where that is a distribution already."""
    if are_probabilities(prediction):
        return torch.log(prediction.clamp(min=torch.finfo(prediction.dtype).tiny))
    return torch.log_softmax(prediction, -1)


def _is_float(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _as_float(value: Any, name: str) -> Tensor:
    if not _is_float(value) or value.ndim == 0:
        raise UsageError(f"output '{name}' is not a tensor of floats with samples, so no loss can be taken of it")
    found: Tensor = value
    return found


def _checked(name: str, function: Callable[..., Any]) -> Loss:
    def value_of(found: Outputs, labels: Tensor | None = None) -> Tensor:
        try:
            value = function(dict(found), labels)
        except Exception as error:  # whatever the user's function raises
            raise UsageError(f"the loss '{name}' failed: {type(error).__name__}: {one_line(error)}") from error
        if not isinstance(value, Tensor) or value.numel() != 1 or not value.is_floating_point():
            raise UsageError(f"the loss '{name}' has to return one float as a tensor, not {_described(value)}")
        return value.reshape(())

    return value_of


def _described(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)} and type {value.dtype}"
    return type(value).__name__
