"""The network that is trained: a copy of the model in torch, with normalizations put in where that helps."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch
from torch import Tensor

from onnxprune.errors import ModelError, UsageError
from onnxprune.ops.traits import runs_on_statistics
from onnxprune.runtime.torch.module import TorchModel
from onnxprune.steps.train.normalization import folded, insert, lacks_normalization
from onnxprune.steps.train.options import AUTO, TrainOptions
from onnxprune.steps.train.parallel import Processes, together
from onnxprune.steps.train.parameters import trainable
from onnxprune.support.messages import one_line

Feed = Mapping[str, Tensor]
Snapshot = dict[str, Tensor]
# Statistics of fewer samples than this are too rough to train on.
_LEAST_BATCH = 8


class Network:
    """A model in training.

    Args:
        model: it is not changed.
        options: normalization, precision, layout and the rest.
        feeds: inputs of some samples, as they are trained on.
        device: where it computes.
        among: the processes that train together.
        zeros: per weight, which entries may be other than zero: bool, of its shape.

    Attributes:
        module: the network in torch.
        weights: what is trained, by name.
        roles: of the weights, see `ops.learned`.
        inserted: the normalizations that were put in.
        notes: what a person should know.
    """

    def __init__(
        self,
        model: ir.Model,
        options: TrainOptions,
        feeds: Sequence[Feed],
        device: torch.device,
        among: Processes,
        zeros: Mapping[str, npt.NDArray[np.bool_]],
    ) -> None:
        self._options, self._device = options, device
        self.notes: list[str] = []
        working = model.clone()
        samples = max((len(value) for value in feeds[0].values() if value.ndim), default=1)
        wanted = options.normalization == "batch" or (
            options.normalization == AUTO and samples >= _LEAST_BATCH and lacks_normalization(model)
        )
        self.inserted = insert(working, feeds, device) if wanted else []
        if self.inserted:
            self.notes.append(f"trained with {len(self.inserted)} normalizations put in and folded away again")
        self._by_batch = options.statistics == "batch" and samples >= _LEAST_BATCH
        if options.statistics == "batch" and not self._by_batch and any(map(runs_on_statistics, working.graph)):
            self.notes.append(f"statistics of normalizations stay as they are: batches have {samples} samples")
        self.module = TorchModel(working).to(device)
        absorbed = {norm.bias for norm in self.inserted}
        own = self.module.weights
        self.roles = {
            name: slot.role for name, slot in trainable(working).items() if name in own and name not in absorbed
        }
        self.weights = {name: own[name] for name in self.roles}
        for name, weight in own.items():
            weight.requires_grad_(name in self.weights)
        self._zeros = {name: torch.from_numpy(mask).to(device) for name, mask in zeros.items() if name in own}
        self.keep_zeros()
        self._channels_last = options.layout == "channels-last" or (options.layout == AUTO and device.type == "cuda")
        if self._channels_last:
            self.module = self.module.to(memory_format=torch.channels_last)
        self._precision = _precision(options, device)
        self._among = among
        self._callable: torch.nn.Module = self.module

    def freeze_unreached(self, loss: Tensor) -> list[str]:
        """Leave out weights that a loss does not depend on; their names. Then the network is ready to be trained.

        Raises ModelError where torch cannot differentiate it, UsageError where no weight is left.
        """
        try:
            gradients = torch.autograd.grad(loss, list(self.weights.values()), allow_unused=True)
        except (RuntimeError, NotImplementedError) as error:
            raise ModelError(f"torch cannot differentiate the model: {one_line(error)}") from error
        unreached = [name for name, found in zip(self.weights, gradients, strict=True) if found is None]
        for name in unreached:
            self.weights.pop(name).requires_grad_(False)
        if not self.weights:
            raise UsageError("the loss depends on no weight of the model, so nothing can be trained")
        self._callable = together(self.module, self._among, self._device)
        if self._options.compile:
            self._callable = torch.compile(self._callable)  # type: ignore[assignment]
        return unreached

    def __call__(self, feed: Feed, keep: Collection[str] = (), *, training: bool) -> dict[str, Tensor]:
        """Outputs and the inner values in `keep`, floats in float32; training by statistics of the batch."""
        self.module.train(training and (self._by_batch or bool(self.inserted)))
        run = self._callable if training else self.module
        with self._computing():
            values: dict[str, Any] = run(feed, tuple(keep))
        return {name: _full(value) for name, value in values.items()}

    def _computing(self) -> AbstractContextManager[Any]:
        if self._precision == torch.float32:
            return nullcontext()
        return torch.autocast(self._device.type, dtype=self._precision)

    @property
    def scales_gradients(self) -> bool:
        """In float16 small gradients vanish unless they are scaled."""
        return self._precision == torch.float16

    def placed(self, feed: Feed) -> Feed:
        """Inputs on the device, images in the layout that is computed in."""
        moved = {name: value.to(self._device, non_blocking=True) for name, value in feed.items()}
        if not self._channels_last:
            return moved
        return {
            name: value.contiguous(memory_format=torch.channels_last) if value.ndim == 4 else value
            for name, value in moved.items()
        }

    @torch.no_grad()
    def keep_zeros(self) -> None:
        """Set to zero what has to stay there."""
        own = self.module.weights
        for name, mask in self._zeros.items():
            own[name].mul_(mask)

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Trained weights and running statistics, by name."""
        yield from self.weights.items()
        yield from self.module.statistics.items()

    def snapshot(self) -> Snapshot:
        """A copy of them."""
        return {name: tensor.detach().clone() for name, tensor in self.tensors()}

    @torch.no_grad()
    def restore(self, snapshot: Mapping[str, Tensor]) -> None:
        """Back to a snapshot, or to weights by name that leave out some."""
        for name, tensor in self.tensors():
            if name in snapshot:
                tensor.copy_(snapshot[name])

    def result(self) -> dict[str, Tensor]:
        """All weights and statistics that may have changed, as the model has them: without what was put in."""
        fixed = {norm.bias: self.module.weights[norm.bias] for norm in self.inserted}
        return folded({**dict(self.tensors()), **fixed}, self.inserted)


def _precision(options: TrainOptions, device: torch.device) -> torch.dtype:
    """What matrices are multiplied in. Raises UsageError for float16 on a processor."""
    if options.precision == AUTO:
        return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32
    found: torch.dtype = getattr(torch, options.precision)
    if found == torch.float16 and device.type == "cpu":
        raise UsageError("precision float16 needs a GPU; bfloat16 works on a processor too")
    return found


def _full(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.dtype in (torch.float16, torch.bfloat16) else value
