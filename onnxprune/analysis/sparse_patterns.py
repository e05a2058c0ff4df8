"""Where zeros may be: anywhere, evenly in every output, N of M, in blocks, or whole outputs at once.

A pattern looks at the matrix of a weight [groups, features, outputs] with the features of a window ordered tap by tap,
so that neighbours are the same tap of consecutive input channels: the order in which hardware for N:M reads a kernel
(the input channels of a Conv, see NVIDIA's ASP; Mishra et al. 2021, "Accelerating Sparse Deep Neural Networks").
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnxprune.dims import Mask
from onnxprune.errors import UsageError

Scores = npt.NDArray[np.float64]
PATTERNS = "none, row, channel, N:M like 2:4, or RxC like 1x4"
_LARGEST = 1024


class Pattern(ABC):
    """Chooses the entries that stay.

    Attributes:
        columns: how many consecutive features belong together.
        rows: how many consecutive outputs do.
        fixed: the sparsity that the pattern itself decides; None: any.
    """

    columns: int = 1
    rows: int = 1
    fixed: float | None = None

    @abstractmethod
    def keep(self, scores: Scores, share: float) -> Mask:
        """Which entries stay when `share` of them goes: bool, of the shape of `scores`, [groups, features, outputs]."""

    def why_not(self, channels: int, outputs: int) -> str:
        """Why it does not fit a matrix of so many input channels and outputs in a group; empty where it does."""
        if channels % self.columns:
            return f"its {channels} input channels are not a multiple of {self.columns}"
        return f"its {outputs} outputs are not a multiple of {self.rows}" if outputs % self.rows else ""


@dataclass(frozen=True)
class Anywhere(Pattern):
    """Zeros may be anywhere."""

    def keep(self, scores: Scores, share: float) -> Mask:
        """The entries of highest score in the whole matrix."""
        return _highest(scores.reshape(1, -1), share).reshape(scores.shape)


@dataclass(frozen=True)
class EvenRows(Pattern):
    """Every output keeps as many of its weights: the comparison of Sun et al. 2024 (Wanda), section 3."""

    def keep(self, scores: Scores, share: float) -> Mask:
        """The entries of highest score of each output."""
        groups, features, outputs = scores.shape
        rows = scores.transpose(0, 2, 1).reshape(-1, features)
        return _highest(rows, share).reshape(groups, outputs, features).transpose(0, 2, 1)


@dataclass(frozen=True)
class Channels(Pattern):
    """Whole outputs become zero: units that the lossless mode of `prune` can then remove."""

    def keep(self, scores: Scores, share: float) -> Mask:
        """All weights of the outputs of highest sum."""
        sums = scores.sum(axis=1)
        kept = _highest(sums.reshape(1, -1), share).reshape(sums.shape)
        return np.broadcast_to(kept[:, None], scores.shape).copy()


@dataclass(frozen=True)
class NofM(Pattern):
    """Of every M consecutive input channels of an output, N weights stay."""

    n: int
    m: int

    @property
    def columns(self) -> int:  # type: ignore[override]
        """M."""
        return self.m

    @property
    def fixed(self) -> float:  # type: ignore[override]
        """1 - N / M."""
        return 1 - self.n / self.m

    def keep(self, scores: Scores, share: float) -> Mask:
        """The N of highest score of each M."""
        del share
        groups, features, outputs = scores.shape
        each = scores.reshape(groups, features // self.m, self.m, outputs)
        places = np.argsort(np.argsort(-each, axis=2, kind="stable"), axis=2, kind="stable")
        kept: Mask = (places < self.n).reshape(scores.shape)
        return kept


@dataclass(frozen=True)
class Blocks(Pattern):
    """Zeros come in blocks of R outputs by C input channels."""

    r: int
    c: int

    @property
    def columns(self) -> int:  # type: ignore[override]
        """C."""
        return self.c

    @property
    def rows(self) -> int:  # type: ignore[override]
        """R."""
        return self.r

    def keep(self, scores: Scores, share: float) -> Mask:
        """The blocks of highest sum."""
        groups, features, outputs = scores.shape
        blocks = scores.reshape(groups, features // self.c, self.c, outputs // self.r, self.r).sum(axis=(2, 4))
        kept = _highest(blocks.reshape(1, -1), share).reshape(blocks.shape)
        return kept.repeat(self.c, axis=1).repeat(self.r, axis=2)


def _highest(scores: Scores, share: float) -> Mask:
    """Of each row all but the lowest `share`; of equal scores the first go."""
    rows, count = scores.shape
    kept = np.ones((rows, count), np.bool_)
    order = np.argsort(scores, axis=1, kind="stable")[:, : round(share * count)]
    np.put_along_axis(kept, order, np.False_, axis=1)
    return kept


_SIMPLE: dict[str, Callable[[], Pattern]] = {"none": Anywhere, "row": EvenRows, "channel": Channels}


def parse_pattern(text: str) -> Pattern:
    """The pattern that a text represents. Raises UsageError where it represents none."""
    if text in _SIMPLE:
        return _SIMPLE[text]()
    found = re.fullmatch(r"(\d+)([:x])(\d+)", text)
    if found is None:
        raise UsageError(f"unknown pattern '{text}'; give {PATTERNS}")
    first, second = int(found[1]), int(found[3])
    if not 1 <= first <= _LARGEST or not 1 <= second <= _LARGEST or (found[2] == ":" and first >= second):
        raise UsageError(
            f"pattern '{text}' makes no sense; of N:M less than M stay, and of RxC both are 1 to {_LARGEST}"
        )
    return NofM(first, second) if found[2] == ":" else Blocks(first, second)


def by_taps(features: int, taps: int) -> npt.NDArray[np.int64]:
    """The order of features, tap by tap, of a matrix that has them channel by channel: int64, shape [features]."""
    return np.arange(features).reshape(-1, taps).T.ravel()
