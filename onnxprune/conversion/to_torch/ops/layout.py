"""The same entries in another arrangement."""

from __future__ import annotations

import numpy as np

from onnxprune.conversion.to_torch.base import Call, Sizes, listed, python_number, written

_END = 2**31 - 1  # exporters write "to the end" as this or more


def whole_numbers(op: Call, slot: int, name: str) -> list[int] | None:
    """Axes and the like: an attribute in old opsets, an input in newer ones; None where they are left out."""
    stated = op.attr(name)
    if stated is not None:
        return list(stated) if not isinstance(stated, int) else [stated]
    if not op.has(slot):
        return None
    array = op.constant(slot)
    if array is None:
        raise op.refuse(f"its {name} are computed")
    return [int(each) for each in array.reshape(-1)]


@written("Reshape")
def reshape(op: Call) -> str:
    """To a shape; 0 keeps an axis."""
    stated = op.attr("shape")
    entries = list(map(str, stated)) if stated is not None else op.numbers(1)
    if not op.attr("allowzero", 0):
        entries = [op.size(0, axis) if entry == "0" else entry for axis, entry in enumerate(entries)]
    return f"{op.tensor(0)}.reshape({listed(entries)})" if entries else f"{op.tensor(0)}.reshape(())"


@written("Flatten")
def flatten(op: Call) -> str:
    """To a matrix."""
    rank, x = op.known_rank(0), op.tensor(0)
    axis = op.attr("axis", 1)
    axis += rank if axis < 0 else 0
    if axis in (0, rank):
        return f"{x}.reshape({'1, -1' if axis == 0 else '-1, 1'})"
    return f"{x}.flatten(1)" if axis == 1 else f"{x}.flatten(0, {axis - 1}).flatten(1)"


@written("Transpose")
def transpose(op: Call) -> str:
    """Axes in another order."""
    order = list(op.attr("perm") or range(op.known_rank(0))[::-1])
    moved = [axis for axis, before in enumerate(order) if axis != before]
    if len(moved) == 2:
        return f"{op.tensor(0)}.transpose({listed(moved)})"
    return f"{op.tensor(0)}.permute({listed(order)})" if moved else op.tensor(0)


@written("Squeeze")
def squeeze(op: Call) -> str:
    """Without axes of size one."""
    axes = whole_numbers(op, 1, "axes")
    if axes is None:
        return f"{op.tensor(0)}.squeeze()"
    return f"{op.tensor(0)}.squeeze({axes[0] if len(axes) == 1 else f'({listed(axes)})'})"


@written("Unsqueeze")
def unsqueeze(op: Call) -> str:
    """With new axes of size one."""
    axes = whole_numbers(op, 1, "axes") or []
    rank = op.known_rank(0) + len(axes)
    return op.tensor(0) + "".join(f".unsqueeze({axis})" for axis in sorted(axis % rank for axis in axes))


@written("Expand")
def expand(op: Call) -> str:
    """Broadcast to a shape; where it says 1, the input's size stays."""
    entries, rank = op.numbers(1), op.known_rank(0)
    entries = ["-1"] * (rank - len(entries)) + entries
    new = len(entries) - rank
    entries = ["-1" if entry == "1" and axis >= new else entry for axis, entry in enumerate(entries)]
    return f"{op.tensor(0)}.expand({listed(entries)})"


@written("Tile")
def tile(op: Call) -> str:
    """Repeated along the axes."""
    if op.version < 6:
        raise op.refuse("it repeats as opset 1 did")
    return f"{op.tensor(0)}.repeat({listed(op.numbers(1))})"


@written("Concat")
def concat(op: Call) -> str:
    """One after the other."""
    names = [op.tensor(slot) for slot in range(len(op.node.inputs))]
    return names[0] if len(names) == 1 else f"torch.cat([{listed(names)}], {op.attr('axis', 1)})"


@written("Split")
def split(op: Call) -> list[str]:
    """Pieces of stated sizes, or equal ones."""
    axis, x = op.attr("axis", 0), op.tensor(0)
    stated = op.attr("split")
    sizes = list(map(str, stated)) if stated is not None else op.numbers(1) if op.has(1) else None
    if sizes is None:
        size, count = op.size(0, axis), int(op.attr("num_outputs") or len(op.node.outputs))
        if not size.isdecimal():
            return [f"{x}.tensor_split({count}, {axis})"]
        piece = -(-int(size) // count)
        sizes = [str(min(piece, int(size) - piece * at)) for at in range(count)]
    if len(sizes) == 1:
        return [f"{x}.split([{sizes[0]}], {axis})"]
    return [f"{x}.split([{listed(sizes)}], {axis})"]


@written("Slice")
def slice_(op: Call) -> str:
    """Ranges along axes."""
    if op.attr("starts") is not None:
        starts, ends = ([str(each) for each in op.attr(name)] for name in ("starts", "ends"))
        axes, steps = op.attr("axes"), None
    else:
        starts, ends = op.numbers(1), op.numbers(2)
        axes = whole_numbers(op, 3, "axes")
        steps = whole_numbers(op, 4, "steps")
    rank = op.known_rank(0)
    ranges, backwards = [":"] * rank, []
    found = axes or range(len(starts))
    for start, end, axis, step in zip(starts, ends, found, steps or [1] * len(starts), strict=True):
        if step < 0:
            if step != -1 or not _is_at_end(op, start, axis % rank) or not (end.startswith("-") and int(end) <= -_END):
                raise op.refuse("it goes backwards in steps, or over a part of the axis")
            backwards.append(axis % rank)
            continue
        ranges[axis % rank] = _range(start, end, step)
    while ranges and ranges[-1] == ":":
        ranges.pop()
    return (
        op.tensor(0) + (f"[{listed(ranges)}]" if ranges else "") + (f".flip({listed(backwards)})" if backwards else "")
    )


def _range(start: str, end: str, step: int) -> str:
    first = "" if start == "0" else start
    last = "" if end.isdecimal() and int(end) >= _END else end
    plain = all(entry.removeprefix("-").isalnum() for entry in (first, last) if entry)
    colon = ":" if plain else f"{' ' if first else ''}:{' ' if last or step > 1 else ''}"  # as ruff writes it
    return f"{first}{colon}{last}" + (f":{step}" if step > 1 else "")


def _is_at_end(op: Call, start: str, axis: int) -> bool:
    if start == "-1":
        return True
    size = op.size(0, axis)
    return start.isdecimal() and (int(start) >= _END or (size.isdecimal() and int(start) >= int(size) - 1))


@written("Pad")
def pad(op: Call) -> str:
    """A constant around the input, or its own entries; negative pads cut."""
    rank, mode = op.known_rank(0), op.attr("mode", "constant")
    stated = op.attr("pads")
    pads = list(map(str, stated)) if stated is not None else op.numbers(1)
    axes = whole_numbers(op, 3, "axes") or list(range(rank))
    at = {axis % rank: (pads[i], pads[i + len(axes)]) for i, axis in enumerate(axes)}
    ends = [entry for axis in reversed(range(rank)) for entry in at.get(axis, ("0", "0"))]
    while len(ends) > 2 and ends[-2:] == ["0", "0"]:
        ends = ends[:-2]
    filler = op.constant(2)
    if op.has(2) and filler is None:
        raise op.refuse("what it fills with is computed")
    value = op.attr("value", 0.0) if filler is None else filler.reshape(-1)[0]
    if mode == "constant":
        said = f", value={python_number(np.asarray(value))}" if value else ""
        return f"F.pad({op.tensor(0)}, ({listed(ends)}){said})"
    kind = {"reflect": "reflect", "edge": "replicate", "wrap": "circular"}[mode]
    return f'F.pad({op.tensor(0)}, ({listed(ends)}), mode="{kind}")'


@written("DepthToSpace")
def depth_to_space(op: Call) -> str:
    """Channels to blocks of pixels."""
    block, x = int(op.attr("blocksize")), op.tensor(0)
    if op.attr("mode", "DCR") == "CRD":
        return f"F.pixel_shuffle({x}, {block})"
    n, c, h, w = (op.size(0, axis) for axis in range(4))
    inner = f"{x}.reshape({n}, {block}, {block}, {c} // {block**2}, {h}, {w}).permute(0, 3, 4, 1, 5, 2)"
    return f"{inner}.reshape({n}, {c} // {block**2}, {h} * {block}, {w} * {block})"


@written("Trilu")
def trilu(op: Call) -> str:
    """The upper or lower triangle."""
    diagonal = op.numbers(1)[0] if op.has(1) else "0"
    return f"torch.{'triu' if op.attr('upper', 1) else 'tril'}({op.tensor(0)}, {diagonal})"


@written("Shape", "Size")
def shape(op: Call) -> str | Sizes:
    """Sizes of a tensor whose number of axes is unknown, or the number of entries."""
    if op.node.op_type == "Size":
        return Sizes((f"{op.tensor(0)}.numel()",), scalar=True)
    raise op.refuse("the number of axes of its input is unknown")
