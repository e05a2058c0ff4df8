"""Masks on single weights that change while a training goes on: what the methods that make them have in common."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from onnxprune.analysis.sparse_patterns import Anywhere, Pattern, by_taps
from onnxprune.analysis.sparse_shares import erk_shares
from onnxprune.analysis.weight_matrices import WeightMatrix, weight_matrices
from onnxprune.errors import UsageError
from onnxprune.steps.train.method import Effect, Moment, Scene

SHARES = ("erk", "uniform")
BEGINNINGS = ("magnitude", "random")


def due(moment: Moment, interval: int) -> bool:
    """Is a mask to be changed after this update? Never after the very first ones."""
    return (moment.step + 1) % interval == 0


class Masked(Effect):
    """Weights of which some entries are zero.

    Attributes:
        masks: per weight, 1 for entries that may be other than zero, else 0: of its shape and type.
        allowed: those that may ever be, per weight; masks of earlier steps say so.
        matrices: the products that the weights take part in, by name of the weight.
    """

    def __init__(self, scene: Scene, pattern: Pattern | None = None) -> None:
        super().__init__()
        self.pattern = pattern or Anywhere()
        self.matrices: dict[str, list[WeightMatrix]] = {}
        trained = scene.matrices
        for each in weight_matrices(scene.analysis)[0]:
            _, features, outputs = each.places().shape
            if each.stored in trained and not self.pattern.why_not(features // each.taps, outputs):
                self.matrices.setdefault(each.stored, []).append(each)
        if not self.matrices:
            raise UsageError("no weight that is trained can be made sparse in this way")
        self.allowed = {
            name: scene.zeros[name].to(trained[name]) if name in scene.zeros else torch.ones_like(trained[name])
            for name in self.matrices
        }
        self.masks = {  # in one piece, also of weights whose channels come last
            name: each.detach().clone(memory_format=torch.contiguous_format) for name, each in self.allowed.items()
        }
        self.buffers.update({f"mask of {name}": mask for name, mask in self.masks.items()})
        self.sparse = tuple(self.masks)

    def shares(self, sparsity: float, how: str) -> dict[str, float]:
        """The share of each weight that is to be zero: the same for all, or by the shapes (erk)."""
        if how == "uniform":
            return dict.fromkeys(self.masks, sparsity)
        shapes = {name: tuple(mask.shape) for name, mask in self.masks.items()}
        return erk_shares(shapes, {name: mask.numel() for name, mask in self.masks.items()}, sparsity)

    def keep_largest(self, weights: Mapping[str, Tensor], shares: Mapping[str, float], pattern: Pattern) -> None:
        """Set the masks to the weights of largest size, all of which are looked at, those at zero too."""
        for name, share in shares.items():
            sizes = weights[name].detach().abs()
            self.set(name, sizes, share, pattern)

    def set(self, name: str, scores: Tensor, share: float, pattern: Pattern) -> None:
        """Set a mask to the entries of highest score; entries that are not allowed go first."""
        seen = torch.where(self.allowed[name] > 0, scores.double(), -1.0).cpu().numpy()
        kept = np.ones(seen.shape, np.bool_)
        for each in self.matrices[name]:
            each.put(kept, _kept(each, seen, share, pattern))
        chosen = torch.from_numpy(kept).to(self.masks[name])
        self.masks[name].copy_(chosen * self.allowed[name])

    def set_zeros(self, weights: Mapping[str, Tensor]) -> None:
        """Set the weights to zero that the masks leave out, in place."""
        with torch.no_grad():
            for name, mask in self.masks.items():
                weights[name].mul_(mask)


def _kept(
    matrix: WeightMatrix, scores: npt.NDArray[np.float64], share: float, pattern: Pattern
) -> npt.NDArray[np.bool_]:
    """Which entries of a matrix stay: the pattern sees features tap by tap."""
    own = matrix.of(scores)
    order = by_taps(own.shape[1], matrix.taps)
    kept = np.empty(own.shape, np.bool_)
    kept[:, order] = pattern.keep(own[:, order], share)
    return kept


def grown(share: float, begin: float, end: float) -> float:
    """How much of a sparsity is due after a share of a training: 1 - (1 - t)^3 between `begin` and `end`."""
    way = float(share >= begin) if end <= begin else min(max((share - begin) / (end - begin), 0.0), 1.0)
    return 1 - (1 - way) ** 3
