"""Statistics of gradients by single weights, of the shapes of the weights: for criteria that score weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from onnxprune.analysis.groups import Analysis
from onnxprune.data.base import Batch, Data, length_of
from onnxprune.errors import UsageError
from onnxprune.runtime.torch.losses import make_loss
from onnxprune.runtime.torch.losses.probe import CurvatureProbe
from onnxprune.statistics.derivatives import (
    PROBED_TOGETHER,
    ModelOnData,
    derivatives,
    finite,
    set_zeros,
    small_batches,
    synaptic_flow,
)

Sums = npt.NDArray[np.float64]
# Samples whose gradients are taken one by one.
_ONE_BY_ONE = 256
_AS_THEY_COME = 1 << 30


class WeightGradients(ModelOnData):
    """Gradients of an analysed model's loss by its weights, on samples.

    Args:
        analysis, data, settings: see `ModelOnData`, also for the errors.
        names: the weights that are asked for.
        kept: per weight, entries that may be other than zero: the others are.
    """

    def __init__(
        self,
        analysis: Analysis,
        data: Data | None,
        names: Sequence[str],
        *,
        kept: Mapping[str, npt.NDArray[np.bool_]] = {},
        **settings: Any,
    ) -> None:
        super().__init__(analysis, data, **settings)
        self._kept = kept
        set_zeros(self._model, kept)
        self._names = list(dict.fromkeys(names))

    def mean(self) -> dict[str, Sums]:
        """The gradient of the mean loss over all samples."""
        return self._averaged((length_of(batch), slopes) for batch, slopes in self._slopes("mean"))

    def squares(self) -> dict[str, Sums]:
        """The mean over batches of the squared gradient of a batch's mean loss."""
        return self._averaged((length_of(batch), _squared(slopes)) for batch, slopes in self._slopes("mean"))

    def fisher(self) -> dict[str, Sums]:
        """The mean over samples of the squared gradient of a sample's loss: the diagonal of the empirical Fisher.

        Of the first 256 samples, one by one.
        """
        return self._averaged((1, _squared(slopes)) for _, slopes in self._slopes("mean", one_by_one=True))

    def curvature(self) -> dict[str, Sums]:
        """The diagonal of the Gauss-Newton matrix of the mean loss, in expectation; see `CurvatureProbe`."""
        return self._averaged((length_of(batch), _squared(found, length_of(batch))) for batch, found in self._probes())

    def hessian_times_gradient(self) -> dict[str, Sums]:
        """The product of the Hessian of the mean loss with its gradient, the mean over batches."""
        return self._averaged(self._flows())

    def synaptic_flow(self) -> dict[str, Sums]:
        """The gradient of the sum of all outputs, with absolute weights and inputs of 1."""
        model, flows = synaptic_flow(self.analysis, self._device, self._kept)
        weights = [model.weights[name] for name in self._names]
        return self._averaged([(1, derivatives(flows, weights))])

    def _weights(self) -> list[Tensor]:
        return [self._model.weights[name] for name in self._names]

    def _batches(self, most: int = _AS_THEY_COME, samples: int = _AS_THEY_COME) -> Iterator[Batch]:
        """Batches of at most `most` samples, until so many `samples` were seen."""
        if self._data is None:
            raise UsageError("the criterion needs gradients: give --data (an .npz, a folder, or synthetic)")
        seen = 0
        for count, batch in enumerate(small_batches(self._data, self.analysis, most).batches(), 1):
            self._progress(f"taking gradients, batch {count}")
            yield batch
            seen += length_of(batch)
            if seen >= samples:
                return

    def _losses(self, *, one_by_one: bool = False, reduction: str = "mean") -> Iterator[tuple[Batch, Tensor]]:
        loss = make_loss(self._loss, self._model.outputs, self._seed, reduction)
        for batch in self._batches(1, _ONE_BY_ONE) if one_by_one else self._batches():
            labels = None if batch.labels is None else torch.as_tensor(batch.labels)
            yield batch, loss(self._outputs(batch), labels)

    def _outputs(self, batch: Batch) -> dict[str, Tensor]:
        values = self._model(batch.feed)
        return {name: finite(values[name]) for name in self._model.outputs}

    def _slopes(self, reduction: str, *, one_by_one: bool = False) -> Iterator[tuple[Batch, list[Tensor]]]:
        for batch, loss in self._losses(one_by_one=one_by_one, reduction=reduction):
            yield batch, derivatives([loss], self._weights())

    def _probes(self) -> Iterator[tuple[Batch, list[Tensor]]]:
        """Signs differ from sample to sample, so the squared gradient of a sum is in expectation the sum of squares.

        Small batches make many draws: the noise falls with the root of their number, at nearly the same cost.
        """
        probe = CurvatureProbe(self._model.outputs, self._seed)
        for batch in self._batches(PROBED_TOGETHER):
            yield batch, derivatives([probe(self._outputs(batch))], self._weights())

    def _flows(self) -> Iterator[tuple[int, list[Tensor]]]:
        """The gradient is that of all weights, biases included: all share in the flow that is to be kept."""
        every = [weight for weight in self._model.weights.values() if weight.numel() > 1]
        for batch, loss in self._losses():
            slopes = derivatives([loss], every, again=True)
            square = torch.stack([(slope * slope.detach()).sum() for slope in slopes]).sum()
            yield length_of(batch), derivatives([square], self._weights())

    def _averaged(self, parts: Iterator[tuple[int, list[Tensor]]] | list[tuple[int, list[Tensor]]]) -> dict[str, Sums]:
        """The mean over samples, each part counting as many as it says."""
        total: dict[str, Sums] = {}
        samples = 0
        for count, found in parts:
            samples += count
            for name, value in zip(self._names, found, strict=True):
                added = value.detach().double().cpu().numpy() * count
                total[name] = total[name] + added if name in total else added
        return {name: sums / max(samples, 1) for name, sums in total.items()}


def _squared(found: list[Tensor], over: int = 1) -> list[Tensor]:
    return [value.detach().square() / over for value in found]
