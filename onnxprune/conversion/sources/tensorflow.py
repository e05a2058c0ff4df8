"""SavedModels and TFLite files of TensorFlow."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxprune.conversion.base import ExportOptions, Opened, cause_of, has_suffix, network_source
from onnxprune.conversion.rewriting import in_known_operators
from onnxprune.errors import MissingExtraError, ModelError
from onnxprune.model.file import as_model
from onnxprune.model.signature import Feed

_SIGNATURES = ("serving_default", "serve")
_OPSET = 18
_OPEN = 8  # the size of an open axis that is not a batch


@network_source("tensorflow")
class TensorFlow:
    """A SavedModel (a folder) or a .tflite file of TensorFlow, converted by tf2onnx."""

    @staticmethod
    def takes(given: Any) -> bool:
        """Is it the folder of a SavedModel, or a TFLite file?"""
        return has_suffix(given, ".tflite") or (
            isinstance(given, str | Path) and (Path(given) / "saved_model.pb").is_file()
        )

    @staticmethod
    def open(given: Any, example_inputs: Any, options: ExportOptions) -> Opened:
        """The network. Raises MissingExtraError without tensorflow or tf2onnx, ModelError for a damaged one."""
        for package in ("tensorflow", "tf2onnx"):
            if find_spec(package) is None:
                raise MissingExtraError(package, "tensorflow")
        path = Path(given)
        if not path.exists():
            raise ModelError(f"{path} does not exist; check the path")
        try:
            run, feeds = _tflite(path) if path.suffix == ".tflite" else _saved_model(path)
        except ModelError:
            raise
        except Exception as error:  # whatever TensorFlow raises
            raise ModelError(f"{path} cannot be loaded: {cause_of(error)}") from error
        if example_inputs is not None:
            feeds = ({name: np.asarray(array) for name, array in dict(example_inputs).items()},)
        return Opened(run, feeds, {"tf2onnx": lambda: _converted(path, options.opset or _OPSET)})


Run = Callable[[Feed], list[Any]]


def _saved_model(path: Path) -> tuple[Run, tuple[Feed, ...]]:
    import tensorflow

    loaded = tensorflow.saved_model.load(str(path))
    signature = next((loaded.signatures[name] for name in _SIGNATURES if name in loaded.signatures), None)
    if signature is None:
        raise ModelError(f"{path} has no signature '{_SIGNATURES[0]}': save it with one")
    inputs = signature.structured_input_signature[1]

    def run(feed: Feed) -> list[Any]:
        made = signature(**{name: tensorflow.constant(array) for name, array in feed.items()})
        return [made[name].numpy() for name in sorted(made)]

    run.loaded = loaded  # type: ignore[attr-defined]  # a signature does not keep its variables alive
    feeds = tuple(
        {name: _made(value.shape, value.dtype.as_numpy_dtype, batch) for name, value in inputs.items()}
        for batch in (2, 3)
    )
    return run, feeds


def _tflite(path: Path) -> tuple[Run, tuple[Feed, ...]]:
    import tensorflow

    interpreter = tensorflow.lite.Interpreter(model_path=str(path))
    interpreter.allocate_tensors()
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()

    def run(feed: Feed) -> list[Any]:
        for each in inputs:
            interpreter.set_tensor(each["index"], feed[each["name"]])
        interpreter.invoke()
        return [interpreter.get_tensor(each["index"]) for each in outputs]

    feeds = tuple({each["name"]: _made(each["shape"], each["dtype"], seed) for each in inputs} for seed in (2, 3))
    return run, feeds


def _made(shape: Any, dtype: Any, batch: int) -> Any:
    """Normal numbers, or zeros and ones; axes that are open get sizes of their own."""
    rng = np.random.default_rng(batch)
    sizes = [batch if axis == 0 else _OPEN + batch if size is None else int(size) for axis, size in enumerate(shape)]
    sizes = [int(size) if size is not None and int(size) > 0 else sizes[axis] for axis, size in enumerate(shape)]
    drawn = rng.standard_normal(sizes) if np.dtype(dtype).kind == "f" else rng.integers(0, 2, sizes)
    return np.asarray(drawn).astype(dtype)


def _converted(path: Path, opset: int) -> ir.Model:
    """By the command line of tf2onnx, in a process of its own: it changes TensorFlow's settings. Raises ModelError."""
    kind = "--tflite" if path.suffix == ".tflite" else "--saved-model"
    with tempfile.TemporaryDirectory(prefix="onnxprune-", ignore_cleanup_errors=True) as folder:
        out = Path(folder) / "model.onnx"
        command = [
            sys.executable,
            "-m",
            "tf2onnx.convert",
            kind,
            str(path),
            "--output",
            str(out),
            "--opset",
            str(opset),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode or not out.is_file():
            raise ModelError((done.stderr.strip().splitlines() or ["it gives no reason"])[-1])
        return in_known_operators(as_model(out.read_bytes()))
