"""Augmentation: samples varied so that a model sees more of them than there are.

    crop[=pixels]         images moved by up to so many pixels, an eighth of their size by default; edges are repeated
    flip                  half of the images mirrored from left to right
    mixup[=alpha]         two samples mixed with a weight drawn from Beta(alpha, alpha) (Zhang et al., 2018); 0.2
    colour[=strength]     every channel scaled and shifted by up to this share of its deviation; 0.2
    time-mask[=share]     a stretch of a spectrogram's last axis set to the mean (Park et al., SpecAugment, 2019); 0.1
    frequency-mask[=share]  the same for the axis in front of it

Everything is drawn on the processor from one generator, for all samples of an update, whichever of them a process has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from onnxprune.errors import UsageError
from onnxprune.steps.train.options import AUTO, NONE
from onnxprune.support.messages import did_you_mean

_CHANNELS = (1, 3, 4)
_SMALLEST = 8  # pixels along the sides of what counts as an image
_SHIFT = 8  # one in so many of an image's pixels
Change = Callable[[Tensor, float, torch.Generator, "Part"], Tensor]


@dataclass(frozen=True)
class Part:
    """Which samples of an update are here: those from `start` to `end` of `total`."""

    start: int
    end: int
    total: int

    def uniform(self, generator: torch.Generator) -> Tensor:
        """A number in [0, 1) for each sample that is here."""
        return torch.rand(self.total, generator=generator)[self.start : self.end]


@dataclass(frozen=True)
class Mixed:
    """Inputs after augmentation, by name, and with whose labels they have to be mixed.

    Attributes:
        feed: the inputs.
        partner: the sample that each was mixed with; None where none was.
        share: how much of each is the sample itself.
    """

    feed: dict[str, Tensor]
    partner: Tensor | None = None
    share: float = 1.0


@dataclass(frozen=True)
class Augmentation:
    """The augmentations of samples, in order.

    Attributes:
        steps: name and strength of each.
        mixup: alpha of the mixing, None for none.
    """

    steps: tuple[tuple[str, float], ...] = ()
    mixup: float | None = None

    def __bool__(self) -> bool:
        return bool(self.steps) or self.mixup is not None

    def __call__(self, feed: dict[str, Tensor], generator: torch.Generator, part: Part) -> Mixed:
        """Inputs that are images or spectrograms varied, the others as they are."""
        varied = {name: self._varied(value, generator, part) for name, value in feed.items()}
        if self.mixup is None or not all(_is_mixable(value, part) for value in varied.values()):
            return Mixed(varied)
        share = _beta(self.mixup, generator)
        partner = torch.randperm(part.end - part.start, generator=generator)
        mixed = {name: value * share + value[partner] * (1 - share) for name, value in varied.items()}
        return Mixed(mixed, partner, share)

    def _varied(self, value: Tensor, generator: torch.Generator, part: Part) -> Tensor:
        if not self.steps or not value.is_floating_point() or value.ndim not in (3, 4):
            return value
        last = _is_channels_last(value)
        value = value.movedim(-1, 1) if last else value
        for name, strength in self.steps:
            value = _CHANGES[name](value, strength, generator, part)
        return value.movedim(1, -1) if last else value


def make_augmentation(wanted: Sequence[str], inputs: Sequence[Tensor], *, per_sample: bool) -> Augmentation:
    """What was asked for, each as a name or `name=strength`.

    Args:
        wanted: see above; "auto" moves images where the loss looks at whole samples, and does nothing else.
        inputs: a batch of every input of the model.
        per_sample: the targets do not change when an image is moved.

    Raises UsageError for an unknown name or a strength that is not a number.
    """
    steps: list[tuple[str, float]] = []
    mixup = None
    for entry in wanted:
        name, _, text = entry.partition("=")
        if name == AUTO:
            steps += [("crop", 0.0)] if per_sample and any(map(is_image, inputs)) else []
        elif name == "mixup":
            mixup = _strength(entry, text, 0.2)
        elif name in _CHANGES:
            steps.append((name, _strength(entry, text, _DEFAULTS[name])))
        elif name != NONE:
            raise UsageError(f"unknown augmentation '{name}'{did_you_mean(name, [*_CHANGES, 'mixup', AUTO, NONE])}")
    return Augmentation(tuple(steps), mixup)


def _strength(entry: str, text: str, default: float) -> float:
    try:
        found = float(text) if text else default
    except ValueError:
        found = -1.0
    if not 0 <= found < float("inf"):
        raise UsageError(f"augmentation '{entry}': what follows = has to be a number from 0 on")
    return found


def is_image(value: Tensor) -> bool:
    """[N, C, H, W] or [N, H, W, C] of floats, with 1, 3 or 4 channels."""
    if not value.is_floating_point() or value.ndim != 4:
        return False
    sides = value.shape[1:3] if _is_channels_last(value) else value.shape[2:]
    channels = value.shape[-1] if _is_channels_last(value) else value.shape[1]
    return channels in _CHANNELS and min(sides) >= _SMALLEST


def _is_channels_last(value: Tensor) -> bool:
    return value.ndim == 4 and value.shape[1] not in _CHANNELS and value.shape[-1] in _CHANNELS


def _is_mixable(value: Tensor, part: Part) -> bool:
    return value.is_floating_point() and value.ndim > 0 and len(value) == part.end - part.start


def _crop(value: Tensor, pixels: float, generator: torch.Generator, part: Part) -> Tensor:
    """A window of the image's size out of the image with its edges repeated, each sample's at its own place."""
    drawn = [part.uniform(generator) for _ in range(2)]
    if value.ndim != 4 or len(value) != part.end - part.start:
        return value
    places = []
    for numbers, size in zip(drawn, value.shape[2:], strict=True):
        most = int(pixels) or max(size // _SHIFT, 1)
        shift = (numbers * (2 * most + 1)).long() - most
        places.append((shift[:, None] + torch.arange(size)).clamp(0, size - 1))
    rows, columns = places
    samples, channels = torch.arange(len(value)), torch.arange(value.shape[1])
    moved: Tensor = value[
        samples[:, None, None, None], channels[None, :, None, None], rows[:, None, :, None], columns[:, None, None, :]
    ]
    return moved


def _flip(value: Tensor, _: float, generator: torch.Generator, part: Part) -> Tensor:
    mirrored = part.uniform(generator) < 0.5
    if value.ndim != 4 or len(value) != len(mirrored):
        return value
    return torch.where(mirrored[:, None, None, None], value.flip(-1), value)


def _colour(value: Tensor, strength: float, generator: torch.Generator, part: Part) -> Tensor:
    channels = value.shape[1]
    drawn = torch.rand(2, part.total, channels, generator=generator)[:, part.start : part.end] * 2 - 1
    if value.ndim != 4 or len(value) != part.end - part.start:
        return value
    deviation = value.std((0, 2, 3), keepdim=True, correction=0)
    gain, shift = (strength * drawn[..., None, None]).unbind()
    return value * (1 + gain) + shift * deviation


def _mask(value: Tensor, share: float, generator: torch.Generator, part: Part, axis: int) -> Tensor:
    """A stretch of up to `share` of the axis is the mean of the sample."""
    length, place = (part.uniform(generator) for _ in range(2))
    if len(value) != len(length):
        return value
    size = value.shape[axis]
    covered = (length * (share * size + 1)).long()
    start = (place * (size - covered + 1)).long()
    at = torch.arange(size)
    masked = (at >= start[:, None]) & (at < (start + covered)[:, None])
    shape = [len(value)] + [1] * (value.ndim - 1)
    shape[axis] = size
    mean = value.mean(tuple(range(1, value.ndim)), keepdim=True)
    return torch.where(masked.reshape(shape), mean, value)


def _beta(alpha: float, generator: torch.Generator) -> float:
    """A number drawn from Beta(alpha, alpha)."""
    if alpha == 0:
        return 1.0
    shape = torch.full((2,), alpha, dtype=torch.float64)
    first, second = torch._standard_gamma(shape, generator).tolist()
    return float(first / (first + second)) if first + second else 1.0


_CHANGES: dict[str, Change] = {
    "crop": _crop,
    "flip": _flip,
    "colour": _colour,
    "time-mask": lambda value, share, generator, part: _mask(value, share, generator, part, value.ndim - 1),
    "frequency-mask": lambda value, share, generator, part: _mask(value, share, generator, part, value.ndim - 2),
}
_DEFAULTS = {"crop": 0.0, "flip": 0.5, "colour": 0.2, "time-mask": 0.1, "frequency-mask": 0.1}
