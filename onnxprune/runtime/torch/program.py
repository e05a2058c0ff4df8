"""A graph as a list of calls: each node's function, attributes and constants are looked up once."""

from __future__ import annotations

from collections import ChainMap, Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from copy import copy
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor

from onnxprune.errors import ModelError
from onnxprune.model.graph import reads
from onnxprune.runtime.torch import functions as torch_functions
from onnxprune.runtime.torch.ops import find_operator
from onnxprune.runtime.torch.ops.base import Settings, TorchNode, TorchOperator
from onnxprune.support.messages import one_line

Environment = dict[str, Any]  # values by key: tensors, lists of them for sequences, None for empty optionals

# What follows from constants alone is computed once and kept, unless it has more entries than this.
_MAX_FOLDED = 1 << 22


class Keys:
    """A key of its own for every value: its name, unless a value of another body took that before."""

    def __init__(self) -> None:
        self._of: dict[ir.Value, str] = {}
        self._taken: set[str] = set()

    def __getitem__(self, value: ir.Value | None) -> str:
        """The key of a value; "" for one that is left out."""
        if value is None or not value.name:
            return ""
        if value not in self._of:
            key = value.name
            while key in self._taken:
                key += "'"
            self._of[value] = key
            self._taken.add(key)
        return self._of[value]


@dataclass
class RunContext:
    """Everything that the programs of a graph and of its bodies share.

    Attributes:
        settings: precision and mode.
        functions: the model's own, by identifier.
        versions: of the operator sets, by domain.
        keys: of the values.
        constants: what is the same in every run; Program adds what follows from it.
        weights: parameters whose content operators may read as numbers (scales of a Resize) once and for all.
        attributes: what the nodes of a function's body refer to.
        missing: operators without an implementation, counted; shared with the bodies of functions.
    """

    settings: Settings
    functions: Mapping[ir.OperatorIdentifier, ir.Function]
    versions: Mapping[str, int]
    keys: Keys = field(default_factory=Keys)
    constants: dict[str, Any] = field(default_factory=dict)
    weights: dict[str, Tensor] = field(default_factory=dict)
    attributes: Mapping[str, ir.Attr] = field(default_factory=dict)
    missing: Counter[str] = field(default_factory=Counter)


@dataclass
class Instruction:
    """One node: what is called with which values, and which of them nobody reads afterwards."""

    entry: TorchOperator
    op: TorchNode
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    numbers: Mapping[int, Any]
    bodies: Mapping[str, Program]
    last: tuple[str, ...] = ()

    def run(self, env: Environment, device: torch.device | None) -> None:
        """Compute the outputs into `env`; inputs that lie apart are brought together on `device`."""
        arguments = [self._argument(index, name, env) for index, name in enumerate(self.inputs)]
        if device is not None:
            arguments = _together(arguments, device)
        if self.entry.bodies:
            bodies = {name: partial(program.call_within, env, device) for name, program in self.bodies.items()}
            results = self.entry.function(self.op, bodies, *arguments)
        else:
            results = self.entry.function(self.op, *arguments)
        env.update(zip(self.outputs, results if isinstance(results, tuple) else (results,), strict=False))

    def _argument(self, index: int, name: str, env: Environment) -> Any:
        if index in self.numbers:
            return self.numbers[index]
        value = env[name] if name else None
        return value.tolist() if index in self.entry.numbers and isinstance(value, Tensor) else value


def _together(arguments: list[Any], device: torch.device) -> list[Any]:
    """Sizes and small constants lie on the host until they meet a tensor that lies on the device."""
    kinds = {value.device.type for value in arguments if isinstance(value, Tensor)}
    if len(kinds) < 2:
        return arguments
    return [value.to(device) if isinstance(value, Tensor) else value for value in arguments]


class Program:
    """The nodes of a graph, or of a function, in order; `inputs` and `outputs` are the keys of its formal ones."""

    def __init__(
        self,
        nodes: Iterable[ir.Node],
        inputs: Iterable[ir.Value | None],
        outputs: Iterable[ir.Value | None],
        context: RunContext,
    ) -> None:
        self.context = context
        self.inputs = tuple(context.keys[value] for value in inputs)
        self.outputs = tuple(context.keys[value] for value in outputs)
        nodes = list(nodes)
        for value in (value for node in nodes for value in node.outputs):
            context.keys[value]  # before those of the bodies, so that these keep their names
        found = {id(node): self._step(node) for node in nodes}
        self.steps = [step for step in found.values() if step is not None]
        self._find_last_uses([(node, step) for node in nodes if (step := found[id(node)]) is not None])

    def run(self, env: Environment, keep: Collection[str] = (), device: torch.device | None = None) -> None:
        """Compute all outputs into `env`, and let go of what is not read again unless it is in `keep`."""
        run = _run if torch.compiler.is_compiling() else _run_checked
        for step in self.steps:
            run(step, env, device)
            for name in step.last:
                if name not in keep:
                    env.pop(name, None)

    def with_steps(self, steps: list[Instruction]) -> Program:
        """The same with other steps."""
        other = copy(self)
        other.steps = steps
        return other

    def call_within(self, around: Environment, device: torch.device | None, *arguments: Any) -> list[Any]:
        """As the body of a node: the outputs for these inputs, with the values around it in sight."""
        env = {**around, **dict(zip(self.inputs, arguments, strict=False))}
        self.run(env, device=device)
        return [env[name] for name in self.outputs]

    def call(self, *arguments: Any) -> tuple[Any, ...]:
        """As a function: the outputs for these inputs, those left out being None."""
        env: Environment = {**self.context.constants, **dict.fromkeys(self.inputs)}
        env.update(zip(self.inputs, arguments, strict=False))
        devices = [value.device for value in arguments if isinstance(value, Tensor) and value.device.type != "cpu"]
        self.run(env, device=devices[0] if devices else None)
        return tuple(env[name] for name in self.outputs)

    def _step(self, node: ir.Node) -> Instruction | None:
        """None where the results are known now (they are among the constants then) or nothing can compute them."""
        context = self.context
        entry = self._entry(node)
        if entry is None:
            context.missing[f"{node.domain}.{node.op_type}" if node.domain else node.op_type] += 1
            return None
        inputs = tuple(context.keys[value] for value in node.inputs)
        stored = ChainMap(context.constants, context.weights)
        read = (i for i in entry.numbers | entry.stored if i < len(inputs) and inputs[i] in stored)
        numbers = {i: stored[inputs[i]].tolist() for i in read}
        bodies = {
            name: Program(body, body.inputs, body.outputs, context)
            for name, attribute in node.attributes.items()
            if attribute.type == ir.AttributeType.GRAPH
            for body in [attribute.as_graph()]
        }
        outputs = tuple(context.keys[value] for value in node.outputs)
        step = Instruction(entry, self._op(node), inputs, outputs, numbers, bodies)
        return None if self._folded(step) else step

    def _entry(self, node: ir.Node) -> TorchOperator | None:
        """From the model's functions, else the table, else the function that the standard defines the operator by."""
        context = self.context
        function = context.functions.get(node.op_identifier())
        if function is not None:
            return TorchOperator(_as_function(function, node, dict(function.attributes), context), random=True)
        if (entry := find_operator((_domain(node), node.op_type))) is not None:
            return entry
        schema = torch_functions.schema_of(node, context.versions.get(_domain(node), 1))
        if schema is None:
            return None
        attributes = torch_functions.attribute_defaults(schema)
        if schema.has_function:
            return TorchOperator(
                _as_function(torch_functions.plain_body(schema), node, attributes, context), random=True
            )
        return TorchOperator(_as_typed_function(schema, node, attributes, context), random=True)

    def _op(self, node: ir.Node) -> TorchNode:
        context = self.context
        attributes = {
            attribute.name: _plain(attribute, context.settings)
            for attribute in _resolved(node, context.attributes).values()
            if attribute.type not in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
        }
        return TorchNode(
            name=node.name or "",
            op_type=node.op_type,
            version=context.versions.get(_domain(node), 1),
            attributes=attributes,
            wanted=tuple(
                bool(value.name) and (bool(value.uses()) or value.is_graph_output()) for value in node.outputs
            ),
            types=tuple(None if value is None or value.dtype is None else value.dtype.value for value in node.inputs),
            shared=frozenset(i for i, value in enumerate(node.inputs) if value is not None and len(value.uses()) > 1),
            settings=context.settings,
        )

    def _folded(self, step: Instruction) -> bool:
        known = self.context.constants
        if step.entry.bodies or step.entry.random or not all(name in known for name in step.inputs if name):
            return False
        results: Environment = {name: known[name] for name in step.inputs if name}
        with torch.no_grad():
            _run_checked(step, results, None)
        tensors = [results[name] for name in step.outputs if name]
        if not all(isinstance(value, Tensor) and value.numel() <= _MAX_FOLDED for value in tensors):
            return False
        known.update({name: results[name] for name in step.outputs if name})
        return True

    def _find_last_uses(self, order: list[tuple[ir.Node, Instruction]]) -> None:
        keys = self.context.keys
        made = {name for _, step in order for name in step.outputs if name} - set(self.outputs)
        for node, step in reversed(order):
            names = {keys[value] for value in reads(node)} | {name for name in step.outputs if name}
            step.last = tuple(sorted(names & made))
            made -= names


def _run(step: Instruction, env: Environment, device: torch.device | None) -> None:
    step.run(env, device)


def _run_checked(step: Instruction, env: Environment, device: torch.device | None) -> None:
    """Raises ModelError, naming the node, where an operator fails."""
    try:
        step.run(env, device)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ArithmeticError, LookupError, TypeError, ValueError, NotImplementedError) as error:
        raise ModelError(f"torch cannot run {step.op.op_type} '{step.op.name}': {one_line(error)}") from error


def _as_function(
    function: ir.Function, node: ir.Node, attributes: dict[str, ir.Attr], context: RunContext
) -> Callable[..., Any]:
    """A call of the function's body with the attributes of `node`."""
    inner = RunContext(
        context.settings,
        context.functions,
        function.opset_imports or context.versions,
        attributes={**attributes, **_resolved(node, context.attributes)},
        missing=context.missing,
    )
    program = Program(function, function.inputs, function.outputs, inner)
    return lambda _, *inputs: program.call(*inputs)


def _as_typed_function(
    schema: Any, node: ir.Node, attributes: dict[str, ir.Attr], context: RunContext
) -> Callable[..., Any]:
    """The same for a body that depends on the types of the inputs: it is made when they are seen for the first time."""
    made: dict[Any, Callable[..., Any]] = {}

    def call(op: TorchNode, *inputs: Any) -> Any:
        key = torch_functions.signature(inputs)
        if key not in made:
            made[key] = _as_function(torch_functions.typed_body(schema, node, inputs), node, attributes, context)
            if context.missing:
                raise op.refuse(f"its definition needs {', '.join(sorted(context.missing))}")
        return made[key](op, *inputs)

    return call


def _domain(node: ir.Node) -> str:
    return "" if node.domain == "ai.onnx" else node.domain


def _resolved(node: ir.Node, outer: Mapping[str, ir.Attr]) -> dict[str, ir.Attr]:
    """The attributes of a node, those that refer to one of the function around it replaced by that."""
    found: dict[str, ir.Attr] = {}
    for name, attribute in node.attributes.items():
        if not attribute.is_ref():
            found[name] = attribute
        elif (given := outer.get(attribute.ref_attr_name or "")) is not None:
            found[name] = ir.Attr(name, given.type, given.value)
    return found


def _plain(attribute: ir.Attr, settings: Settings) -> Any:
    if attribute.type == ir.AttributeType.TENSOR:
        return settings.tensor(attribute.as_tensor())
    value = attribute.value
    return list(value) if isinstance(value, tuple) else value
