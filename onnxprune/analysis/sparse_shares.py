"""How sparsity is shared out over layers by their shapes alone."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod


def erk_shares(shapes: Mapping[str, tuple[int, ...]], sizes: Mapping[str, int], sparsity: float) -> dict[str, float]:
    """The share of each weight that is zero: small layers stay denser than large ones.

    Evci et al. 2020, "Rigging the Lottery", section 3 (1): the density of a kernel goes with (inputs + outputs + width
    + height) / (inputs * outputs * width * height), that of a matrix with (inputs + outputs) / (inputs * outputs); a
    layer that would be more than dense is dense, and the others share the rest.

    Args:
        shapes: as weights are stored, by name. A leading 1 (one direction of a recurrent cell) counts for nothing.
        sizes: how many entries each has.
        sparsity: the share of all entries that is to be zero, in [0, 1).
    """
    raw = {name: _sum_over_product(shape) for name, shape in shapes.items()}
    dense: set[str] = set()
    wanted = (1 - sparsity) * sum(sizes.values())
    while True:
        rest = sum(raw[name] * sizes[name] for name in sizes if name not in dense)
        scale = (wanted - sum(sizes[name] for name in dense)) / max(rest, 1e-30)
        full = {name for name in sizes if name not in dense and scale * raw[name] > 1}
        if not full:
            return {name: 0.0 if name in dense else 1 - scale * raw[name] for name in sizes}
        dense |= full


def _sum_over_product(shape: tuple[int, ...]) -> float:
    own = shape[1:] if len(shape) == 3 and shape[0] == 1 else shape
    return sum(own) / prod(own)
