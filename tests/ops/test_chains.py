"""Chains of operators that move, cut and join axes: op(slice(x)) == slice(op(x)) for whatever a random one leaves free.

The samples look at one operator on fresh dimensions; here each operator meets what the ones before it have made.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from onnxprune.analysis.canonicalize import canonicalize
from onnxprune.dims import Atom, Mask, atoms, keep_mask, kept_size
from tests.rule_oracle import FAR, Array, analyze_without_interface, ints, removed, run_in_ort, some_kept

Shape = list[int]


@dataclass
class Chain:
    """A graph under construction: the shape of every value, and which have a reader."""

    rng: random.Random
    inputs: dict[str, Shape]
    shapes: dict[str, Shape] = field(default_factory=dict)
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.shapes.update(self.inputs)

    def add(self, op_type: str, inputs: list[str | Array], *shapes: Shape, **attributes: Any) -> str:
        """Append a node whose outputs have the given shapes; arrays become constants."""
        names = [each if isinstance(each, str) else self._constant(each) for each in inputs]
        outputs = [f"t{len(self.nodes)}.{index}" for index in range(len(shapes))]
        self.nodes.append(onnx.helper.make_node(op_type, names, outputs, **attributes))
        self.shapes.update(zip(outputs, shapes, strict=True))
        return outputs[0]

    def _constant(self, array: Array) -> str:
        self.constants.append(onnx.numpy_helper.from_array(array, f"c{len(self.constants)}"))
        return self.constants[-1].name

    def outputs(self) -> list[str]:
        """What no operator reads."""
        read = {name for node in self.nodes for name in node.input}
        return [name for name in self.shapes if name not in read and name not in self.inputs]

    def proto(self) -> onnx.ModelProto:
        def infos(names: list[str]) -> list[onnx.ValueInfoProto]:
            return [onnx.helper.make_tensor_value_info(name, 1, self.shapes[name]) for name in names]

        graph = onnx.helper.make_graph(
            self.nodes, "chain", infos(list(self.inputs)), infos(self.outputs()), self.constants
        )
        return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=9)


# -- the moves: each appends one or a few operators to a value, or does nothing where it does not apply

Move = Callable[[Chain, str, Shape], object]
MOVES: list[Move] = []


def move(function: Move) -> Move:
    MOVES.append(function)
    return function


@move
def reshape(chain: Chain, x: str, shape: Shape) -> None:
    rng = chain.rng
    kept = rng.randint(0, len(shape) - 1)
    new, rest = shape[:kept], prod(shape[kept:])
    for _ in range(rng.randint(0, 3 - min(kept, 2))):
        new.append(rng.choice([size for size in range(1, rest + 1) if rest % size == 0]))
        rest //= new[-1]
    new.append(rest)
    target = [0 if size == old and rng.random() < 0.4 else size for size, old in zip(new, shape, strict=False)]
    target += new[len(target) :]
    if rng.random() < 0.4:
        target[rng.randrange(len(target))] = -1
    chain.add("Reshape", [x, ints(*target)], new)


@move
def transpose(chain: Chain, x: str, shape: Shape) -> None:
    perm = chain.rng.sample(range(len(shape)), len(shape))
    chain.add("Transpose", [x], [shape[axis] for axis in perm], perm=perm)


@move
def cut_out(chain: Chain, x: str, shape: Shape) -> None:
    rng, axis = chain.rng, chain.rng.randrange(len(shape))
    start = rng.randrange(shape[axis])
    end, step = rng.choice([(rng.randint(start + 1, shape[axis]), 1), (FAR, 1), (FAR, 2), (FAR, 3)])
    size = len(range(start, min(end, shape[axis]), step))
    start -= rng.choice([0, shape[axis]])
    axes = ints(axis - rng.choice([0, len(shape)]))
    chain.add("Slice", [x, ints(start), ints(end), axes, ints(step)], _with(shape, axis, size))


@move
def every_other(chain: Chain, x: str, shape: Shape) -> None:
    axis = chain.rng.randrange(len(shape))
    if shape[axis] % 2 == 0:
        first = chain.rng.choice([0, 1, -shape[axis], 1 - shape[axis]])
        size = shape[axis] // 2
        chain.add("Slice", [x, ints(first), ints(FAR), ints(axis), ints(2)], _with(shape, axis, size))


@move
def join(chain: Chain, x: str, shape: Shape) -> None:
    axis = chain.rng.randrange(len(shape))
    fitting = [name for name, other in chain.shapes.items() if _with(other, axis, 0) == _with(shape, axis, 0)]
    pair = chain.rng.sample([x, chain.rng.choice(fitting)], 2)
    chain.add("Concat", list(pair), _with(shape, axis, sum(chain.shapes[name][axis] for name in pair)), axis=axis)


@move
def split(chain: Chain, x: str, shape: Shape) -> None:
    axis = chain.rng.randrange(len(shape))
    if shape[axis] > 1:
        first = chain.rng.randint(1, shape[axis] - 1)
        sizes = [first, shape[axis] - first]
        given = [] if sizes[0] == sizes[1] else [ints(*sizes)]
        chain.add("Split", [x, *given], *[_with(shape, axis, size) for size in sizes], axis=axis)


@move
def pad(chain: Chain, x: str, shape: Shape) -> None:
    axis, pads = chain.rng.randrange(len(shape)), [0] * 2 * len(shape)
    pads[axis], pads[axis + len(shape)] = before, after = chain.rng.randint(0, 3), chain.rng.randint(0, 3)
    chain.add("Pad", [x, ints(*pads)], _with(shape, axis, before + shape[axis] + after))


@move
def pick(chain: Chain, x: str, shape: Shape) -> None:
    rng, axis = chain.rng, chain.rng.randrange(len(shape))
    turn = rng.randrange(shape[axis])
    listed = [rng.randrange(-shape[axis], shape[axis]) for _ in range(rng.randint(1, 4))]
    positions = rng.choice([listed, [*range(turn, shape[axis]), *range(turn)]])
    if len(shape) > 1 and rng.random() < 0.3:
        chain.add("Gather", [x, np.array(listed[0])], shape[:axis] + shape[axis + 1 :], axis=axis)
    else:
        chain.add("Gather", [x, ints(*positions)], _with(shape, axis, len(positions)), axis=axis)


@move
def repeat(chain: Chain, x: str, shape: Shape) -> None:
    axis = chain.rng.randrange(len(shape))
    if shape[axis] == 1:
        chain.add("Expand", [x, ints(*_with(shape, axis, 3))], _with(shape, axis, 3))
    else:
        chain.add("Tile", [x, ints(*_with([1] * len(shape), axis, 2))], _with(shape, axis, 2 * shape[axis]))


@move
def insert_or_drop_ones(chain: Chain, x: str, shape: Shape) -> None:
    axis = chain.rng.randint(0, len(shape))
    if 1 in shape and max(shape) > 1:
        chain.add("Squeeze", [x], [size for size in shape if size > 1])
    elif len(shape) < 4:
        chain.add("Unsqueeze", [x, ints(axis)], [*shape[:axis], 1, *shape[axis:]])


@move
def flatten(chain: Chain, x: str, shape: Shape) -> None:
    axis = chain.rng.randint(0, len(shape))
    chain.add("Flatten", [x], [prod(shape[:axis]), prod(shape[axis:])], axis=axis)


@move
def combine(chain: Chain, x: str, shape: Shape) -> None:
    alike = [name for name, other in chain.shapes.items() if other == shape]
    chain.add(chain.rng.choice(["Add", "Mul"]), [x, chain.rng.choice(alike)], shape)


@move
def add_weight(chain: Chain, x: str, shape: Shape) -> None:
    rank = chain.rng.randint(1, len(shape))
    sizes = [size if chain.rng.random() < 0.7 else 1 for size in shape[-rank:]]
    chain.add("Add", [x, np.linspace(-1, 1, prod(sizes), dtype=np.float32).reshape(sizes)], shape)


@move
def shuffle_channels(chain: Chain, x: str, shape: Shape) -> None:
    divisors = [size for size in range(2, shape[-1]) if shape[-1] % size == 0]
    if divisors:
        outer = chain.rng.choice(divisors)
        inner, rank = shape[-1] // outer, len(shape)
        parts = chain.add("Reshape", [x, ints(*shape[:-1], outer, inner)], [*shape[:-1], outer, inner])
        perm = [*range(rank - 1), rank, rank - 1]
        turned = chain.add("Transpose", [parts], [*shape[:-1], inner, outer], perm=perm)
        chain.add("Reshape", [turned, ints(*shape[:-1], -1)], shape)


@move
def rotate_halves(chain: Chain, x: str, shape: Shape) -> None:
    if shape[-1] % 2 == 0:
        half, axes = _with(shape, -1, shape[-1] // 2), ints(-1)
        first = chain.add("Slice", [x, ints(0), ints(half[-1]), axes], half)
        second = chain.add("Slice", [x, ints(half[-1]), ints(FAR), axes], half)
        chain.add("Add", [x, chain.add("Concat", [second, first], shape, axis=-1)], shape)


def _with(shape: Shape, axis: int, size: int) -> Shape:
    new = list(shape)
    if axis < len(new):
        new[axis] = size
    return new


def random_chain(seed: int) -> Chain:
    rng = random.Random(seed)
    shape = [rng.choice([2, 3, 4, 5, 6, 8, 12]) for _ in range(rng.randint(2, 3))]
    chain = Chain(rng, {"x": shape, "other": list(shape)})
    while len(chain.nodes) < rng.randint(2, 8) or not chain.outputs():
        name = rng.choice(list(chain.shapes)[-4:])
        if prod(chain.shapes[name]) <= 3000:
            rng.choice(MOVES)(chain, name, list(chain.shapes[name]))
    return chain


@settings(max_examples=150, deadline=None, derandomize=True, database=None, phases=[Phase.generate])
@given(st.integers(0, 2**32 - 1))
def test_units_leave_a_chain_as_they_leave_each_of_its_operators(seed: int) -> None:
    chain, rng = random_chain(seed), np.random.default_rng(seed)
    feed = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in chain.inputs.items()}
    full = dict(zip(chain.outputs(), run_in_ort(chain.proto(), feed), strict=True))
    count = len(_Removal(chain).free)
    for chosen in [*([index] for index in range(count)), list(range(count))]:
        _Removal(chain).check(chosen, feed, full, rng)


class _Removal:
    """A fresh analysis of a chain, and one removal from it."""

    def __init__(self, chain: Chain) -> None:
        self.model = ir.from_proto(chain.proto())
        _, shapes = canonicalize(self.model)
        self.analysis = analyze_without_interface(self.model, shapes)
        self.free = list(
            dict.fromkeys(
                atom
                for name in [*chain.inputs, *chain.outputs(), *self.model.graph.initializers]
                for dim in self.analysis.dims[name]
                for atom in atoms(dim)
                if atom.reason is None and atom.size > 1
            )
        )

    def check(
        self, chosen: list[int], feed: dict[str, Array], full: dict[str, Array], rng: np.random.Generator
    ) -> None:
        keep = {self.free[index]: some_kept(self.free[index].size, rng) for index in chosen}
        sliced = {name: self._slice(name, array, keep) for name, array in feed.items()}
        expected = {name: self._slice(name, array, keep) for name, array in full.items()}
        results = run_in_ort(removed(self.analysis, self.free, keep), sliced)
        for result, (name, wanted) in zip(results, expected.items(), strict=True):
            assert result.shape == wanted.shape == tuple(self._sizes(name, keep))
            np.testing.assert_allclose(result, wanted, rtol=1e-5, err_msg=f"{name}, {keep}")

    def _slice(self, name: str, array: Array, keep: dict[Atom, Mask]) -> Array:
        for axis, dim in enumerate(self.analysis.dims[name]):
            array = np.compress(keep_mask(dim, keep), array, axis=axis)
        return array

    def _sizes(self, name: str, keep: dict[Atom, Mask]) -> list[int]:
        kept = {atom: int(mask.sum()) for atom, mask in keep.items()}
        return [kept_size(dim, kept) for dim in self.analysis.dims[name]]
