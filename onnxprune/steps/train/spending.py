"""The cost of a network for counts of units that need not be whole: a differentiable share of its MACs."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from onnxprune.analysis.cost_model import CostTerms
from onnxprune.analysis.groups import Analysis


class Spending:
    """The share of the MACs of a model that is left."""

    def __init__(self, analysis: Analysis) -> None:
        self._terms = CostTerms(analysis)
        self._atoms = {group.id: group.atom for group in analysis.groups}
        self._whole = max(self._terms.macs({}), 1)

    def __call__(self, kept: Mapping[str, Tensor]) -> Tensor:
        """A scalar in [0, 1], equal to that of `cost.measure` for whole counts.

        Args:
            kept: per group id how many units are left, scalars; groups that are not named stay whole.
        """
        macs = self._terms.macs({self._atoms[name]: count for name, count in kept.items()})
        return torch.as_tensor(macs / self._whole)
