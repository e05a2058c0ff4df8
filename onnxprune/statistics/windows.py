"""Covariance of the windows of a convolution, by its two factors."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from onnxprune.data.base import Batch
from onnxprune.statistics.accumulators import Array, Covariance, Matrix, View


class Windows:
    """Covariance of the rows of a convolution as a product: between channels, times between the taps of the window.

    H is taken as kron(C, T), and only the factors are kept (as Martens & Grosse 2015, "K-FAC", section 3, do for the
    Fisher matrix): C is the mean covariance of the channels over the taps, T that of the taps over the channels, scaled
    to a trace of the number of taps.

    Args:
        view: of the rows, [groups, rows, channels * taps].
        taps: of the window.
    """

    def __init__(self, view: View, taps: int) -> None:
        self._view, self._taps = view, taps
        self._channels, self._places = Covariance(self._by_tap), Covariance(self._by_channel)

    def update(self, value: Array, batch: Batch) -> None:
        """Take the value that a batch gives."""
        self._channels.update(value, batch)
        self._places.update(value, batch)

    @property
    def count(self) -> int:
        """Rows that were seen."""
        return self._channels.count

    def factors(self, group: int) -> tuple[Matrix, Matrix]:
        """C, [channels, channels], and T, [taps, taps], of a group."""
        by_tap, by_channel = self._channels.covariance, self._places.covariance
        channels = by_tap.shape[-1]
        between = by_tap.reshape(-1, self._taps, channels, channels)[group].mean(axis=0)
        within = by_channel.reshape(-1, channels, self._taps, self._taps)[group].mean(axis=0)
        return between, within * (self._taps / max(float(np.trace(within)), 1e-30))

    def _by_tap(self, value: Array, batch: Batch) -> Iterator[Array]:
        for rows in self._view(value, batch):
            groups, count, features = rows.shape
            windows = rows.reshape(groups, count, features // self._taps, self._taps)
            yield windows.transpose(0, 3, 1, 2).reshape(groups * self._taps, count, -1)

    def _by_channel(self, value: Array, batch: Batch) -> Iterator[Array]:
        for rows in self._view(value, batch):
            groups, count, features = rows.shape
            windows = rows.reshape(groups, count, features // self._taps, self._taps)
            yield windows.transpose(0, 2, 1, 3).reshape(groups * (features // self._taps), count, self._taps)
