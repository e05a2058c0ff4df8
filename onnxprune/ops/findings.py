"""Facts that rules state of a model, besides which dimensions are the same."""

from __future__ import annotations

from dataclasses import dataclass, field

import onnx_ir as ir

from onnxprune.dims import Dim


@dataclass(frozen=True)
class Reason:
    """Why a dimension keeps its size, in words that a person can act on."""

    text: str
    node: str = ""
    op_type: str = ""
    tensor: str = ""

    def __str__(self) -> str:
        place = f" ({self.op_type} '{self.node}')" if self.node else ""
        return f"{self.text}{place}"


@dataclass(frozen=True)
class SizeRef:
    """Entry `index` (None: the scalar) of an input or attribute that must equal the size of `dim`.

    It is rewritten after removal when `axis`, the whole axis it speaks about, has changed. `dropping` names an
    attribute that makes way for an input created for this purpose. An `inferable` entry may be -1, once per node.
    Where `singles` are given, it is rewritten only once one of them comes down to a single unit.
    """

    node: ir.Node
    slot: int | str
    index: int | None
    dim: Dim
    axis: Dim
    dropping: str = ""
    inferable: bool = False
    singles: tuple[Dim, ...] = ()


@dataclass(frozen=True)
class IndexRef:
    """A constant input whose entries are positions along `dim`, of shape `picked`: renumbered after removal."""

    node: ir.Node
    slot: int
    dim: Dim
    picked: tuple[Dim, ...]


@dataclass(frozen=True)
class Contraction:
    """A sum over `dim` inside a node; `operand` is the (input index, axis) of one of its factors.

    `zero` is the input that says which value of the operand counts as zero (the zero point of integers; None: 0).
    `over` is the factor of `dim` that is summed over, where the others come out again (the outer groups of a grouped
    convolution, the heads of queries); None: all of it.
    """

    node: ir.Node
    operand: tuple[int, int]
    dim: Dim
    zero: int | None = None
    over: Dim | None = None

    @property
    def summed(self) -> Dim:
        """The dimension that is summed over."""
        return self.dim if self.over is None else self.over


@dataclass(frozen=True)
class Pinned:
    """An attribute whose default follows from the size of `axis`: once that changes, it is set to what it was."""

    node: ir.Node
    name: str
    value: float
    axis: Dim


@dataclass
class Findings:
    """The facts that rules have stated, besides equality of dimensions."""

    size_refs: list[SizeRef] = field(default_factory=list)
    index_refs: list[IndexRef] = field(default_factory=list)
    contractions: list[Contraction] = field(default_factory=list)
    pinned: list[Pinned] = field(default_factory=list)
    tags: list[tuple[str, Dim, ir.Node]] = field(default_factory=list)
