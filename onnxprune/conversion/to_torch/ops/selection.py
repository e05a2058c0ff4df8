"""Entries picked or placed by index, and tensors made of nothing."""

from __future__ import annotations

from onnxprune.conversion.to_torch.base import DTYPES, Call, listed, python_number, written

_MOST_LISTED = 16


@written("Gather")
def gather(op: Call) -> str:
    """An embedding where rows of a stored table are looked up, else an index."""
    table, index = op.constant(0), op.constant(1)
    axis = op.axis(0)
    if table is not None and table.ndim == 2 and axis == 0 and op.is_float(0) and index is None and not op.sizes(1):
        embedding = op.module("Embedding", listed(table.shape), {"weight": table})
        # Positions that are computed may be negative, and count from the end: an embedding refuses those.
        return f"{embedding}({op.tensor(1)})" if op.is_input(1) else f"{embedding}.weight[{op.tensor(1)}]"
    before, numbers = ":, " * axis, op.sizes(1)
    if numbers is not None and numbers.scalar:
        return f"{op.tensor(0)}[{before}{numbers.entries[0]}]"
    if index is not None and index.ndim == 1 and index.size <= _MOST_LISTED:
        return f"{op.tensor(0)}[{before}[{listed(index.tolist())}]]"
    return f"{op.tensor(0)}[{before}{op.tensor(1)}]"


@written("GatherElements")
def gather_elements(op: Call) -> str:
    """An entry along an axis for every position."""
    return f"torch.gather({op.tensor(0)}, {op.axis(0)}, {op.tensor(1)})"


@written("GatherND")
def gather_nd(op: Call) -> str:
    """Slices by tuples of indices."""
    if op.attr("batch_dims", 0):
        raise op.refuse("it picks sample by sample")
    return f"{op.tensor(0)}[{op.tensor(1)}.unbind(-1)]"


@written("ScatterND")
def scatter_nd(op: Call) -> str:
    """Slices put in by tuples of indices."""
    if op.attr("reduction", "none") not in ("none", "add"):
        raise op.refuse("it combines in a way that torch has no function for")
    added = ", accumulate=True" if op.attr("reduction", "none") == "add" else ""
    return f"{op.tensor(0)}.index_put({op.tensor(1)}.unbind(-1), {op.tensor(2)}{added})"


@written("ScatterElements", "Scatter")
def scatter_elements(op: Call) -> str:
    """Entries put in along an axis."""
    kinds = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}
    reduction = op.attr("reduction", "none")
    arguments = f"{op.axis(0)}, {op.tensor(1)}, {op.tensor(2)}"
    if reduction == "none":
        return f"{op.tensor(0)}.scatter({arguments})"
    return f'{op.tensor(0)}.scatter_reduce({arguments}, "{kinds[reduction]}")'


@written("NonZero")
def non_zero(op: Call) -> str:
    """The positions of what is not zero, one per column."""
    return f"torch.nonzero({op.tensor(0)}).T"


@written("OneHot")
def one_hot(op: Call) -> str:
    """values[1] at the index along a new last axis."""
    rank, values = op.known_rank(0), op.constant(2)
    if values is None or op.attr("axis", -1) not in (-1, rank):
        raise op.refuse("its values are computed, or the new axis is not the last")
    index, off, on = op.tensor(0), *(python_number(each) for each in values)
    dtype = DTYPES[op.dtype(2)]  # type: ignore[index]
    positions = f"torch.arange({op.numbers(1)[0]}, device={index}.device)"
    picked = f"torch.where({index}.unsqueeze(-1) == {positions}, {on}, {off})"
    return f"{picked}.to({dtype})"


@written("TopK")
def top_k(op: Call) -> list[str]:
    """The largest or smallest entries, in order."""
    count = str(op.attr("k")) if op.attr("k") is not None else op.numbers(1)[0]
    largest = "" if op.attr("largest", 1) else ", largest=False"
    return [f"torch.topk({op.tensor(0)}, {count}, {op.attr('axis', -1)}{largest})"]


@written("ArgMax", "ArgMin")
def arg_extreme(op: Call) -> str:
    """The first index of the largest or smallest entry."""
    if op.attr("select_last_index", 0):
        raise op.refuse("it takes the last of equal entries")
    keep = ", keepdim=True" if op.attr("keepdims", 1) else ""
    return f"torch.{op.node.op_type.lower()}({op.tensor(0)}, {op.attr('axis', 0)}{keep})"


@written("ConstantOfShape")
def constant_of_shape(op: Call) -> str:
    """A shape filled with one value."""
    value = op.attr("value")
    filler = "0.0" if value is None else python_number(value.reshape(-1)[0])
    dtype = op.writer.dtype(op.node.outputs[0])
    said = f"dtype={DTYPES.get(dtype, 'torch.float32') if dtype else 'torch.float32'}, device={op.writer.device()}"
    entries = op.numbers(0)
    size = f"({listed(entries)}{',' if len(entries) == 1 else ''})"
    return f"torch.full({size}, {filler}, {said})"


@written("Range")
def arange(op: Call) -> str:
    """Numbers from start up to limit, which is not reached."""
    bounds = []
    for slot in range(3):
        known, array = op.sizes(slot), op.constant(slot)
        if known is not None:
            bounds.append(known.entries[0])
        else:
            bounds.append(python_number(array) if array is not None else f"{op.tensor(slot)}.item()")
    start, limit, step = bounds
    said = listed([limit] if start == "0" and step == "1" else [start, limit] if step == "1" else bounds)
    dtype = DTYPES.get(op.dtype(0), "torch.int64")  # type: ignore[arg-type]
    return f"torch.arange({said}, dtype={dtype}, device={op.writer.device()})"


@written("Einsum")
def einsum(op: Call) -> str:
    """Einstein's sum."""
    equation = op.attr("equation").replace(" ", "")
    return f"torch.einsum({equation!r}, {listed([op.tensor(slot) for slot in range(len(op.node.inputs))])})".replace(
        "'", '"'
    )
