"""Derivatives of a model in torch: what the statistics of gradients, of units and of single weights, have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch
from torch import Tensor

from onnxprune.analysis.groups import Analysis
from onnxprune.data.base import Data
from onnxprune.data.split import in_batches_of
from onnxprune.errors import ModelError, UsageError
from onnxprune.model.signature import ports_of, synthetic_feed
from onnxprune.ops.traits import normalizes
from onnxprune.runtime.torch.module import TorchModel
from onnxprune.support.messages import one_line

# Samples whose gradients of a probe are summed before they are squared: what is in common between two of them is noise.
PROBED_TOGETHER = 8


class ModelOnData:
    """An analysed model in torch, the samples that a loss of it is taken on, and how.

    Labels are used where the data has them, else drawn from the model's predictions.

    Args:
        analysis: the model.
        data: what to run it on; None will do for the synaptic flow.
        loss: its name, see `make_loss`.
        seed: of drawn labels and signs.
        device: where torch computes.
        progress: is called with what is being done.

    Raises ModelError where torch has no implementation of an operator, UsageError for a device that is not there.
    """

    def __init__(
        self,
        analysis: Analysis,
        data: Data | None,
        *,
        loss: str = "auto",
        seed: int = 0,
        device: str = "cpu",
        progress: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.analysis, self._data = analysis, data
        self._loss, self._seed, self._device, self._progress = loss, seed, device, progress
        self._model = moved(self._in_torch(), device)

    def _in_torch(self) -> TorchModel:
        return TorchModel(self.analysis.model)


def moved(model: TorchModel, device: str) -> TorchModel:
    """The model on a device. Raises UsageError where torch cannot compute there."""
    try:
        return model.to(device)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        raise UsageError(f"torch cannot compute on '{device}' here: {one_line(error)}; leave --device out") from error


def derivatives(
    of: Sequence[Tensor], inputs: Sequence[Tensor], slopes: Sequence[Tensor] | None = None, *, again: bool = False
) -> list[Tensor]:
    """Of the sum of `of`, each entry times its slope, by each input; zeros where nothing depends on it.

    `again`: the result can be differentiated once more. Raises ModelError where torch cannot.
    """
    followed = [index for index, value in enumerate(inputs) if value.requires_grad]
    moving = [index for index, value in enumerate(of) if value.requires_grad]
    result = [torch.zeros_like(value) for value in inputs]
    if not followed or not moving:
        return result
    try:
        found = torch.autograd.grad(
            [of[index] for index in moving],
            [inputs[index] for index in followed],
            None if slopes is None else [slopes[index] for index in moving],
            create_graph=again,
            materialize_grads=True,
        )
    except (RuntimeError, NotImplementedError) as error:
        raise ModelError(f"torch cannot differentiate the model: {one_line(error)}") from error
    for index, gradient in zip(followed, found, strict=True):
        result[index] = finite(gradient)
    return result


def finite(value: Tensor) -> Tensor:
    """The same with zeros for NaN and the largest numbers for infinities."""
    return torch.nan_to_num(value) if isinstance(value, Tensor) and value.is_floating_point() else value


def small_batches(data: Data, analysis: Analysis, most: int) -> Data:
    """The same samples, at most `most` in a batch where the model takes any number."""
    fixed = any(isinstance(port.batch_size, int) for port in ports_of(analysis.model))
    return data if fixed else in_batches_of(data, most)


def synaptic_flow(
    analysis: Analysis, device: str = "cpu", kept: Mapping[str, npt.NDArray[np.bool_]] = {}
) -> tuple[TorchModel, list[Tensor]]:
    """The model with absolute weights, in double precision, and the sums of its outputs for one input of ones.

    Tanaka et al. 2020 take the absolute values of everything stored, running statistics included. What `kept` leaves
    out is zero.
    """
    model = moved(TorchModel(analysis.model, "float64"), device)
    with torch.no_grad():
        for stored in (*model.weights.values(), *model.statistics.values()):
            stored.abs_()
        set_zeros(model, kept)
    ports = ports_of(analysis.model)
    one_sample = {port.batch_symbol: 1 for port in ports if port.batch_symbol is not None}
    feed = synthetic_feed(ports, {**analysis.shapes.bindings, **one_sample})
    names = [before_normalizing(value) for value in analysis.model.graph.outputs]
    values = model({name: np.ones_like(array) for name, array in feed.items()}, names)
    return model, [values[name].sum() for name in names if values[name].is_floating_point()]


@torch.no_grad()
def set_zeros(model: TorchModel, kept: Mapping[str, npt.NDArray[np.bool_]]) -> None:
    """Set the entries of weights to zero that `kept`, bool, of their shapes, leaves out."""
    for name, mask in kept.items():
        if name in model.weights:
            model.weights[name].mul_(torch.from_numpy(mask).to(model.weights[name].device))


def before_normalizing(output: ir.Value) -> str:
    """The value to sum for the synaptic flow: the output, or what a softmax, whose sum is always the same, reads."""
    producer = output.producer()
    if producer is not None and normalizes(producer) and producer.inputs[0] is not None:
        return producer.inputs[0].name or ""
    return output.name or ""
