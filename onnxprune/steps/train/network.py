"""The network that is trained: a copy of the model in torch, with normalizations put in where that helps."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch
from torch import Tensor

from onnxprune.errors import ModelError, UsageError
from onnxprune.ops.traits import runs_on_statistics
from onnxprune.runtime.torch.module import TorchModel
from onnxprune.steps.train.computing import Computing, full
from onnxprune.steps.train.normalization import folded, insert_normalization, lacks_normalization
from onnxprune.steps.train.options import AUTO, TrainOptions
from onnxprune.steps.train.parallel import Processes, replicated
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
        computing: where and how it computes.
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
        computing: Computing,
        among: Processes,
        zeros: Mapping[str, npt.NDArray[np.bool_]],
    ) -> None:
        self._options, self._computing = options, computing
        self.notes: list[str] = []
        working = model.clone()
        samples = max((len(value) for value in feeds[0].values() if value.ndim), default=1)
        wanted = options.normalization == "batch" or (
            options.normalization == AUTO and samples >= _LEAST_BATCH and lacks_normalization(model)
        )
        self.inserted = insert_normalization(working, feeds, computing.device) if wanted else []
        if self.inserted:
            self.notes.append(f"trained with {len(self.inserted)} normalizations put in and folded away again")
        self._by_batch = options.statistics == "batch" and samples >= _LEAST_BATCH
        if options.statistics == "batch" and not self._by_batch and any(map(runs_on_statistics, working.graph)):
            self.notes.append(f"statistics of normalizations stay as they are: batches have {samples} samples")
        self.module = TorchModel(working)
        computing.place(self.module)
        absorbed = {norm.bias for norm in self.inserted}
        own = self.module.weights
        self.roles = {
            name: slot.role for name, slot in trainable(working).items() if name in own and name not in absorbed
        }
        self.weights = {name: own[name] for name in self.roles}
        for name, weight in own.items():
            weight.requires_grad_(name in self.weights)
        self._zeros = {name: torch.from_numpy(mask).to(computing.device) for name, mask in zeros.items() if name in own}
        self.keep_zeros()
        self._among = among
        self._callable: torch.nn.Module = self.module

    def freeze_unreached(self, loss: Tensor) -> list[str]:
        """Leave out weights that a loss does not depend on; their names. Then the network is ready to be trained.

        Raises ModelError where torch cannot differentiate it, UsageError where no weight is left.
        """
        try:
            gradients = (
                () if not self.weights else torch.autograd.grad(loss, list(self.weights.values()), allow_unused=True)
            )
        except (RuntimeError, NotImplementedError) as error:
            raise ModelError(f"torch cannot differentiate the model: {one_line(error)}") from error
        unreached = [name for name, found in zip(self.weights, gradients, strict=True) if found is None]
        for name in unreached:
            self.weights.pop(name).requires_grad_(False)
        if not self.weights:
            raise UsageError("the loss depends on no weight of the model, so nothing can be trained")
        self._callable = replicated(self.module, self._among, self._computing.device)
        if self._options.compile:
            self._callable = torch.compile(self._callable)  # type: ignore[assignment]
        return unreached

    def __call__(self, feed: Feed, keep: Collection[str] = (), *, training: bool) -> dict[str, Tensor]:
        """Outputs and the inner values in `keep`, floats in float32; training by statistics of the batch."""
        self.module.train(training and (self._by_batch or bool(self.inserted)))
        run = self._callable if training else self.module
        with self._computing.context():
            return full(run(feed, tuple(keep)))

    @property
    def scales_gradients(self) -> bool:
        """In float16 small gradients vanish unless they are scaled."""
        return self._computing.precision == torch.float16

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
