"""Which axis of each input and output enumerates the samples of a batch: found by names and sizes, not by position.

Time-major sequences have it second (`[time, batch, features]`), and so have the states of recurrent layers
(`[layers, batch, hidden]`). A graph with `[nodes, features]` beside `[2, edges]` has no such axis.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

Size = int | str | None
Shape = Sequence[Size]
Axes = dict[str, int | None]

# What exporters call the axis, besides all that has "batch" in it.
_BATCH = {"b", "bs"}
# Names that exporters make up, another for every axis.
_MADE_UP = re.compile(r"unk__\d+")


def is_name(size: Size) -> bool:
    """A dynamic axis with a name, by which it has the size of others of that name."""
    return isinstance(size, str) and size not in ("", "?")


def batch_axes(inputs: Mapping[str, Shape], outputs: Mapping[str, Shape]) -> tuple[Axes, Axes]:
    """The axis of each input and of each output that enumerates samples; None for inputs that all samples share.

    In this order: a name with "batch" in it that all dynamic inputs have; the first axis, where that is the same in
    all inputs; another name that all of several dynamic inputs have, where it is first in one of them; the first axis,
    where that is dynamic in all inputs; an axis that has the same size in all inputs; the first axis of the one dynamic
    input, where the others have a size of 1; a name that several dynamic inputs have further in; where axes have no
    names, the first axis of some and the only dynamic one further in of the others; where each input has one axis of
    size 1, that. Otherwise no axis enumerates samples, and all that is fed at a time is one sample.

    An input without the name of the batch has it where its size is 1, since it could not grow; else all samples share
    it. Of outputs that do not say it is the first axis.

    Args:
        inputs: shapes by name; () for those without axes, or of unknown rank.
        outputs: likewise.
    """
    ranked = {name: shape for name, shape in inputs.items() if shape}
    first: tuple[Axes, Axes] = dict.fromkeys(inputs, 0), dict.fromkeys(outputs, 0)
    shapes = list(ranked.values())
    batch = _batch_name(shapes)
    if batch is not None:
        return (
            {**first[0], **{name: _axis_of(shape, batch) for name, shape in ranked.items()}},
            {name: list(shape).index(batch) if batch in shape else 0 for name, shape in outputs.items()},
        )
    if _first_axes_agree(shapes):
        return first
    axis = _common_axis(shapes)
    if axis is None:
        own = _axes_of_their_own(ranked)
        return {**first[0], **(own or dict.fromkeys(ranked))}, first[1]
    size = shapes[0][axis]
    return (
        {**first[0], **dict.fromkeys(ranked, axis)},
        {name: axis if list(shape[axis : axis + 1]) == [size] else 0 for name, shape in outputs.items()},
    )


def _batch_name(shapes: Sequence[Shape]) -> str | None:
    """The name that the batch has in all inputs with dynamic axes; None where it has none."""
    dynamic = [shape for shape in shapes if not all(isinstance(size, int) for size in shape)]
    names = [str(size) for size in dynamic[0] if is_name(size)] if dynamic else []
    names = [name for name in names if all(name in shape for shape in dynamic)]
    firsts = {shape[0] for shape in shapes}

    def nearest(candidates: Sequence[str]) -> str | None:
        """The one that comes first in the shapes."""
        return min(candidates, key=lambda name: sum(list(shape).index(name) for shape in dynamic), default=None)

    called = [name for name in names if "batch" in name.lower() or name.lower() in _BATCH]
    if called or len(firsts) <= 1:
        return nearest(called)
    leading = [name for name in names if name in firsts]
    if leading and len(dynamic) > 1:
        return nearest(leading)
    if _first_axes_agree(shapes) or _common_axis(shapes) is not None:
        return None
    if leading and all(_axis_of(shape, leading[0]) is not None for shape in shapes):
        return leading[0]
    return nearest([name for name in names if any(name in shape[:-1] for shape in dynamic) and len(dynamic) > 1])


def _first_axes_agree(shapes: Sequence[Shape]) -> bool:
    """They are the same, or all dynamic: names of their own say little, exporters give every input one."""
    firsts = {shape[0] for shape in shapes}
    return len(firsts) <= 1 or not any(isinstance(size, int) for size in firsts)


def _common_axis(shapes: Sequence[Shape]) -> int | None:
    """An axis, not the last one, that has the same size in all inputs; beside dynamic axes only 1 is one of a batch."""
    static = all(isinstance(size, int) for shape in shapes for size in shape)
    for axis in range(min(map(len, shapes)) - 1):
        sizes = {shape[axis] for shape in shapes}
        if sizes == {1} or (static and len(sizes) == 1):
            return axis
    return None


def _axes_of_their_own(shapes: Mapping[str, Shape]) -> Axes | None:
    """One axis of each input, that is open or of size 1; None where some input has none, or several."""
    without_names = {name: _unnamed_axis(shape) for name, shape in shapes.items()}
    dynamic = [name for name, shape in shapes.items() if not all(isinstance(size, int) for size in shape)]
    if dynamic and all(without_names[name] is not None for name in dynamic):
        return {name: without_names[name] if name in dynamic else _axis_of(shapes[name], "") for name in shapes}
    if all(list(shape).count(1) == 1 for shape in shapes.values()):
        return {name: list(shape).index(1) for name, shape in shapes.items()}
    return None


def _unnamed_axis(shape: Shape) -> int | None:
    """The first axis, or the only one further in but the last, that is dynamic and has no name that says anything."""
    found = [axis for axis, size in enumerate(shape[:-1] or shape) if _says_nothing(size)]
    return found[0] if found and (found[0] == 0 or len(found) == 1) else None


def _says_nothing(size: Size) -> bool:
    return not isinstance(size, int) and (not is_name(size) or _MADE_UP.fullmatch(str(size)) is not None)


def _axis_of(shape: Shape, batch: str) -> int | None:
    if batch in shape:
        return list(shape).index(batch)
    return next((axis for axis, size in enumerate(shape[:-1]) if size == 1), None)
