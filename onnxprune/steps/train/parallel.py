"""Several processes that train together, started by `torchrun`: who they are, and what they exchange.

    torchrun --nproc-per-node 4 -m onnxprune train model.onnx ...

Every process computes its part of each batch. Gradients are averaged (DistributedDataParallel), BatchNormalization uses
the statistics of the whole batch, and the first process alone evaluates, reports and writes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from onnxprune.errors import UsageError
from onnxprune.runtime.torch.module import TorchModel
from onnxprune.steps.train.samples import Portion
from onnxprune.support.messages import one_line


@dataclass(frozen=True)
class Processes:
    """The processes of a training.

    Attributes:
        rank: the number of this one.
        count: how many there are.
        local: its number on its machine.
    """

    rank: int = 0
    count: int = 1
    local: int = 0

    @property
    def writes(self) -> bool:
        """Does this one evaluate, report and write?"""
        return self.rank == 0

    def device(self, device: str) -> torch.device:
        """Where this process computes: with `cuda`, each on a GPU of its own.

        Raises UsageError for a device that is not there.
        """
        named = f"cuda:{self.local}" if device == "cuda" and self.count > 1 else device
        try:
            torch.empty(0, device=named)
            return torch.device(named)
        except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
            raise UsageError(f"torch cannot compute on '{device}' here: {one_line(error)}; leave out device") from error

    def parts(self, update: Sequence[Portion], batch: int) -> list[tuple[Portion, int]]:
        """What this process computes of an update, each with its first sample's place in the update.

        Raises UsageError where the batch cannot be parted evenly.
        """
        starts = accumulate((len(portion) for portion in update[:-1]), initial=0)
        placed = list(zip(update, starts, strict=True))
        if self.count == 1:
            return placed
        if any(portion.whole for portion in update):
            if len(update) % self.count:
                raise UsageError(f"{len(update)} batches of the data to an update cannot go to {self.count} processes")
            return placed[self.rank :: self.count]
        if batch % self.count:
            raise UsageError(f"a batch of {batch} samples cannot go evenly to {self.count} processes; choose another")
        return [
            (portion.part(size * self.rank, size * (self.rank + 1)), start + size * self.rank)
            for portion, start in placed
            for size in [len(portion) // self.count]
        ]

    def shared(self, value: Any) -> Any:
        """What the first process has, for all of them."""
        if self.count == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def any(self, value: bool) -> bool:
        """Does one of them say so?"""
        if self.count == 1:
            return value
        said = torch.tensor([float(value)], device=f"cuda:{self.local}" if dist.get_backend() == "nccl" else "cpu")
        dist.all_reduce(said, dist.ReduceOp.MAX)
        return bool(said.item())

    def average(self, tensors: Sequence[Tensor]) -> None:
        """The mean over the processes, in place."""
        if self.count > 1:
            for tensor in tensors:
                dist.all_reduce(tensor)
                tensor /= self.count

    def spread(self, tensors: Mapping[str, Tensor]) -> None:
        """The tensors of the first process, in place, for all of them."""
        if self.count > 1:
            for tensor in tensors.values():
                dist.broadcast(tensor.data, src=0)


@contextmanager
def processes() -> Iterator[Processes]:
    """Those that `torchrun` has started, connected for the length of a block; one where it has not."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Processes()
        return
    found = Processes(int(os.environ["RANK"]), count, int(os.environ.get("LOCAL_RANK", "0")))
    joined = dist.is_initialized()
    if not joined:
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield found
    finally:
        if not joined:
            dist.destroy_process_group()


class _Sum(torch.autograd.Function):
    """A tensor added up over all processes. Each one's part is in the losses of all, so gradients add up too."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:  # noqa: ARG004
        """The sum."""
        total = value.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ARG004
        """The sum of the gradients."""
        total = gradient.clone()
        dist.all_reduce(total)
        return total


def replicated(module: TorchModel, among: Processes, device: torch.device) -> torch.nn.Module:
    """The module as all processes train it: gradients are averaged over them while they are computed.

    BatchNormalization then adds its statistics up over all of them.
    """
    if among.count == 1:
        return module
    module.across = _Sum.apply
    ids = [device.index] if device.type == "cuda" else None
    return DistributedDataParallel(module, device_ids=ids, broadcast_buffers=False, find_unused_parameters=True)


def sharded_optimizer(kind: Any, groups: list[dict[str, Any]], **options: Any) -> torch.optim.Optimizer:
    """An optimizer whose state every process holds a part of (Rajbhandari et al., ZeRO, 2020, stage 1)."""
    from torch.distributed.optim import ZeroRedundancyOptimizer

    made: torch.optim.Optimizer = ZeroRedundancyOptimizer(groups, kind, **options)
    return made
