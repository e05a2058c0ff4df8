"""Models of Keras 3."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxprune.conversion.base import ExportOptions, Opened, cause_of, has_suffix, is_made_of, network_source
from onnxprune.conversion.rewriting import in_known_operators
from onnxprune.errors import DataError, MissingExtraError, ModelError
from onnxprune.model.file import as_model
from onnxprune.model.signature import Feed

# An open axis that is not a batch gets this size in the example, and one more in the second.
_OPEN = 8


@network_source("keras")
class Keras:
    """A model of Keras 3, or the .keras or .h5 file of one; exported by Keras itself, on its own backend."""

    @staticmethod
    def takes(given: Any) -> bool:
        """Is it a model of Keras, or the file of one?"""
        return is_made_of(given, "keras", "Model") or has_suffix(given, ".keras", ".h5", ".hdf5")

    @staticmethod
    def open(given: Any, example_inputs: Any, options: ExportOptions) -> Opened:
        """The model; code inside of a file (Lambda layers) is never run. Raises as `NetworkSource.open`."""
        if find_spec("keras") is None:
            raise MissingExtraError("keras", "keras")
        model = _loaded(Path(given)) if isinstance(given, str | Path) else given
        inputs = list(model.inputs or ())
        if not inputs:
            raise ModelError("the model was never called, so its inputs are unknown; call it once, or build it")
        names = [str(value.name) for value in inputs]
        feeds = (
            tuple(_made(inputs, batch) for batch in (2, 3))
            if example_inputs is None
            else (_given(example_inputs, names),)
        )
        run = _runner(model, names)
        run(feeds[0])  # Keras exports no model that was never called, as one that was just loaded
        return Opened(run, feeds, {"keras": _exporter(model, names, options)})


def _loaded(path: Path) -> Any:
    import keras

    if not path.is_file():
        raise ModelError(f"{path} does not exist; check the path")
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # whatever Keras raises
        raise ModelError(f"{path} cannot be loaded: {cause_of(error)}") from error


def _made(inputs: list[Any], batch: int) -> Feed:
    """Made-up inputs: normal numbers, or zeros and ones; axes that are open get a size that the batch has not."""
    rng = np.random.default_rng(batch)
    feed: Feed = {}
    for value in inputs:
        shape = [
            batch if axis == 0 else _OPEN + batch if size is None else size for axis, size in enumerate(value.shape)
        ]
        dtype = np.dtype(str(value.dtype))
        drawn = rng.standard_normal(shape) if dtype.kind == "f" else rng.integers(0, 2, shape)
        feed[str(value.name)] = drawn.astype(dtype)
    return feed


def _given(example_inputs: Any, names: list[str]) -> Feed:
    several = example_inputs if isinstance(example_inputs, tuple | list | Mapping) else (example_inputs,)
    found = several.items() if isinstance(several, Mapping) else zip(names, several, strict=False)
    feed = {str(name): np.asarray(array) for name, array in found}
    if set(feed) != set(names):
        raise DataError(f"the model takes {', '.join(names)}, and the example inputs are {', '.join(feed)}")
    return feed


def _runner(model: Any, names: list[str]) -> Callable[[Feed], list[Any]]:
    def run(feed: Feed) -> list[Any]:
        import keras

        arrays = [feed[name] for name in names]
        made = model(arrays[0] if len(arrays) == 1 else arrays, training=False)
        return [keras.ops.convert_to_numpy(each) for each in keras.tree.flatten(made)]

    return run


def _exporter(model: Any, names: list[str], options: ExportOptions) -> Callable[[], ir.Model]:
    def export() -> ir.Model:
        with tempfile.TemporaryDirectory(prefix="onnxprune-", ignore_cleanup_errors=True) as folder, muted():
            path = Path(folder) / "model.onnx"
            model.export(str(path), format="onnx", verbose=False, opset_version=options.opset or 18)
            return in_memory(path, names)

    return export


@contextlib.contextmanager
def muted() -> Any:
    """Send the output of converters to standard error, and only in the words of errors."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield


def in_memory(path: Path, names: list[str]) -> ir.Model:
    """A model with its weights, whose file may go, and whose inputs have the names of the network's."""
    model = in_known_operators(as_model(path.read_bytes()))
    if len(names) == len(model.graph.inputs):
        for value, name in zip(model.graph.inputs, names, strict=True):
            value.name = name
    return model
