"""Where the units of groups are read as activations: at the values that something sums over."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from onnxprune.analysis.groups import Analysis
from onnxprune.dims import Atom, Dim, atoms
from onnxprune.model.signature import ports_of
from onnxprune.ops.findings import Contraction


@dataclass(frozen=True)
class SitePlace:
    """Where the units of a group are read: axis `axis` of value `value`, which is `dim`.

    Axis `samples` enumerates the samples of a batch, the outermost first where it enumerates more than them. Quantized
    integers count from `zero`.
    """

    value: str
    axis: int
    dim: Dim
    samples: int = 0
    zero: float = 0.0


@dataclass(frozen=True)
class SiteRead:
    """A node that reads a place at input `slot`, and what of the place's dimension it sums over."""

    node: ir.Node
    slot: int
    summed: Dim

    def sums(self, atom: Atom) -> bool:
        """Does it sum over the units of an atom?"""
        return atom in set(atoms(self.summed))


def find_sites(analysis: Analysis) -> dict[SitePlace, list[SiteRead]]:
    """The activations that sums over prunable units read, each axis once, in topological order; who reads them where.

    Values inside the bodies of control flow are left out.
    """
    places: dict[tuple[str, int], SitePlace] = {}
    found: dict[SitePlace, list[SiteRead]] = {}
    for name, contraction in _contractions(analysis):
        slot, axis = contraction.operand
        place = SitePlace(name, axis, analysis.dims[name][axis], _sample_axis(analysis, name), _zero(contraction))
        found.setdefault(places.setdefault((name, axis), place), []).append(
            SiteRead(contraction.node, slot, contraction.summed)
        )
    return found


def _contractions(analysis: Analysis) -> Iterator[tuple[str, Contraction]]:
    """The sums over prunable units of an activation, with its name."""
    prunable = {group.atom for group in analysis.groups}
    for contraction in analysis.findings.contractions:
        value = contraction.node.inputs[contraction.operand[0]]
        if value is None or contraction.node.graph is not analysis.model.graph:
            continue
        if value.name in analysis.activations and prunable.intersection(atoms(contraction.summed)):
            yield value.name or "", contraction


def _zero(contraction: Contraction) -> float:
    """The zero point, where it is one constant for all units."""
    value = None if contraction.zero is None else contraction.node.inputs[contraction.zero]
    const = None if value is None else value.const_value
    return float(const.numpy().item()) if const is not None and const.size == 1 else 0.0


def samples_at_once(analysis: Analysis) -> int:
    """How many samples the model is analysed with."""
    ports = (port for port in ports_of(analysis.model) if port.shape and port.batch_axis is not None)
    return next((analysis.shapes.shapes[port.name][port.batch_axis or 0] for port in ports), 1)


def _sample_axis(analysis: Analysis, name: str) -> int:
    """The axis that enumerates the samples: of those that vary where the batch does the first that holds a batch."""
    shapes, batch = analysis.shapes, samples_at_once(analysis)
    axes = [axis for axis, size in enumerate(shapes.shapes[name]) if size % batch == 0]
    return next((axis for axis in axes if (name, axis) in shapes.dynamic), axes[0] if axes else 0)
