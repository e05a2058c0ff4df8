"""Operators that move axes around: Reshape, Transpose and their relatives."""

from __future__ import annotations

from onnxprune.dims import Atom, atoms, product
from onnxprune.ops.base import Op, RefuseError, rule


@rule("Reshape")
def reshape(op: Op) -> None:
    """Row-major: the input's axes and the output's axes are two decompositions of the same sequence."""
    x, y = op.x[0], op.y[0]
    op.free(*x, *y)
    if product(*x).size != product(*y).size:
        raise RefuseError("its input has a size that depends on data, its target is a fixed one")
    op.same(product(*x), product(*y))
    target = op.const(op.slot(1, "shape"))
    for axis, dim in enumerate(y):
        if target is None or target[axis] > 0:
            op.names(op.slot(1, "shape"), axis, dim, inferable=True)
        elif target[axis] == 0 and dim.size and list(atoms(dim)) != list(atoms(x[axis])):
            for other in (dim, x[axis]):  # equal sizes that need not stay equal
                op.freeze(other, "its size is copied to an axis of other contents")


@rule("Flatten")
def flatten(op: Op) -> None:
    """Two groups of axes become two axes."""
    x = op.x[0]
    axis = op.axis(default=1)
    op.free(*x)
    op.same(op.y[0][0], product(*x[:axis]))
    op.same(op.y[0][1], product(*x[axis:]))


@rule("Squeeze", "Unsqueeze")
def insert_or_drop_ones(op: Op) -> None:
    """The axes of size 1 that differ are found by matching the others in order."""
    longer, shorter = sorted((op.x[0], op.y[0]), key=len, reverse=True)
    given = op.const(op.slot(1, "axes"))
    ones = (
        [axis for axis, dim in enumerate(longer) if dim.size == 1]
        if given is None
        else [int(axis) % len(longer) for axis in given.ravel()]
    )
    if given is None:
        _write_down(op, ones)
    op.free(*[longer[axis] for axis in ones])
    op.same_all([dim for axis, dim in enumerate(longer) if axis not in ones], shorter)


def _write_down(op: Op, axes: list[int]) -> None:
    """Name the axes that a Squeeze drops unsaid, once another shrinks to a single unit, which must not go with them.

    Not before: a dynamic axis of size 1 goes too, in the original as in what is left of it.
    """
    slot: int | str = 1 if op.opset >= 13 else "axes"
    whole = product(*op.x[0])
    for index, axis in enumerate(axes):
        position = Atom(axis, op.reason("the position of an axis"))
        op.names(slot, index, position, whole, singles=[dim for i, dim in enumerate(op.x[0]) if i not in axes])
    if not axes:
        op.freeze(whole, "it would be dropped once a single unit is left")


@rule("Transpose")
def transpose(op: Op) -> None:
    """Axis i of the output is axis perm[i] of the input."""
    x = op.x[0]
    perm = op.attr("perm") or list(reversed(range(len(x))))
    op.same_all(op.y[0], [x[axis] for axis in perm])


@rule("Shape", "Size")
def shape(op: Op) -> None:
    """Reading a size constrains nothing: what was computed from it at export time is folded before the analysis."""
    op.free(*op.x[0])


@rule("DepthToSpace")
def depth_to_space(op: Op) -> None:
    """Blocks leave the channels: [b, b, C] in mode DCR, [C, b, b] in mode CRD."""
    block = int(op.attr("blocksize"))
    x, y = op.x[0], op.y[0]
    blocks = Atom(block * block, op.reason("blocks of pixels"))
    op.same(y[0], x[0])
    op.same(x[1], product(y[1], blocks) if op.attr("mode", "DCR") == "CRD" else product(blocks, y[1]))
    op.free(y[1])


@rule("SpaceToDepth")
def space_to_depth(op: Op) -> None:
    """Blocks enter the channels, outside them."""
    block = int(op.attr("blocksize"))
    op.same(op.y[0][0], op.x[0][0])
    op.same(op.y[0][1], product(Atom(block * block, op.reason("blocks of pixels")), op.x[0][1]))
    op.free(op.x[0][1])


@rule("Expand")
def expand(op: Op) -> None:
    """Broadcast to a shape: repeated axes are new dimensions, and entries of the shape name them."""
    x, y = op.x[0], op.y[0]
    target = op.const(1)
    lead = len(y) - (len(y) if target is None else len(target))
    for axis, dim in enumerate(y):
        source = axis - (len(y) - len(x))
        if source >= 0 and x[source].size == dim.size:
            op.same(dim, x[source])
        else:
            op.free(dim)
            if source >= 0:
                op.free(x[source])
        if axis >= lead and (target is None or target[axis - lead] > 1):
            op.names(1, axis - lead, dim)


@rule("Tile")
def tile(op: Op) -> None:
    """A repeated axis is `repeats` copies of the input's, outermost; one of size 1 becomes a dimension of its own."""
    for axis, (x, y) in enumerate(zip(op.x[0], op.y[0], strict=True)):
        if x.size == y.size:
            op.same(y, x)
        elif x.size == 1:
            op.free(x, y)
            op.names(1, axis, y)
        else:
            op.same(y, product(Atom(y.size // x.size, op.reason("copies of a tile")), x))
            op.free(x)


@rule("ConstantOfShape")
def constant_of_shape(op: Op) -> None:
    """Filled with one value: any size will do, and the shape names it."""
    op.free(*op.y[0])
    for axis, dim in enumerate(op.y[0]):
        op.names(0, axis, dim)


@rule("RandomNormal", "RandomUniform")
def random_of_shape(op: Op) -> None:
    """The shape is an attribute."""
    op.free(*op.y[0])
    for axis, dim in enumerate(op.y[0]):
        op.names("shape", axis, dim)


@rule("Range", "EyeLike", "NonZero", "Multinomial", "Constant", "Unique", "NonMaxSuppression", "Compress", "Det")
def fixed(_: Op) -> None:
    """Positions or selections come out as data: every axis keeps its size (the driver freezes the unmentioned)."""


@rule("Trilu")
def trilu(op: Op) -> None:
    """The last two axes are compared by position."""
    op.same_all(op.y[0], op.x[0])
    for dim in op.x[0][-2:]:
        op.freeze(dim, "entries are kept by position")
