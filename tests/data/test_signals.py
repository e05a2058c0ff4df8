"""Signals that are made up: of every kind, of the size that networks are made for, along the longest axis."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.data.signals import signals


def drawn(*shape: int, seed: int = 0) -> np.ndarray:  # type: ignore[type-arg]
    return signals(shape, np.random.default_rng(seed))


@pytest.mark.parametrize("shape", [(60, 128), (60, 3, 128), (60, 128, 3), (60, 40)])
def test_half_of_them_hang_together_along_the_course(shape: tuple[int, ...]) -> None:
    """White noise has no correlation with what comes next; coloured noise, slow waves and steps have."""
    found = drawn(*shape)
    assert found.shape == shape
    course = np.moveaxis(found, 1 + int(np.argmax(shape[1:])), -1).reshape(60, -1, max(shape[1:]))
    centred = course - course.mean(axis=-1, keepdims=True)
    after = (centred[..., 1:] * centred[..., :-1]).sum(axis=(1, 2)) / (centred**2).sum(axis=(1, 2))
    assert 20 <= (after < 0.3).sum() <= 45
    assert (after > 0.6).sum() >= 10


def test_sizes_and_offsets_vary_about_what_networks_are_made_for() -> None:
    found = drawn(600, 2, 64)
    sizes = np.sqrt((found**2).mean(axis=(1, 2)))
    assert 0.9 < np.median(sizes) < 1.1
    assert sizes.min() < 0.6
    assert sizes.max() > 1.8
    assert abs(found.mean()) < 0.1


@pytest.mark.parametrize("shape", [(50, 8), (50, 4, 8), (50, 2, 3, 64), (50,)])
def test_features_and_states_are_plain_noise(shape: tuple[int, ...]) -> None:
    np.testing.assert_array_equal(drawn(*shape), np.random.default_rng(0).standard_normal(shape))


def test_single_samples_are_of_every_kind() -> None:
    """Of a network that takes one at a time, no kind is left out."""
    sizes = [float(np.abs(np.fft.rfft(drawn(1, 256, seed=seed)[0]))[1:].max()) for seed in range(40)]
    assert min(sizes) < 60 < 100 < max(sizes)
