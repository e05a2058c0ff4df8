"""A graph that grows: a pool of values, and nodes that are run as they are added; see tests/graph_strategies.py."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

Array = npt.NDArray[Any]
T = TypeVar("T")

# The sizes of the dynamic axes, batch and sequence, in each of the trial runs.
RUNS = ({"N": 7, "S": 9}, {"N": 5, "S": 4}, {"N": 1, "S": 2})
OPSETS = (17, 9, 11, 13, 18, 21, 23, 24)
PRIMES = (3, 2, 5, 7, 11)
COMPOSITES = (4, 6, 8, 12)
MAX_ENTRIES = 6_000
MAX_RANK = 6
MICROSOFT = "com.microsoft"
LOCAL = "local.functions"
INT64_MAX = 2**63 - 1


class UnfitError(Exception):
    """A recipe that does not apply to what it picked; what it added so far is taken back."""


class Choice(Protocol):
    """Where the choices come from."""

    def integer(self, low: int, high: int) -> int:
        """A number from `low` to `high`, both included."""


class Seeded:
    """Choices from a seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def integer(self, low: int, high: int) -> int:
        return self._random.randint(low, high)


@dataclass(frozen=True, eq=False)
class Tensor:
    """A value of the graph: its contents in each of the trial runs (one, or several with a dynamic batch)."""

    name: str
    arrays: tuple[Array, ...]
    constant: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.arrays[0].shape)

    @property
    def rank(self) -> int:
        return int(self.arrays[0].ndim)

    @property
    def varies(self) -> tuple[bool, ...]:
        """Per axis: does its size differ between the runs?"""
        return tuple(len(set(sizes)) > 1 for sizes in zip(*(array.shape for array in self.arrays), strict=True))

    @property
    def static(self) -> bool:
        return not any(self.varies)


Recipe = Callable[["Net"], None]
RECIPES: list[Recipe] = []
OPERATORS: dict[Recipe, set[str]] = {}


def recipe(*operators: str, weight: int = 1) -> Callable[[Recipe], Recipe]:
    """Decorator: the function adds one of `operators` to a graph; it is chosen `weight` times as often as others."""

    def add(function: Recipe) -> Recipe:
        RECIPES.extend([function] * weight)
        OPERATORS[function] = set(operators)
        return function

    return add


@dataclass
class Net:
    """A graph that grows.

    Attributes:
        choice: where the choices come from.
        opset: of the default domain.
        dynamic: is the batch a symbolic axis, and here and there a sequence?
        pool: the floating-point values that recipes may pick.
    """

    choice: Choice
    opset: int
    dynamic: bool
    pool: list[Tensor] = field(default_factory=list)
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    inputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)
    constants: dict[str, Tensor] = field(default_factory=dict)
    functions: dict[str, onnx.FunctionProto] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    count: int = 0

    @property
    def runs(self) -> tuple[dict[str, int], ...]:
        """The sizes of dynamic axes in each of the trial runs."""
        return RUNS if self.dynamic else RUNS[:1]

    # -- choices

    def integer(self, low: int, high: int) -> int:
        return self.choice.integer(low, high)

    def coin(self, one_in: int = 2) -> bool:
        return self.integer(0, one_in - 1) == one_in - 1

    def among(self, *options: T) -> T:
        if not options:
            raise UnfitError
        return options[self.integer(0, len(options) - 1)]

    def subset(self, options: Sequence[T]) -> list[T]:
        """At least one of them."""
        sure = self.among(*options)
        return [option for option in options if option is sure or self.coin()]

    def shuffled(self, options: Sequence[T]) -> list[T]:
        left, taken = list(options), []
        while left:
            taken.append(left.pop(self.integer(0, len(left) - 1)))
        return taken

    def size(self) -> int:
        """Of a new dimension: mostly a prime, sometimes a composite, sometimes what another axis already has."""
        kind = self.integer(0, 5)
        if kind < 3:
            return self.among(*PRIMES)
        sizes = sorted({size for value in self.pool for size in value.shape if 1 < size < 16}) if kind == 5 else ()
        return self.among(*(sizes or COMPOSITES))

    def pick(self, fits: Callable[[Tensor], bool] = lambda _: True, at_least: int = 1) -> Tensor:
        """A value of the pool, more often a recent one, of at least so many axes."""
        found = [value for value in reversed(self.pool) if value.rank >= at_least and fits(value)]
        return self.among(*(found if self.coin(4) else found[:4]))

    def static_axis(self, x: Tensor, fits: Callable[[int], bool] = lambda _: True) -> int:
        """An axis whose size does not vary, counted from the front."""
        return self.among(*[axis for axis in reversed(range(x.rank)) if not x.varies[axis] and fits(x.shape[axis])])

    def either_sign(self, axis: int, rank: int) -> int:
        return axis - rank if self.coin(3) else axis

    # -- values

    def name(self, stem: str) -> str:
        self.count += 1
        return f"{stem}{self.count}"

    def input(self, shape: Sequence[int | str], dtype: int = onnx.TensorProto.FLOAT) -> Tensor:
        """A graph input; an axis given by name is dynamic."""
        name = self.name("x")
        self.inputs.append(onnx.helper.make_tensor_value_info(name, dtype, list(shape)))
        sizes = [[run[size] if isinstance(size, str) else size for size in shape] for run in self.runs]
        if dtype == onnx.TensorProto.FLOAT:
            value = Tensor(name, tuple(np.asarray(self.rng.standard_normal(s), np.float32) for s in sizes))
            self.pool.append(value)
            return value
        return Tensor(name, tuple(self.rng.integers(0, 2, s) for s in sizes))

    def constant(self, array: Array, stem: str = "c", as_node: bool = False) -> Tensor:
        """An initializer, or a Constant node."""
        value = Tensor(self.name(stem), (array,) * len(self.runs), constant=True)
        if as_node:
            tensor = onnx.numpy_helper.from_array(array, value.name)
            self.nodes.append(onnx.helper.make_node("Constant", [], [value.name], name=value.name, value=tensor))
        else:
            self.constants[value.name] = value
        return value

    def ints(self, values: Sequence[int], dtype: Any = np.int64) -> Tensor:
        return self.constant(np.array(values, dtype=dtype), "i", as_node=self.coin(4))

    def scalar(self, value: float) -> Tensor:
        return self.constant(np.array(value, np.float32), "s", as_node=self.coin(4))

    def weight(self, *shape: int, fan_in: int = 1) -> Tensor:
        """Normal numbers; sometimes another reader of a weight that is there already."""
        same = [value for name, value in self.constants.items() if name[0] == "w" and value.shape == shape]
        if same and self.coin(6):
            return self.among(*same)
        return self.constant(np.asarray(self.rng.standard_normal(shape) / fan_in**0.5, np.float32), "w")

    def vector(self, size: int, kind: str = "normal") -> Tensor:
        """A bias or scale of small numbers, or, as exporters have them, one filler for all layers of a size."""
        if self.coin(3):
            number = 0.0 if kind == "normal" else 1.0
            name = f"fill{number:g}_{size}"
            if name not in self.constants:
                array = np.full(size, number, np.float32)
                self.constants[name] = Tensor(name, (array,) * len(self.runs), constant=True)
            return self.constants[name]
        if kind == "normal":
            return self.weight(size)
        return self.constant(np.asarray(self.rng.random(size) + 0.5, np.float32), "p")

    # -- nodes

    def node(self, op_type: str, *inputs: Tensor | None, pooled: bool = True, **attributes: Any) -> Tensor:
        """Add a node with one output; it joins the pool if it is floating point and `pooled`."""
        return self.nodes_of(op_type, *inputs, count=1, pooled=pooled, **attributes)[0]

    def nodes_of(
        self,
        op_type: str,
        *inputs: Tensor | None,
        count: int,
        pooled: bool = True,
        domain: str = "",
        skip: Sequence[int] = (),
        **attributes: Any,
    ) -> list[Tensor]:
        """Add a node with `count` outputs, of which those at `skip` are left out. Raises UnfitError."""
        names = ["" if i in skip else self.name("v") for i in range(count)]
        node = onnx.helper.make_node(
            op_type, [x.name if x else "" for x in inputs], names, name=self.name(op_type), domain=domain, **attributes
        )
        given = {x.name: x for x in inputs if x is not None}
        runs = self._run(node, given)
        self.nodes.append(node)
        self.used.update(given)
        made = [Tensor(name, arrays) for name, arrays in zip(filter(None, names), zip(*runs, strict=True), strict=True)]
        for value in made:
            joins = pooled and value.arrays[0].dtype == np.float32
            self._check(value, limit=200.0 if joins else np.inf)
            if joins:
                self.pool.append(value)
        return made

    def _check(self, value: Tensor, limit: float) -> None:
        for array in value.arrays:
            if not 0 < array.size <= MAX_ENTRIES or array.ndim > MAX_RANK or array.ndim != value.rank:
                raise UnfitError
            if array.dtype == np.float32 and not (np.isfinite(array).all() and np.abs(array).max() < limit):
                raise UnfitError

    def _run(self, node: onnx.NodeProto, given: dict[str, Tensor]) -> list[list[Array]]:
        """The outputs in each of the trial runs."""
        captured = {name: self._find(name) for graph in bodies(node) for inner in graph.node for name in inner.input}
        given = {**given, **{name: value for name, value in captured.items() if value is not None}}
        infos = [info(value.name, value.arrays[0].dtype, _sizes(value)) for value in given.values()]
        outputs = [onnx.helper.make_empty_tensor_value_info(name) for name in node.output if name]
        graph = onnx.helper.make_graph([node], "node", infos, outputs)
        try:
            session = _session(self._model(graph).SerializeToString())
            return [
                session.run(None, {name: value.arrays[turn] for name, value in given.items()})
                for turn in range(len(self.runs))
            ]
        except Exception as error:  # ONNX Runtime has no common base for what it raises
            raise UnfitError(str(error)) from None

    def _find(self, name: str) -> Tensor | None:
        return next((value for value in (*self.pool, *self.constants.values()) if value.name == name), None)

    def _model(self, graph: onnx.GraphProto) -> onnx.ModelProto:
        imports = {"": self.opset, MICROSOFT: 1, **({LOCAL: 1} if self.functions else {})}
        return onnx.helper.make_model(
            graph,
            ir_version=11 if self.opset > 21 else 10 if self.opset > 20 else 8,
            opset_imports=[onnx.helper.make_opsetid(domain, version) for domain, version in imports.items()],
            functions=list(self.functions.values()),
        )

    def with_ints(self, op_type: str, x: Tensor, name: str, values: Sequence[int], since: int, **more: Any) -> Tensor:
        """A node whose list of numbers is its second input since an opset, and was an attribute before."""
        if self.opset >= since:
            return self.node(op_type, x, self.ints(values), **more)
        return self.node(op_type, x, **{name: list(values)}, **more)

    @contextlib.contextmanager
    def attempt(self) -> Iterator[None]:
        """Take back what the block added if it does not fit."""
        before = len(self.nodes), len(self.pool), set(self.constants), set(self.used), set(self.functions)
        try:
            yield
        except UnfitError:
            del self.nodes[before[0] :], self.pool[before[1] :]
            self.constants = {name: value for name, value in self.constants.items() if name in before[2]}
            self.used = before[3]
            self.functions = {name: value for name, value in self.functions.items() if name in before[4]}

    def proto(self, annotated: bool = False) -> onnx.ModelProto:
        """The model, with the shapes of inner values written beside them if `annotated`."""
        outputs = [info(value.name, value.arrays[0].dtype, _sizes(value)) for value in self.outputs]
        read = {name for node in self.nodes for name in node.input}
        read.update(name for node in self.nodes for body in bodies(node) for inner in body.node for name in inner.input)
        constants = [
            onnx.numpy_helper.from_array(value.arrays[0], name)
            for name, value in self.constants.items()
            if name in read
        ]
        model = self._model(onnx.helper.make_graph(self.nodes, "fuzz", self.inputs, outputs, constants))
        return onnx.shape_inference.infer_shapes(model) if annotated else model


def bodies(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    return [attribute.g for attribute in node.attribute if attribute.type == onnx.AttributeProto.GRAPH]


def info(name: str, dtype: Any, shape: Sequence[int | str | None]) -> onnx.ValueInfoProto:
    return onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), list(shape))


def _sizes(value: Tensor) -> list[int | str | None]:
    return [None if varies else size for size, varies in zip(value.shape, value.varies, strict=True)]


def _session(model: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
