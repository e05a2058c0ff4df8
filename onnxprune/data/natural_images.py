"""Images from nothing, with statistics of photographs: noise with their spectrum, leaves with their edges."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

# By which power the amplitude of natural images falls with frequency, on average.
SLOPE = 1.2
# Leaves of an image; the shares of the longer side that their radii lie between; shares of shading and of texture.
_LEAVES, _SMALLEST, _LARGEST, _SHADING, _TEXTURE = 60, 0.04, 0.6, 0.3, 0.3

Floats = npt.NDArray[np.float64]


def natural_images(shape: tuple[int, ...], rng: np.random.Generator, slope: float = SLOPE) -> Floats:
    """Images [samples, channels, height, width] of mean 0 and variance 1: noise and dead leaves in turns.

    Neither is best everywhere. At 1.5 times fewer MACs, recovered on 128, a ResNet-20 on photographs keeps 79% on
    leaves and 58% on noise; half of a network on scanned digits keeps 55% on leaves and 66% on noise.
    """
    images = natural_noise(shape, rng, slope)
    leaves = len(images[1::2])
    if leaves:
        images[1::2] = dead_leaves((leaves, *shape[1:]), rng)
    return images


def natural_noise(shape: tuple[int, ...], rng: np.random.Generator, slope: float = SLOPE) -> Floats:
    """Normal noise [..., height, width] of variance 1 whose amplitude falls with frequency as that of photographs does.

    That it falls as about 1 / frequency: D. J. Field, "Relations between the statistics of natural images and the
    response properties of cortical cells", JOSA A 4 (1987); slopes around 1.2: D. J. Tolhurst et al., "Amplitude
    spectra of natural images", Ophthalmic Physiol. Opt. 12 (1992). It has no edges and no objects, and wraps around at
    the borders.
    """
    white = rng.standard_normal(shape)
    amplitude = amplitude_of(shape[-2], shape[-1], slope)[:, : shape[-1] // 2 + 1]
    return np.fft.irfft2(np.fft.rfft2(white) * amplitude, s=shape[-2:])


def dead_leaves(shape: tuple[int, ...], rng: np.random.Generator) -> Floats:
    """Images [samples, channels, height, width] of mean 0 and variance 1: discs and squares that hide each other.

    The radii r of leaves have a density of r^-3, which makes images look the same at every scale: A. B. Lee, D. Mumford
    and J. Huang, "Occlusion Models for Natural Images", IJCV 41 (2001). That networks learn more from such images than
    from noise: M. Baradad et al., "Learning to See by Looking at Noise", NeurIPS 2021. Leaves are shaded, images have
    a texture and a contrast of their own.
    """
    images = np.stack([_leaves(shape[1:], rng) for _ in range(shape[0])])
    images += _TEXTURE * _spread(rng, shape[0], 0.5) * natural_noise(shape, rng)
    middle = images.mean(axis=(1, 2, 3), keepdims=True)
    images = (images - middle) * _spread(rng, shape[0], 0.3) + middle
    images -= images.mean()
    return np.asarray(images / max(float(images.std()), 1e-12))


def _spread(rng: np.random.Generator, count: int, deviation: float) -> Floats:
    """A positive factor for each image, 1 in the middle."""
    return np.exp(deviation * rng.standard_normal(count)).reshape(-1, 1, 1, 1)


def _leaves(shape: tuple[int, ...], rng: np.random.Generator) -> Floats:
    """One image [channels, height, width], painted from the back to the front."""
    channels, height, width = shape
    rows, columns = np.mgrid[:height, :width]
    image = np.broadcast_to(rng.standard_normal(channels)[:, None, None], shape).copy()
    share = rng.random(_LEAVES)
    radii = max(height, width) / np.sqrt(_SMALLEST**-2 + share * (_LARGEST**-2 - _SMALLEST**-2))
    for radius in radii.tolist():
        turn, flat, is_disc = rng.random() * np.pi, rng.uniform(0.4, 1.0), rng.random() < 0.5
        row, column = rng.random() * height, rng.random() * width
        color, shade = rng.standard_normal((2, channels, 1))
        window = _around(row, radius, height), _around(column, radius, width)  # nothing of the leaf lies outside
        down, right = rows[window] - row, columns[window] - column
        cosine, sine = np.cos(turn), np.sin(turn)
        along = cosine * right + sine * down
        across = (cosine * down - sine * right) / flat
        inside = np.hypot(along, across) < radius if is_disc else np.maximum(abs(along), abs(across)) < 0.9 * radius
        image[:, *window][:, inside] = color + _SHADING * shade * along[inside] / radius
    return image


def _around(middle: float, radius: float, size: int) -> slice:
    """The entries of an axis that a leaf may reach: the corner of a square lies further out than its radius."""
    reach = 1.3 * radius
    return slice(max(int(middle - reach), 0), min(int(middle + reach) + 2, size))


def amplitude_of(height: int, width: int, slope: float) -> Floats:
    """Of each frequency [height, width], with a mean square of 1; the mean gets that of the lowest frequency."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None, :])
    amplitude = np.maximum(frequency, 1 / max(height, width)) ** -slope
    return np.asarray(amplitude / np.sqrt(np.mean(amplitude**2)))


def autocorrelation(height: int, width: int, slope: float) -> Floats:
    """Of `natural_noise` by distance [height, width], modulo the size (Wiener-Khinchin)."""
    return np.fft.ifft2(amplitude_of(height, width, slope) ** 2).real
