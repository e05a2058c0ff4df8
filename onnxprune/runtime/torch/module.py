"""Any ONNX graph as a differentiable torch module, without an export: what gradient criteria and training run on."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Set
from itertools import chain
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxprune.errors import MissingExtraError, ModelError, UsageError
from onnxprune.ops.traits import is_running_statistic

try:
    import torch
    from torch import Tensor
except ImportError:
    raise MissingExtraError("torch", "torch") from None

from onnxprune.model.graph import subgraphs
from onnxprune.runtime.torch.ops.base import PRECISIONS, Settings
from onnxprune.runtime.torch.ops.fusion import fused
from onnxprune.runtime.torch.program import Program, RunContext
from onnxprune.runtime.torch.sizes import Sized, from_shapes
from onnxprune.support.messages import did_you_mean

# Integer constants of at most this many entries are sizes and axes: they stay on the host, where they are read.
_MAX_HOST = 1024
# For so many sets of input shapes what follows from them is remembered.
_MAX_SIZED = 16

Shapes = tuple[tuple[str, tuple[int, ...]], ...]


class TorchModel(torch.nn.Module):
    """Any ONNX graph in torch: every float initializer is one Parameter under its ONNX name.

    An initializer that several nodes read is one Parameter. Integer initializers are constants, the running mean and
    variance of a BatchNormalization are buffers. Integers that say how large something is stay exact, on the host. A
    weight that an operator reads as numbers (the scales of a Resize) is read once and has no gradient.
    The model itself is never changed; `write_back` puts the parameters into it, or into a copy of it.

    In `eval()`, which is how it starts, everything computes as in inference. In `train()` BatchNormalization uses the
    statistics of the batch and moves its running ones (those that no other node reads); Dropout does what the graph
    says in both. `substitutes` holds what replaces weights, by their names: masked, gated or noisy ones.

    Args:
        model: the model; functions and bodies of If, Loop and Scan included.
        precision: "float32" computes float16 and bfloat16 in float32; "float64" all floats in float64 (for checks);
            "stored" everything as in the file.

    Raises ModelError naming the operators that have no implementation, UsageError for an unknown precision.
    """

    def __init__(self, model: ir.Model, precision: str = "float32") -> None:
        super().__init__()
        if precision not in PRECISIONS:
            raise UsageError(f"unknown precision '{precision}'{did_you_mean(precision, PRECISIONS)}")
        self._settings = Settings(precision)
        self._slots: dict[str, str] = {}  # key of a value -> name of the parameter or buffer
        self._statistics: list[str] = []
        context = RunContext(self._settings, model.functions, model.opset_imports)
        graph = model.graph
        for value in graph.inputs:
            context.keys[value]
        self._inputs = {context.keys[value]: value.dtype for value in graph.inputs}
        self._outputs = {context.keys[value]: value.dtype for value in graph.outputs}
        self._defaults: dict[str, Tensor] = {}
        for key, value in _initializers(graph, context):
            self._take(key, value, context)
        self._program = Program(graph, graph.inputs, graph.outputs, context)
        if context.missing:
            names = ", ".join(f"{name} ({count})" for name, count in sorted(context.missing.items()))
            raise ModelError(f"torch has no implementation of: {names}")
        self._inner = {context.keys[value] for node in graph for value in node.outputs}
        self._keep_constants(context)
        known = {*self._constants, *self._buffered, *self._unread}
        self._from_shapes = from_shapes(self._program, known, {*self._inputs, *self._slots})
        self._sized: dict[Shapes | None, Sized] = {}
        self._fused: dict[Shapes | None, tuple[Program, frozenset[str]]] = {}
        self.substitutes: Mapping[str, Tensor] = {}
        self.eval()

    def _take(self, key: str, value: ir.Value, context: RunContext) -> None:
        """Give an initializer its place: parameter, buffer or constant."""
        assert value.const_value is not None
        tensor = self._settings.tensor(value.const_value)
        if not tensor.is_floating_point():
            (self._defaults if key in self._inputs else context.constants)[key] = tensor
            return
        slot = self._slots[key] = _free(f"{key.replace('.', '/')}:", set(self._slots.values()))
        if is_running_statistic(value):
            self._statistics.append(key)
            self.register_buffer(slot, tensor)
        else:
            self.register_parameter(slot, torch.nn.Parameter(tensor))
        if key not in self._inputs:
            context.weights[key] = tensor

    def _keep_constants(self, context: RunContext) -> None:
        """Constants that are read at run time: sizes on the host, the others as buffers that follow the module."""
        read = _names_read(self._program) | set(self._outputs)
        self._constants: dict[str, Tensor] = {}
        self._unread: dict[str, Tensor] = {}  # only given back when asked for
        self._buffered: dict[str, str] = {}
        for index, (key, tensor) in enumerate(context.constants.items()):
            if key not in read:
                self._unread[key] = tensor
            elif isinstance(tensor, Tensor) and (tensor.is_floating_point() or tensor.numel() > _MAX_HOST):
                self._buffered[key] = f"constant:{index}"
                self.register_buffer(f"constant:{index}", tensor, persistent=False)
            else:
                self._constants[key] = tensor
        context.constants.clear()
        context.weights.clear()  # the parameters hold them now, wherever they move

    @property
    def weights(self) -> dict[str, torch.nn.Parameter]:
        """ONNX name -> Parameter."""
        statistics = set(self._statistics)
        return {key: self.get_parameter(slot) for key, slot in self._slots.items() if key not in statistics}

    @property
    def statistics(self) -> dict[str, Tensor]:
        """ONNX name -> running mean or variance of a BatchNormalization."""
        return {key: self.get_buffer(self._slots[key]) for key in self._statistics}

    @property
    def inputs(self) -> list[str]:
        """The names that `forward` has to be fed."""
        return [name for name in self._inputs if name not in self._slots and name not in self._defaults]

    @property
    def outputs(self) -> list[str]:
        """The names of the graph's outputs."""
        return list(self._outputs)

    @property
    def values(self) -> set[str]:
        """The names that `forward` can be asked to keep: inner values, inputs and weights."""
        return {*self._inner, *self._inputs, *self._slots}

    @property
    def device(self) -> torch.device:
        """Where the parameters lie."""
        first = next(chain(self.parameters(), self.buffers()), None)
        return torch.device("cpu") if first is None else first.device

    def _apply(self, fn: Any, recurse: bool = True) -> TorchModel:
        """Do to every tensor as `.to()` does; those that are remembered are computed again where they are due."""
        self._forget()
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    @property
    def across(self) -> Callable[[Tensor], Tensor] | None:
        """Adds a tensor up over all processes that train together, for statistics of a batch that is parted."""
        return self._settings.across

    @across.setter
    def across(self, function: Callable[[Tensor], Tensor] | None) -> None:
        self._settings.across = function

    def train(self, mode: bool = True) -> TorchModel:
        """Whether BatchNormalization uses the statistics of the batch."""
        super().train(mode)
        self._settings.training = mode
        return self

    def forward(self, feed: Mapping[str, Any], keep: Collection[str] = ()) -> dict[str, Any]:
        """Run the graph.

        Args:
            feed: a tensor (or array) per input; a list of them for a sequence.
            keep: further values of the main graph to give back.

        Returns: the graph's outputs, then the values in `keep`, by name.

        Raises UsageError for a missing input or an unknown name, ModelError naming the node that fails.
        """
        self._check(feed, keep)
        device = self.device
        given = {name: self._fed(value, device) for name, value in feed.items()}
        env: dict[str, Any] = {**self._constants, **self._defaults}
        env.update({key: self._buffers[slot] for key, slot in self._buffered.items()})
        env.update(self.weights)
        env.update(self.substitutes)
        env.update(self.statistics)
        env.update(given)
        self._run(env, self._shapes(given), frozenset(keep), device)
        results = {name: env[name] if name in env else self._unread[name] for name in (*self._outputs, *keep)}
        return {name: _declared(value, self._outputs.get(name)) for name, value in results.items()}

    def _shapes(self, given: Mapping[str, Any]) -> Shapes | None:
        """None where something is fed that is not a tensor."""
        if not all(isinstance(value, Tensor) for value in given.values()):
            return None
        return tuple((name, tuple(given[name].shape)) for name in self._inputs if name in given)

    def _run(self, env: dict[str, Any], shapes: Shapes | None, keep: frozenset[str], device: torch.device) -> None:
        """By the program for these shapes; where they are new, by the full one, which shows what follows from them."""
        elsewhere = None if device.type == "cpu" else device
        sized, compiling = self._sized.get(shapes), torch.compiler.is_compiling()
        if sized is None and self._from_shapes:
            self._program.run(env, keep | self._from_shapes, elsewhere)
            if shapes is not None and not compiling:
                if len(self._sized) == _MAX_SIZED:
                    self._forget()
                self._sized[shapes] = Sized.after_run(self._program, self._from_shapes, env)
            return
        program = self._program if sized is None else sized.program
        env.update({} if sized is None else sized.values)
        if self.training and not compiling:
            program = self._with_fused(shapes, program, env, keep)
        program.run(env, keep, elsewhere)

    def _with_fused(self, shapes: Shapes | None, program: Program, env: Mapping[str, Any], keep: Set[str]) -> Program:
        """The program with nodes put together, unless something in between is asked for."""
        if shapes not in self._fused:
            read = {name for step in program.steps for body in step.bodies.values() for name in _names_read(body)}
            steps, hidden = fused(program.steps, env, [*program.outputs, *read])
            self._fused[shapes] = program.with_steps(steps), hidden
        together, hidden = self._fused[shapes]
        return program if keep & hidden else together

    def _forget(self) -> None:
        """Values that are remembered for shapes."""
        self._sized.clear()
        self._fused.clear()

    def _check(self, feed: Mapping[str, Any], keep: Collection[str]) -> None:
        if missing := [name for name in self.inputs if name not in feed]:
            raise UsageError(f"the model also needs the input '{missing[0]}'; its inputs are {', '.join(self.inputs)}")
        for name in feed:
            if name not in self._inputs:
                raise UsageError(f"the model has no input '{name}'{did_you_mean(name, self._inputs)}")
        for name in keep:
            if name not in self._inner and name not in self._inputs and name not in self._slots:
                raise UsageError(f"the model computes no value '{name}'{did_you_mean(name, self._inner)}")

    def _fed(self, value: Any, device: torch.device) -> Any:
        if value is None or isinstance(value, list | tuple):
            return None if value is None else [self._fed(entry, device) for entry in value]
        tensor = value if isinstance(value, Tensor) else self._settings.tensor(ir.Tensor(np.asarray(value)))
        return tensor.to(device=device, dtype=self._settings.widened(tensor.dtype))

    def write_back(self, model: ir.Model) -> None:
        """Put parameters and BatchNormalization statistics into the initializers of the same names, types kept.

        Raises ModelError where `model` lacks one of them or has it in another shape; it is unchanged then.
        """
        tensors: dict[str, Tensor] = {**self.weights, **self.statistics}
        context = RunContext(self._settings, {}, {})
        for value in model.graph.inputs:
            context.keys[value]
        targets = {key: value for key, value in _initializers(model.graph, context) if key in tensors}
        for key, tensor in tensors.items():
            target = targets.get(key)
            if target is None or target.const_value is None:
                raise ModelError(f"the model has no weight '{key}' to write to; use the one that was opened, or a copy")
            found = tuple(target.const_value.shape.numpy())
            if found != tuple(tensor.shape):
                raise ModelError(f"weight '{key}' has shape {tuple(tensor.shape)} here and {found} in the model")
        for key, tensor in tensors.items():
            value = targets[key]
            assert value.const_value is not None
            dtype = value.const_value.dtype
            array = tensor.detach().cpu().to(torch.float64).numpy().astype(dtype.numpy())
            value.const_value = ir.Tensor(array, dtype=dtype, name=value.name)


def _initializers(graph: ir.Graph, context: RunContext) -> Iterator[tuple[str, ir.Value]]:
    """Key and value of every initializer, those of the main graph first, then those of the bodies in it."""
    values = list(graph.initializers.values())
    yield from ((context.keys[value], value) for value in values if value.const_value is not None)
    for node in graph:
        for value in node.outputs:
            context.keys[value]
    for node in graph:
        for body in subgraphs(node):
            yield from _initializers(body, context)


def _free(name: str, taken: Collection[str]) -> str:
    while name in taken:
        name += "'"
    return name


def _names_read(program: Program) -> set[str]:
    """Everything that the steps of a program, and of the bodies in it, take from the environment."""
    names = set(program.outputs)
    for step in program.steps:
        names.update(name for index, name in enumerate(step.inputs) if index not in step.numbers)
        for body in step.bodies.values():
            names |= _names_read(body)
    return names


def _declared(value: Any, dtype: ir.DataType | None) -> Any:
    """An output that the graph declares as an integer, where its gradient was carried in floats."""
    if isinstance(value, Tensor) and value.is_floating_point() and dtype is not None and dtype.is_integer():
        return value.round().to(torch.int64 if dtype.bitwidth > 8 else torch.int8 if dtype.is_signed() else torch.uint8)
    return value
