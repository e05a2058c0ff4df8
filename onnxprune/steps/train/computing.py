"""In which type and memory layout torch computes: the same for a network and its teacher."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import deterministic

from onnxprune.errors import UsageError
from onnxprune.steps.train.augment import is_image
from onnxprune.steps.train.options import AUTO, TrainOptions

Feed = Mapping[str, Tensor]
_FILL = "fill_uninitialized_memory"


@dataclass(frozen=True)
class Computing:
    """How torch computes.

    Attributes:
        device: where.
        precision: what matrices are multiplied in; sums and weights stay in float32.
        channels_last: images and kernels have their channels innermost in memory.
    """

    device: torch.device
    precision: torch.dtype = torch.float32
    channels_last: bool = False

    def context(self) -> AbstractContextManager[Any]:
        """For the length of a block."""
        if self.precision == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.precision)

    def placed(self, feed: Feed) -> dict[str, Tensor]:
        """Inputs on the device, in the layout."""
        moved = {name: value.to(self.device, non_blocking=True) for name, value in feed.items()}
        if not self.channels_last:
            return moved
        return {
            name: value.contiguous(memory_format=torch.channels_last) if value.ndim == 4 else value
            for name, value in moved.items()
        }

    def place(self, module: torch.nn.Module) -> None:
        """The weights of a module on the device, in the layout."""
        module.to(self.device)
        if self.channels_last:
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def computing(options: TrainOptions, device: torch.device, feed: Feed) -> Computing:
    """What was asked for; by itself bfloat16 on a GPU that has it, and channels last where images are fed.

    Raises UsageError for float16 on a processor.
    """
    images = any(map(is_image, feed.values()))
    last = options.memory_layout == "channels-last" or (options.memory_layout == AUTO and images)
    if options.precision == AUTO:
        half = device.type == "cuda" and torch.cuda.is_bf16_supported()
        return Computing(device, torch.bfloat16 if half else torch.float32, last)
    precision: torch.dtype = getattr(torch, options.precision)
    if precision == torch.float16 and device.type == "cpu":
        raise UsageError("precision float16 needs a GPU; bfloat16 works on a processor too")
    return Computing(device, precision, last)


def full(values: Mapping[str, Any]) -> dict[str, Any]:
    """Half precision brought back to float32, for losses."""
    return {
        name: value.float() if isinstance(value, Tensor) and value.dtype in _HALVES else value
        for name, value in values.items()
    }


_HALVES = (torch.float16, torch.bfloat16)


@contextmanager
def reproducible(device: str) -> Iterator[None]:
    """On a processor, the same numbers from the same seed."""
    if device != "cpu":
        yield
        return
    before, warned = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    filled = getattr(deterministic, _FILL)
    try:
        torch.use_deterministic_algorithms(True, warn_only=True)
        setattr(deterministic, _FILL, False)  # it takes time
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*deterministic.*")
            yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warned)
        setattr(deterministic, _FILL, filled)
