"""The loss of a training: labels, the teacher's outputs and the teacher's inner values, added up.

Outputs are compared by the Kullback-Leibler divergence at a temperature (Hinton, Vinyals and Dean, "Distilling the
knowledge in a neural network", 2015), or by the mean square in units of the teacher's variance. Inner values are
compared unit by unit, each in units of its own variance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from onnxprune.errors import UsageError
from onnxprune.runtime.torch.losses import are_probabilities, choose_loss, make_loss
from onnxprune.steps.train.augment import Mixed
from onnxprune.steps.train.distil import Targets
from onnxprune.steps.train.options import AUTO, DISTANCES, TrainOptions
from onnxprune.support.messages import did_you_mean

Values = Mapping[str, Tensor]
# Of the mean over all units; a unit that hardly varies is not blown up beyond that.
_LEAST_VARIANCE = 1e-2
_CLASS_NAMES = ("logit", "prob", "class", "softmax", "label")


class Objective:
    """The loss that is minimized: `labels * (1 - d) + distilled * d + features * f`, a mean over samples.

    Args:
        options: the weights of the parts, temperature and distances.
        outputs: the names of the model's outputs; labels speak of the first.
        labelled: the samples have labels.
        loss: on labels.
        targets: the teacher; None where there is none.
        sample: what the teacher says to some samples, to see what its outputs are.

    Raises UsageError where there is nothing to learn from, or an output that does not exist is named.
    """

    def __init__(
        self,
        options: TrainOptions,
        outputs: Sequence[str],
        *,
        labelled: bool,
        loss: str = AUTO,
        targets: Targets | None = None,
        sample: Values | None = None,
    ) -> None:
        self._options, self.outputs, self._targets = options, list(outputs), targets
        self.uses_labels = labelled and options.distil != 1
        share = 1.0 if not self.uses_labels else 0.5 if options.distil is None else options.distil
        self.distil = share if targets is not None else 0.0
        if not self.uses_labels and targets is None:
            raise UsageError("there is nothing to learn from: give data with labels, or the original to distil from")
        self._loss = make_loss(loss, outputs, smoothing=options.smoothing) if self.uses_labels else None
        self._of_user = ":" in loss
        self._ready: set[str] = set()  # outputs that are probabilities already
        self._scale: dict[str, float] = {}
        self.distances = {} if sample is None else self._distances(sample)
        self.features = list(targets.features) if targets is not None and options.features else []

    def _distances(self, sample: Values) -> dict[str, str]:
        """How each output of floats is compared."""
        named = dict(entry.partition("=")[::2] for entry in self._options.distance if "=" in entry)
        general = [entry for entry in self._options.distance if "=" not in entry]
        for name in named:
            if name not in self.outputs:
                raise UsageError(f"distance names an output '{name}'{did_you_mean(name, self.outputs)}")
        for kind in (*named.values(), *general):
            if kind not in DISTANCES:
                raise UsageError(f"unknown distance '{kind}'{did_you_mean(kind, DISTANCES)}")
        found = {}
        for name in self.outputs:
            value = sample[name]
            if not isinstance(value, Tensor) or not value.is_floating_point() or not value.numel():
                continue
            kind = named.get(name, general[-1] if general else AUTO)
            if value.ndim > 1 and are_probabilities(_classes_last(value)):
                self._ready.add(name)
            found[name] = self._fitting(name, value) if kind == AUTO else kind
            self._scale[name] = max(float(value.double().var(correction=0)), 1e-12)
        if not found:
            raise UsageError("the model has no output of floats, so there is nothing to distil")
        return found

    def _fitting(self, name: str, value: Tensor) -> str:
        """Classes where the output is a distribution, is called after classes, or has one row of scores per sample."""
        several = value.ndim > 1 and _classes_last(value).shape[-1] > 1
        named = any(part in name.lower() for part in _CLASS_NAMES)
        return "kl" if several and (name in self._ready or named or value.ndim == 2) else "mse"

    def __call__(
        self, found: Values, labels: Tensor | None, targets: Values | None, mixed: Mixed | None = None
    ) -> Tensor:
        """The loss of a batch.

        Args:
            found: the model's outputs and inner values.
            labels: of the samples.
            targets: what the teacher says to the same inputs.
            mixed: how the samples were mixed with each other, if they were.
        """
        parts = []
        if self._loss is not None and self.distil < 1:
            parts.append((1 - self.distil) * self._labels(found, labels, mixed))
        if targets is not None and self.distil:
            distances = [self._distance(name, found[name], targets[name]) for name in self.distances]
            parts.append(self.distil * torch.stack(distances).mean())
        if targets is not None and self.features:
            features = [self._feature(name, found[name], targets[name]) for name in self.features]
            parts.append(self._options.features * torch.stack(features).mean())
        return torch.stack(parts).sum()

    def _labels(self, found: Values, labels: Tensor | None, mixed: Mixed | None) -> Tensor:
        assert self._loss is not None
        outputs = {name: found[name] for name in self.outputs}
        loss = self._loss(outputs, labels)
        if mixed is None or mixed.partner is None or labels is None:
            return loss
        other = self._loss(outputs, labels[mixed.partner.to(labels.device)])
        return mixed.share * loss + (1 - mixed.share) * other

    def _distance(self, name: str, ours: Tensor, theirs: Tensor) -> Tensor:
        if self.distances[name] == "mse":
            return (ours - theirs).square().mean() / self._scale[name]
        heat = self._options.temperature
        student, teacher = (self._logarithms(name, value) for value in (ours, theirs))
        divergence = F.kl_div(student, teacher, reduction="sum", log_target=True)
        return divergence * heat**2 / max(student.numel() // student.shape[-1], 1)

    def _logarithms(self, name: str, value: Tensor) -> Tensor:
        """Logarithms of the probabilities [..., classes] at the temperature."""
        value = _classes_last(value)
        if name in self._ready:
            value = value.clamp(min=torch.finfo(value.dtype).tiny).log()
        return F.log_softmax(value / self._options.temperature, -1)

    def _feature(self, name: str, ours: Tensor, theirs: Tensor) -> Tensor:
        assert self._targets is not None
        axis = self._targets.unit_axis(name, theirs)
        others = [other for other in range(theirs.ndim) if other != axis]
        variance = theirs.var(others, correction=0, keepdim=True)
        least = _LEAST_VARIANCE * variance.mean()
        return ((ours - theirs).square() / (variance + least).clamp(min=1e-12)).mean()

    def fit_features(self, found: Values, targets: Values) -> list[str]:
        """Leave out inner values whose shapes differ; the names of those that are compared."""
        self.features = [
            name
            for name in self.features
            if isinstance(found[name], Tensor)
            and found[name].is_floating_point()
            and found[name].shape == targets[name].shape
            and found[name].ndim > 1
        ]
        return self.features

    def of_constant(self, outputs: Values, labels: Tensor | None, targets: Values | None) -> float | None:
        """The loss of a model that gives the same answer to every sample: the best such answer to these.

        A model above it has collapsed. None for a loss of the user's own, of which that cannot be said.
        """
        if self._loss is not None and self.distil < 1 and self._of_user:
            return None
        answer = dict(outputs)
        if targets is not None and self.distil:
            for name in self.distances:
                answer[name] = self._mean_answer(name, targets[name]).expand_as(targets[name])
        elif labels is not None:
            answer[self.outputs[0]] = _mean_label(outputs[self.outputs[0]], labels)
        features, self.features = self.features, []
        try:
            with torch.no_grad():
                return float(self(answer, labels, targets)) + (self._options.features if features else 0.0)
        finally:
            self.features = features

    def _mean_answer(self, name: str, theirs: Tensor) -> Tensor:
        if self.distances[name] == "mse":
            return theirs.mean(0, keepdim=True)
        logs = self._logarithms(name, theirs)
        mean = logs.exp().reshape(-1, logs.shape[-1]).mean(0)
        scores = mean.clamp(min=1e-12).log() * self._options.temperature
        scores = scores.softmax(-1) if name in self._ready else scores
        shape = [1] * theirs.ndim
        shape[1 if theirs.ndim > 3 else -1] = -1
        return scores.reshape(shape)


def _classes_last(value: Tensor) -> Tensor:
    """Classes lie on the last axis, from four axes on (segmentation) on axis 1."""
    return value.movedim(1, -1) if value.ndim > 3 else value


def _mean_label(output: Tensor, labels: Tensor) -> Tensor:
    """The mean of the labels, or the logarithms of the classes' shares, for every sample."""
    if choose_loss(output, labels) == "mse":
        return labels.to(output.dtype).reshape(output.shape).mean(0, keepdim=True).expand_as(output)
    classes = output.shape[-1] if tuple(labels.shape) == tuple(output.shape[:-1]) else output.shape[1]
    counted = labels[labels >= 0].long()
    shares = torch.bincount(counted.flatten(), minlength=classes)[:classes].to(output.dtype)
    scores = (shares / shares.sum()).clamp(min=1e-6).log()
    shape = [1] * output.ndim
    shape[-1 if tuple(labels.shape) == tuple(output.shape[:-1]) else 1] = -1
    return scores.reshape(shape).expand_as(output)
