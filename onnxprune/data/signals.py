"""Signals from nothing: values along time, or along another long axis, of kinds that sensors and features have."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

# An axis with fewer entries holds features rather than a course of time.
SHORTEST = 16
# Slopes of coloured noise, the most waves of a sum, the share of noise on top, and of what all channels share.
_SLOPES, _WAVES, _NOISE, _SHARED = (0.5, 2.0), 4, 0.1, 0.7
# Deviations of the logarithm of a sample's size, and of its offset.
_SIZES, _OFFSETS = 0.5, 0.3

Floats = npt.NDArray[np.float64]


def signals(shape: tuple[int, ...], rng: np.random.Generator) -> Floats:
    """Samples of mean 0 and about variance 1: white noise, coloured noise, waves and steps in turns.

    White noise alone says too little of a network that reads signals: what it sums over time hardly varies then, so
    that anything agrees with it. On a convolutional GRU that reads the frequency of a tone, cut to .04 of the output's
    variance on white noise, .36 was wrong on tones.

    Args:
        shape: samples, and two axes at most; the longest is the course, others are channels.
        rng: of everything random.

    Returns: float64.
    """
    axis = 1 + int(np.argmax(shape[1:])) if len(shape) > 1 else 0
    if not 1 < len(shape) < 4 or shape[axis] < SHORTEST:
        return rng.standard_normal(shape)
    length, channels = shape[axis], int(np.prod(shape[1:])) // shape[axis]
    start = int(rng.integers(len(_KINDS)))  # a batch may be a single sample
    drawn = np.stack([_KINDS[(start + number) % len(_KINDS)](channels, length, rng) for number in range(shape[0])])
    lying = drawn.reshape(shape[0], *(size for number, size in enumerate(shape) if number not in (0, axis)), length)
    made: Floats = np.ascontiguousarray(np.moveaxis(lying, -1, axis))
    return made


def _white(channels: int, length: int, rng: np.random.Generator) -> Floats:
    """As it is drawn, so that every second sample has the size that networks are made for."""
    return rng.standard_normal((channels, length))


def _coloured(channels: int, length: int, rng: np.random.Generator) -> Floats:
    """Noise whose amplitude falls with frequency, partly the same in all channels."""
    frequencies = np.maximum(np.fft.rfftfreq(length) * length, 1.0)
    amplitude = frequencies ** -rng.uniform(*_SLOPES)
    noise = np.fft.irfft(np.fft.rfft(_with_shared(channels, length, rng)) * amplitude, n=length)
    return _varied(noise, rng)


def _waves(channels: int, length: int, rng: np.random.Generator) -> Floats:
    """A few sines of frequencies at any scale, each channel with its share of them."""
    count = int(rng.integers(1, _WAVES + 1))
    cycles = np.exp(rng.uniform(0, np.log(length / 2), count))
    phases = 2 * np.pi * (cycles[:, None] * np.arange(length) / length + rng.random((count, 1)))
    return _varied(rng.standard_normal((channels, count)) @ np.sin(phases), rng)


def _steps(channels: int, length: int, rng: np.random.Generator) -> Floats:
    """Levels that change now and then."""
    changes = rng.random(length) < rng.uniform(1, 8) / length
    levels = rng.standard_normal((channels, int(changes.sum()) + 1))
    return _varied(levels[:, np.cumsum(changes)], rng)


def _with_shared(channels: int, length: int, rng: np.random.Generator) -> Floats:
    own, shared = rng.standard_normal((channels, length)), rng.standard_normal(length)
    both: Floats = _SHARED * shared + (1 - _SHARED**2) ** 0.5 * own
    return both


def _varied(values: Floats, rng: np.random.Generator) -> Floats:
    """About a mean square of 1, of a size and an offset of its own, with a little noise on top."""
    scaled = values / max(float(np.sqrt(np.mean(values**2))), 1e-12) + _NOISE * rng.standard_normal(values.shape)
    varied: Floats = scaled * np.exp(_SIZES * rng.standard_normal()) + _OFFSETS * rng.standard_normal()
    return varied


# In turns.
_KINDS = (_white, _coloured, _white, _waves, _white, _steps)
