"""Run a model piece by piece over all batches of data, so that weights behind the last piece can still be changed."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from onnxprune.errors import ModelError
from onnxprune.model.graph import reads
from onnxprune.model.inner_values import InnerName, handed_out, inner_makers, node_of, one_after_the_other
from onnxprune.runtime.providers import CPU_ONLY
from onnxprune.runtime.session import load_parts, session_options
from onnxprune.support.memory import bytes_for
from onnxprune.support.messages import one_line

Array = npt.NDArray[Any]


class Stepper:
    """Computes values of a model in topological order; between two steps only what later nodes read is kept.

    All steps together run every node once per batch, so walking through a model costs one run over the data. A node's
    weights are read in the step that runs it, not before. Values inside bodies are asked for by `InnerName`: the node
    is run each time, and counts as run once a later value needs it.

    Args:
        model: the main graph's nodes are run; types of its values have to be known (see passes.Canonicalize).
        dtypes: the element type of each value.
        feeds: the inputs of each batch, kept until the last node that reads them has run.
        providers: execution providers of ONNX Runtime.
        memory: bytes of values to hold in memory, by default the share of the bound; what is more goes to a file.
    """

    def __init__(
        self,
        model: ir.Model,
        dtypes: Mapping[str, ir.DataType],
        feeds: Iterable[Mapping[str, Array]],
        providers: Sequence[str] = CPU_ONLY,
        memory: int | None = None,
    ) -> None:
        self._model = model
        self._dtypes = dtypes
        self._providers = list(providers)
        self._values = [dict(feed) for feed in feeds]
        self._done: set[ir.Node] = set()
        self._memory = bytes_for("waiting") if memory is None else memory
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._written = 0

    def advance(self, names: Iterable[str]) -> None:
        """Compute these values, or what nodes read whose bodies hold them.

        Raises ModelError with one line when ONNX Runtime refuses.
        """
        nodes = {name: node_of(self._model, name) for name in names}
        wanted = {name for name, node in nodes.items() if node is None}
        wanted.update(value.name or "" for node in nodes.values() if node is not None for value in _given(node))
        piece = self._piece(wanted)
        self._done.update(piece)
        if piece:
            needed = wanted | self._read_later()
            made = [value.name or "" for node in piece for value in node.outputs if value.name in needed]
            session, inputs = self._session(piece, made)
            for values in self._values:
                feed = {name: _loaded(values[name]) for name in inputs}
                results = _run(session, made, feed)
                values.update((name, self._kept(result)) for name, result in zip(made, results, strict=True))
                for name in set(values) - needed:
                    del values[name]

    def batches(self, *names: str) -> Iterator[tuple[Array, ...]]:
        """These values, batch by batch; `advance` must have been told of them last."""
        if any(isinstance(name, InnerName) for name in names):
            yield from self.peek(*names)
            return
        for values in self._values:
            yield tuple(_loaded(values[name]) for name in names)

    def peek(self, *names: str) -> Iterator[tuple[Array, ...]]:
        """These values as the model would give them now, batch by batch. Nothing is kept, no node counts as run.

        Raises ModelError with one line when ONNX Runtime refuses.
        """
        with handed_out(self._model, names, self._dtypes):
            piece = self._piece(set(names))
            made = sorted(set(names) & {value.name or "" for node in piece for value in node.outputs})
            session, inputs = self._session(piece, made) if made else (None, [])
        for values in self._values:
            results = _run(session, made, {name: _loaded(values[name]) for name in inputs}) if made else []
            found = {**values, **dict(zip(made, results, strict=True))}
            yield tuple(one_after_the_other(name, _loaded(found[name]), self._model) for name in names)

    def would_run(self, names: Iterable[str]) -> set[ir.Node]:
        """The nodes that have to run before these values are there, those of the same body among them."""
        with handed_out(self._model, names, self._dtypes):
            return {*self._piece(set(names)), *(node for name in names for node in _inner(name))}

    def _piece(self, wanted: set[str]) -> list[ir.Node]:
        """The nodes that the values depend on and that have not run, in the order of the graph."""
        needed, piece = set(wanted), []
        for node in reversed(list(self._model.graph)):
            if node not in self._done and any(value.name in needed for value in node.outputs):
                piece.append(node)
                needed.update(value.name or "" for value in reads(node))
        return piece[::-1]

    def _read_later(self) -> set[str]:
        return {value.name or "" for node in self._model.graph if node not in self._done for value in reads(node)}

    def _session(self, piece: list[ir.Node], made: list[str]) -> tuple[Any, list[str]]:
        """A session for the nodes of a piece, and the names of its inputs."""
        inside = {value.name for node in piece for value in node.outputs}
        inputs: dict[str, ir.Value] = {}
        weights: dict[str, ir.TensorProtocol] = {}
        for value in (value for node in piece for value in reads(node)):
            if value.const_value is not None:
                weights[value.name or ""] = value.const_value
            elif value.name not in inside:
                inputs[value.name or ""] = value
        proto = onnx.ModelProto(ir_version=self._model.ir_version)
        for domain, version in self._model.opset_imports.items():
            proto.opset_import.add(domain=domain, version=version)
        proto.graph.name = "piece"
        proto.graph.node.extend(ir.to_proto(node) for node in piece)
        proto.graph.input.extend(self._declared(name, value) for name, value in inputs.items())
        proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in made)
        options = session_options()
        try:
            session = load_parts(proto, weights, options, self._providers)
        except Exception as error:
            raise ModelError(f"ONNX Runtime cannot load a part of the model: {one_line(error)}") from error
        return session, list(inputs)

    def _declared(self, name: str, value: ir.Value) -> onnx.ValueInfoProto:
        """A name and a type, no shape: batches may differ in size."""
        if isinstance(value.type, ir.SequenceType | ir.OptionalType):
            return ir.to_proto(value)
        found = _loaded(self._values[0][name])
        if isinstance(found, list) and found:  # of a sequence nothing may be declared; its entries tell
            return onnx.helper.make_tensor_sequence_value_info(name, _type_of(found[0]), None)
        dtype = self._dtypes.get(name, value.dtype)
        if dtype is None:
            raise ModelError(f"the type of '{name}' is not known")
        return onnx.helper.make_tensor_value_info(name, dtype.value, None)

    def _kept(self, array: Any) -> Any:
        """The array itself, or the file that holds it once memory is used up."""
        held = sum(getattr(value, "nbytes", 0) for values in self._values for value in values.values())
        if not isinstance(array, np.ndarray) or array.dtype == object or held + array.nbytes <= self._memory:
            return array
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="onnxprune.")
        self._written += 1
        return _Stored(Path(self._folder.name) / f"{self._written}.npy", array)


class _Stored:
    """An array in a file, which goes with this: mapped, its pages would count as memory for as long as it is there."""

    def __init__(self, path: Path, array: Array) -> None:
        self._path = path
        np.save(path, array)

    def load(self) -> Array:
        """The array, read anew."""
        array: Array = np.load(self._path)
        return array

    def __del__(self) -> None:
        self._path.unlink(missing_ok=True)


def _loaded(value: Any) -> Any:
    return value.load() if isinstance(value, _Stored) else value


def _given(node: ir.Node) -> Iterator[ir.Value]:
    """The inputs of a node that are no weights."""
    return (value for value in reads(node) if value.const_value is None)


def _inner(name: str) -> set[ir.Node]:
    return inner_makers(name) if isinstance(name, InnerName) else set()


def _type_of(array: Array) -> int:
    """As ONNX numbers it."""
    return int(onnx.helper.np_dtype_to_tensor_dtype(array.dtype))


def _run(session: Any, made: list[str], feed: dict[str, Array]) -> list[Any]:
    try:
        results: list[Any] = session.run(made, feed)
    except Exception as error:
        raise ModelError(f"ONNX Runtime cannot run a part of the model: {one_line(error)}") from error
    return results
