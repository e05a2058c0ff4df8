"""Sums over units with constant weights: one form for Conv, ConvTranspose, Gemm and MatMul.

    y[g, o] = shift[g, o] + sum over i, t of x[g, i] * weight[g, i, o, t]

g are the groups of a convolution and t the taps of its window. At the border a padded convolution leaves taps out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxprune.dims import Mask
from onnxprune.ops.base import Array, Key, key_of, keys
from onnxprune.ops.constants.base import KnownEntries, Site, Vector
from onnxprune.support.registry import Registry

# Since this opset Add broadcasts as numpy does.
_BROADCASTS = 7
_NO_PADDING = ("", "NOTSET", "VALID")


@dataclass(frozen=True)
class Linear:
    """A node as a sum over the entries of one axis of its first input.

    Attributes:
        axis: the axis of the input that is summed over, of size G*I.
        out: the axis of the output that the sums lie along, of size G*O.
        weight: [G, I, O, T].
        scale: what the sum is multiplied by.
        shift: what is added, per output entry; both arrays of shape [G*O].
        blur: why a constant input does not add the same everywhere; empty when it does.
        place: the input that can take up a shift; None: an Add behind has to.
        refusal: why a shift cannot be taken up; empty when it can.
    """

    axis: int
    out: int
    weight: Array
    shift: tuple[Vector, Mask]
    scale: float = 1.0
    blur: str = ""
    place: int | None = None
    refusal: str = ""

    def reads(self) -> Mask:
        """Does any tap of an input entry reach an output entry? bool, shape [G, I, O]."""
        found: Mask = (self.weight != 0).any(axis=3)
        return found

    def read_by(self, outputs: Mask) -> Mask:
        """The input entries that reach some of the `outputs` [G*O]: bool, shape [G*I]."""
        reads = self.reads()
        chosen = outputs.reshape(len(reads), 1, -1)
        return (reads & chosen).any(axis=2).ravel()

    def usable(self, x: KnownEntries | None) -> tuple[Vector, Mask]:
        """The input entries that add a constant to every output entry, and which those are; both of shape [G*I]."""
        size = self.weight.shape[0] * self.weight.shape[1]
        if x is None:
            return np.zeros(size), np.zeros(size, np.bool_)
        values, known = x.along(self.axis, size)
        return values, known & (values == 0) if self.blur else known

    def total(self, x: Vector) -> Vector:
        """The sum that input entries of constant value [G*I] add to each output entry, shape [G*O]."""
        groups, inner, outer, _ = self.weight.shape
        sums = np.zeros((groups, outer))
        for entry in np.flatnonzero(x):
            group, i = divmod(int(entry), inner)
            sums[group] += x[entry] * self.weight[group, i].astype(np.float64).sum(axis=-1)
        return self.scale * sums.ravel()

    def constants(self, x: KnownEntries | None) -> tuple[Vector, Mask]:
        """The output entries that are constant; both of shape [G*O]."""
        values, usable = self.usable(x)
        groups, inner = self.weight.shape[:2]
        shift, known = self.shift
        blocked = (self.reads() & ~usable.reshape(groups, inner, 1)).any(axis=1).ravel()
        known = known & ~blocked
        return (shift + self.total(np.where(usable, values, 0)) if known.any() else shift), known


Form = Callable[[Site], Linear | None]
FORMS: Registry[Key, Form] = Registry("linear form", __package__, "onnxprune.lossless")


def linear(*names: str, domain: str = "") -> Callable[[Form], Form]:
    """Decorator: this brings the operators `names` into the form of a sum; None where the weights are not constant."""
    return FORMS.register(*keys(names, domain))


def linear_form(site: Site) -> Linear | None:
    """The node as a sum over its first input with constant weights; None when it is not one."""
    form = FORMS.get(key_of(site.node))
    try:
        return None if form is None else form(site)
    except (ValueError, IndexError, TypeError, ArithmeticError):  # a form of the operator that was not foreseen
        return None


def _shift(site: Site, i: int, size: int) -> tuple[Vector, Mask]:
    """The facts about a bias that lies along the last axis of input `i` and is the same along the others."""
    if not site.has(i):
        return np.zeros(size), np.ones(size, np.bool_)
    known = site.x[i]
    if known is None:
        return np.zeros(size), np.zeros(size, np.bool_)
    rank = known.values.ndim
    return known.along(rank - 1, size) if rank else known.moved(np.atleast_1d).along(0, size)


def _refusal(site: Site, i: int) -> str:
    return "has a bias that is computed at run time" if site.has(i) and site.constant(i) is None else ""


@linear("Conv")
def conv(site: Site) -> Linear | None:
    """Input [N, G*I, ...], weight [G*O, I, ...]: at a padded border fewer taps see the input."""
    weight = site.constant(1)
    if weight is None:
        return None
    groups = int(site.attr("group", 1))
    outputs, inner, *window = weight.shape
    form = weight.reshape(groups, outputs // groups, inner, prod(window)).transpose(0, 2, 1, 3)
    blur = "pads its input with zeros" if _is_padded(site.node, window) else ""
    return Linear(1, 1, form, _shift(site, 2, outputs), blur=blur, place=2, refusal=_refusal(site, 2))


def _is_padded(node: ir.Node, window: list[int]) -> bool:
    attributes = node.attributes
    auto = attributes["auto_pad"].as_string() if "auto_pad" in attributes else ""
    if auto not in _NO_PADDING:
        return any(size > 1 for size in window)
    return auto != "VALID" and "pads" in attributes and any(attributes["pads"].as_ints())


@linear("ConvTranspose")
def conv_transpose(site: Site) -> Linear | None:
    """Input [N, G*I, ...], weight [G*I, O, ...]: how many taps meet at a place differs from place to place."""
    weight = site.constant(1)
    if weight is None:
        return None
    groups = int(site.attr("group", 1))
    inputs, outer, *window = weight.shape
    form = weight.reshape(groups, inputs // groups, outer, prod(window))
    blur = "sees them through more taps in one place than in another"
    return Linear(1, 1, form, _shift(site, 2, groups * outer), blur=blur, place=2, refusal=_refusal(site, 2))


@linear("Gemm")
def gemm(site: Site) -> Linear | None:
    """The sum alpha * a·b + beta * c, where `b` is the weight."""
    weight = site.constant(1)
    if weight is None or "broadcast" in site.node.attributes:
        return None
    weight = weight.T if site.attr("transB", 0) else weight
    beta = float(site.attr("beta", 1.0))
    values, known = _shift(site, 2, weight.shape[1])
    return Linear(
        0 if site.attr("transA", 0) else 1,
        1,
        weight[None, :, :, None],
        (beta * values, known),
        scale=float(site.attr("alpha", 1.0)),
        place=2,
        refusal=_refusal(site, 2),
    )


@linear("MatMul")
def matmul(site: Site) -> Linear | None:
    """Input [..., K] times a weight [K, N]."""
    weight, rank = site.constant(1), len(site.shapes[0])
    if weight is None or weight.ndim != 2 or rank < 2 or site.opset < _BROADCASTS:
        return None
    nothing: tuple[npt.NDArray[np.float64], Mask] = np.zeros(weight.shape[1]), np.ones(weight.shape[1], np.bool_)
    return Linear(rank - 1, rank - 1, weight[None, :, :, None], nothing)
