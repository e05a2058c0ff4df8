"""Images from nothing: their moments, and what makes leaves more like photographs than noise is."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from onnxprune.data import natural_images as natural
from onnxprune.data.natural_images import dead_leaves, natural_images, natural_noise

SHAPE = (40, 3, 32, 24)


def kurtosis(images: npt.NDArray[np.float64]) -> float:
    """Of steps between neighbours, each image in units of its own: 3 for normal noise, far more in photographs."""
    steps = np.diff(images, axis=-1).reshape(len(images), -1)
    steps /= steps.std(axis=1, keepdims=True)
    return float((steps**4).mean())


def test_leaves_have_edges_and_noise_has_none() -> None:
    leaves, noise = dead_leaves(SHAPE, np.random.default_rng(0)), natural_noise(SHAPE, np.random.default_rng(0))
    assert kurtosis(noise) == pytest.approx(3, abs=0.2)
    assert kurtosis(leaves) > 6


def test_leaves_of_many_sizes_hide_each_other() -> None:
    """Power falls with frequency as in photographs, to the power of about -2.4 in two dimensions."""
    leaves = dead_leaves((60, 1, 64, 64), np.random.default_rng(0))
    power = (np.abs(np.fft.fft2(leaves)) ** 2).mean((0, 1))
    frequency = np.hypot(np.fft.fftfreq(64)[:, None], np.fft.fftfreq(64)[None, :])
    among = (frequency > 1 / 64) & (frequency < 0.4)
    slope = np.polyfit(np.log(frequency[among]), np.log(power[among]), 1)[0]
    assert -3.2 < slope < -1.8


@pytest.mark.parametrize("shape", [SHAPE, (1, 1, 8, 8), (2, 4, 5, 7)])
def test_images_are_normalized_and_come_in_turns(shape: tuple[int, ...]) -> None:
    images = natural_images(shape, np.random.default_rng(3))
    assert images.shape == shape
    assert np.isfinite(images).all()
    assert np.array_equal(images, natural_images(shape, np.random.default_rng(3)))
    if len(images) > 10:
        assert abs(images.mean()) < 0.2
        assert images.std() == pytest.approx(1, abs=0.1)
        assert kurtosis(images[1::2]) > 6 > 4 > kurtosis(images[::2])


@pytest.mark.parametrize("shape", [(1, 3, 8, 8), (1, 1, 40, 70)])
def test_a_leaf_is_whole_in_the_part_of_the_image_that_is_looked_at(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [natural.dead_leaves(shape, np.random.default_rng(seed)) for seed in range(8)]
    monkeypatch.setattr(natural, "_around", lambda middle, radius, size: slice(0, size))
    everywhere = [natural.dead_leaves(shape, np.random.default_rng(seed)) for seed in range(8)]
    np.testing.assert_array_equal(found, everywhere)
