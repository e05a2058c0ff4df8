"""Recurrent cells: hidden units that are zero at every step, and which entries a cell reads at all."""

from __future__ import annotations

import numpy as np

from onnxprune.dims import Mask
from onnxprune.ops.base import Array
from onnxprune.ops.constants.base import KnownEntries, Site, constant, on_axis

# Which gate makes what a state becomes: of LSTM input, output, forget, cell; of GRU update, reset, hidden.
_CANDIDATE = {"LSTM": (4, 3), "GRU": (3, 2), "RNN": (1, 0)}
_CELLS = tuple(_CANDIDATE)


@constant(*_CELLS)
def cell(site: Site) -> list[KnownEntries | None] | None:
    """Units whose candidate is tanh(0) = 0, and that start at zero, are zero at every step.

    An LSTM keeps c = f * c + i * 0, a GRU h = z * h + (1 - z) * 0, whatever their gates say.
    """
    off = zero_units(site)
    if off is None or not off.any():
        return None
    outputs = zip(site.y, site.dtypes, strict=True)  # all states, and the last ones
    return [
        on_axis(np.zeros(len(off)), off, len(shape) - 1, len(shape), dtype) if shape else None
        for shape, dtype in outputs
    ]


def zero_units(site: Site) -> Mask | None:
    """The hidden units that are zero in every run, in both directions: bool, [units]; None where nothing is known."""
    weights = _by_gate(site)
    if weights is None or "activations" in site.node.attributes or not _starts_at_zero(site):
        return None
    w, r, candidate = *weights, _CANDIDATE[site.node.op_type][1]
    off = ~w[:, candidate].any(axis=2) & _has_no_bias(site, candidate)
    recurrent = r[:, candidate] != 0
    while True:  # a unit may read others that are zero
        left = off & ~(recurrent & ~off[:, None]).any(axis=2)
        if (left == off).all():
            return np.asarray(off.all(axis=0))
        off = left


def read_by_cell(site: Site, slot: int, hidden: Mask) -> Mask | None:
    """Which entries a cell reads for the `hidden` units that are needed, bool [units].

    Of slot 0 its inputs, of slot 2 its own states; both bool, along the last axis of the weights. None where those are
    not constant.
    """
    weights = _by_gate(site)
    if weights is None or slot not in (0, 2):
        return None
    read: Mask = (weights[slot // 2][:, :, hidden] != 0).any(axis=(0, 1, 2))
    off = zero_units(site) if slot == 2 else None
    return read if off is None else read & ~off


def _by_gate(site: Site) -> tuple[Array, Array] | None:
    """W and R as [directions, gates, units, entries]."""
    if site.node.op_type not in _CANDIDATE or site.node.domain not in ("", "ai.onnx"):
        return None
    gates, found = _CANDIDATE[site.node.op_type][0], []
    for slot in (1, 2):
        weight = site.constant(slot)
        if weight is None:
            return None
        found.append(weight.reshape(len(weight), gates, -1, weight.shape[-1]))
    return found[0], found[1]


def _has_no_bias(site: Site, candidate: int) -> Mask:
    """Is what the candidate of a unit adds zero: of both biases, for a GRU scales one of them? [directions, units]."""
    gates, units = _CANDIDATE[site.node.op_type][0], site.shapes[2][-1]
    directions = site.shapes[1][0]
    if not site.has(3):
        return np.ones((directions, units), np.bool_)
    bias = site.constant(3)
    if bias is None:
        return np.zeros((directions, units), np.bool_)
    parts = bias.reshape(directions, 2, gates, units)[:, :, candidate]
    apart = site.node.op_type == "GRU"
    return np.asarray(~parts.any(axis=1) if apart else parts.sum(axis=1) == 0)


def _starts_at_zero(site: Site) -> bool:
    """Are the first states not given, or zero?"""
    for slot in (5, 6):
        known = site.x[slot] if slot < len(site.x) else None
        if site.has(slot) and (known is None or not known.zero.all()):
            return False
    return True
