"""Random graphs out of all the operators that have a rule and that ONNX Runtime can run, for tests/test_fuzz.py.

A graph grows from a pool of values: a recipe picks some, adds a node or a small pattern of nodes, and its results join
the pool. Every node is run in ONNX Runtime as it is added, at two sizes of the batch where that is dynamic: so shapes
are known, what differs between the runs is known to vary, and a node that does not fit is not added.

    @recipe("Softmax", "LogSoftmax")
    def softmax(net: Net) -> None:
        x = net.pick()
        net.node(net.among("Softmax", "LogSoftmax"), x, axis=net.static_axis(x))

All choices go through a `Choice`: drawn by hypothesis (`graphs()`, which shrinks) or taken from a seed
(`seeded_graph()`, for graphs of hundreds of nodes; with fewer steps a seed gives the beginning of the same graph).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from hypothesis import strategies as st

from tests.graph_net import OPSETS, RECIPES, Choice, Net, Seeded, Tensor
from tests.graph_recipes import conv, dense


class Drawn:
    """Choices that hypothesis draws, and shrinks towards `low`."""

    def __init__(self, draw: st.DrawFn) -> None:
        self._draw = draw

    def integer(self, low: int, high: int) -> int:
        return self._draw(st.integers(low, high)) if high > low else low


@dataclass(frozen=True)
class Graph:
    """A finished graph."""

    model: onnx.ModelProto
    dynamic: bool
    seed: int | None = None
    steps: int = 0

    @property
    def operators(self) -> set[str]:
        return {node.op_type for node in self.model.graph.node}

    def __repr__(self) -> str:
        source = "" if self.seed is None else f"seeded_graph({self.seed}, {self.steps})\n"
        return source + onnx.printer.to_text(self.model)


@st.composite
def graphs(draw: st.DrawFn, min_steps: int = 4, max_steps: int = 20) -> Graph:
    """Graphs of so many recipes, of one to a dozen nodes each."""
    choice = Drawn(draw)
    steps = choice.integer(min_steps, max_steps)
    return _graph(build(choice, steps, choice.integer(0, 2**16)), steps=steps)


def seeded_graph(seed: int, steps: int) -> Graph:
    """The same for a number; graphs of more steps begin as those of fewer."""
    return _graph(build(Seeded(seed), steps, seed), seed, steps)


def _graph(model: onnx.ModelProto, seed: int | None = None, steps: int = 0) -> Graph:
    dynamic = any(size.dim_param for value in model.graph.input for size in value.type.tensor_type.shape.dim)
    return Graph(model, dynamic, seed, steps)


def full_graph(seed: int) -> Graph:
    """A graph that tries every recipe, some several times."""
    net = varied_net(seed)
    for chosen in net.shuffled(RECIPES):
        with net.attempt():
            chosen(net)
    _finish(net)
    return _graph(net.proto(), seed)


def varied_net(seed: int) -> Net:
    """The beginning of a graph of any opset: rows, sequences and images."""
    net = Net(Seeded(seed), OPSETS[seed % len(OPSETS)], dynamic=seed % 3 == 2)
    net.rng = np.random.default_rng(seed)
    for batch, *sizes in ((6, 8), (2, 3, 8), (4, 4), (2, 4, 6, 6), (2, 1, 8)):
        shape = [batch, *sizes] if not net.dynamic else ["N", "S", 8] if len(sizes) == 2 else ["N", *sizes]
        net.node("Neg", net.input(shape))
    return net


def build(choice: Choice, steps: int, seed: int = 0) -> onnx.ModelProto:
    """Grow a graph and give it outputs."""
    net = Net(choice, OPSETS[choice.integer(0, len(OPSETS) - 1)], dynamic=choice.integer(0, 2) == 2)
    net.rng = np.random.default_rng(seed)
    annotated = net.coin(4)
    _start(net)
    for _ in range(steps):
        chosen = net.among(*RECIPES)
        with net.attempt():
            chosen(net)
    _finish(net)
    return net.proto(annotated)


def _start(net: Net) -> None:
    """One or two inputs: an image, a sequence or rows; a first layer makes units that are not the interface's."""
    batch: int | str = "N" if net.dynamic else net.among(2, 3)
    for _ in range(net.integer(1, 2)):
        rank = net.integer(1, 4)
        shape = [batch, *[net.size() for _ in range(rank - 1)]]
        if net.dynamic and rank == 3 and net.coin():
            shape[1] = "S"
        net.input(shape)
        for _ in range(net.integer(1, 2)):
            with net.attempt():
                (conv if rank > 2 and net.coin() else dense)(net)


def _finish(net: Net) -> None:
    """Up to four values that nothing reads become outputs, mostly behind a last layer; what is left over is dead."""
    if not net.nodes:
        net.node("Relu", net.pool[0])
    made = {name for node in net.nodes for name in node.output}
    unread = [value for value in reversed(net.pool) if value.name not in net.used and value.name in made]
    for value in unread[: net.integer(1, 4)]:
        last = value
        with net.attempt():
            last = net.among(_flatten_and_project, _project, _project, _flatten_and_project, _as_it_is)(net, value)
        net.outputs.append(last)
    net.outputs = list({value.name: value for value in net.outputs if value.name in _names(net)}.values())
    if not net.outputs:
        net.outputs.append(net.node("Identity", net.pool[-1]))


def _names(net: Net) -> set[str]:
    return {name for node in net.nodes for name in node.output}


def _as_it_is(net: Net, x: Tensor) -> Tensor:
    return x


def _project(net: Net, x: Tensor) -> Tensor:
    """Sum over one axis with a weight."""
    axis = net.static_axis(x, lambda size: size > 1)
    if axis < x.rank - 1:
        x = net.node("Transpose", x, perm=[*(i for i in range(x.rank) if i != axis), axis])
    return net.node("MatMul", x, net.weight(x.shape[-1], 3, fan_in=x.shape[-1]))


def _flatten_and_project(net: Net, x: Tensor) -> Tensor:
    rows = net.node("Flatten", x, axis=min(1, x.rank))
    return net.node("Gemm", rows, net.weight(rows.shape[1], 3, fan_in=rows.shape[1]), net.vector(3))
