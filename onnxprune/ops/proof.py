"""How operators treat numbers that hold at every size, for analysis.certainty: small facts, one table each."""

from __future__ import annotations

from enum import Enum, auto

import onnx_ir as ir

from onnxprune.ops.base import key_of


class Proof(Enum):
    """The effect of an operator on sizes: which of its results are sums of products of them, like its inputs."""

    SUM = auto()  # every entry, where those that it adds, subtracts or multiplies are
    REDUCED = auto()  # the same over all entries
    MOVED = auto()  # the entries of its input, elsewhere
    RETYPED = auto()  # where the type changes nothing
    WHOLE = auto()  # where there is nothing to round
    QUOTIENT = auto()  # where it comes out even
    ENTRYWISE = auto()  # where the entries that it reads do not vary
    OTHER = auto()  # where nothing that it reads varies


_TABLE = {
    Proof.SUM: ("Add", "Sub", "Mul", "Sum", "Neg"),
    Proof.REDUCED: ("ReduceSum", "ReduceProd"),
    Proof.MOVED: (
        *("Concat", "Expand", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose"),
        "Unsqueeze",
    ),
    Proof.RETYPED: ("Cast",),
    Proof.WHOLE: ("Ceil", "Floor", "Round"),
    Proof.QUOTIENT: ("Div",),
    Proof.ENTRYWISE: (
        *("Abs", "And", "BitShift", "Clip", "Max", "Min", "Mod", "Not", "Or", "Pow", "Relu", "Sign", "Sqrt", "Xor"),
        *("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Where"),
    ),
}
_PROOFS = {("", name): proof for proof, names in _TABLE.items() for name in names}

# Entry i of this input is the size of axis i, counted from the last.
_TARGETS = {"Reshape": 1, "Expand": 1, "Tile": 1, "ConstantOfShape": 0}


def proof_of(node: ir.Node) -> Proof:
    """How its results follow from sizes."""
    return _PROOFS.get(key_of(node), Proof.OTHER)


def moved_inputs(node: ir.Node) -> int:
    """How many inputs of an operator that moves entries hold them; the others say where to."""
    return len(node.inputs) if node.op_type == "Concat" else 1


def moved_slots(node: ir.Node) -> range:
    """Slots of the inputs whose entries, and nothing else, are those of the output; none where it computes."""
    moves = proof_of(node) in (Proof.MOVED, Proof.RETYPED) or key_of(node) == ("", "Tile")
    return range(moved_inputs(node) if moves else 0)


def target_slot(node: ir.Node) -> int | None:
    """The input that holds the sizes of the output's axes one by one; None where there is none."""
    return _TARGETS.get(node.op_type)


def infers_size(node: ir.Node, entry: int) -> bool:
    """Does the entry of a target say that the axis takes what the others leave?"""
    return node.op_type == "Reshape" and entry == -1


def takes_part(node: ir.Node, slot: int) -> bool:
    """Has the content of this input a part in how large the output is?"""
    return slot > 0 or node.op_type in ("Range", "ConstantOfShape")


def copies_other_axes(node: ir.Node) -> bool:
    """Does it leave the axes alone that its numbers do not speak of, so that one of the same size is one of these?"""
    return node.op_type not in ("Slice", "Range", "OneHot")
