"""Write a network as a folder with a Python file and its weights, after a run of it beside ONNX Runtime."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from onnxprune.analysis.groups import Analysis
from onnxprune.analysis.inspect import inspect
from onnxprune.conversion.to_torch.base import Array
from onnxprune.conversion.to_torch.page import page
from onnxprune.conversion.to_torch.writer import Writer
from onnxprune.errors import UsageError, VerificationError
from onnxprune.evaluation.trial_inputs import TrialMaker
from onnxprune.evaluation.verify import Original, run_original
from onnxprune.model.file import name_of, runnable
from onnxprune.support.extras import check_torch
from onnxprune.support.files import moved_into_place
from onnxprune.support.progress import Progress, silent

CODE, WEIGHTS = "model.py", "model.safetensors"
# What Python leaves beside a module that somebody imported.
_COMPILED = "__pycache__"
# Largest difference that counts as rounding, relative to the largest value of an output.
_ROUNDING = 1e-3


@dataclass(frozen=True)
class TorchCode:
    """A network as code.

    Attributes:
        text: the Python file.
        weights: by their names in the module's state dict.
        differences: per run beside ONNX Runtime the largest one of all outputs, relative to the largest value.
    """

    text: str
    weights: dict[str, Array]
    differences: tuple[float, ...] = ()


def to_torch(model: Any, folder: str | Path, *, progress: Progress = silent) -> TorchCode:
    """Write a model as a plain torch module that needs nothing but torch and safetensors: model.py, model.safetensors.

    The module is run beside ONNX Runtime, at several sizes of dynamic axes, before the folder takes its place.

    Args:
        model: a path, an `onnx.ModelProto` or an `onnx_ir.Model`.
        folder: where the two files go; it is created.
        progress: is called with what is being done.

    Raises ModelError for a model that has an operator without code, which it names, VerificationError where the module
    gives other outputs, UsageError where the folder cannot be written, MissingExtraError without torch.
    """
    check_torch()
    from safetensors.numpy import save_file

    folder = Path(folder)
    own = {CODE, WEIGHTS, _COMPILED}
    if folder.exists() and (not folder.is_dir() or {each.name for each in folder.iterdir()} - own):
        raise UsageError(f"{folder} is there already and holds other things; name a new folder")
    if not folder.absolute().parent.is_dir():
        raise UsageError(f"the folder {folder.absolute().parent} does not exist; create it first")
    progress("analysing")
    source = runnable(model)
    analysis = inspect(source)
    original = run_original(source, TrialMaker(analysis))
    progress("writing")
    code = torch_code(analysis, name_of(model) if isinstance(model, str | Path) else "an ONNX model")
    with moved_into_place(folder) as beside:
        made = beside / folder.name
        made.mkdir()
        (made / CODE).write_text(code.text, encoding="utf-8")
        save_file({name: np.ascontiguousarray(array) for name, array in code.weights.items()}, made / WEIGHTS)
        progress("comparing")
        differences = tuple(_differences(made / CODE, original))
        if folder.exists():
            shutil.rmtree(folder)
    return TorchCode(code.text, code.weights, differences)


def torch_code(analysis: Analysis, called: str) -> TorchCode:
    """The file and its weights. Raises ModelError for what cannot be written."""
    writer = Writer(analysis)
    outputs = writer.write()
    weights = {name: array for part in writer.parts.values() for name, array in part.weights.items()}
    return TorchCode(page(writer, outputs, Path(called).name), weights)


def _differences(path: Path, original: Original) -> Iterator[float]:
    """Run the module beside ONNX Runtime. Raises VerificationError where it fails, or gives other outputs."""
    import torch

    try:
        net = _imported(path).load()
        for trial in original.trials:
            with torch.no_grad():
                made = net(*(torch.from_numpy(np.array(trial.feed[port.name])) for port in original.inputs))
            made = made if isinstance(made, tuple) else (made,)
            pairs = zip(trial.results.items(), made, strict=True)
            yield max((_difference(name, due, given.numpy()) for (name, due), given in pairs), default=0.0)
    except (RuntimeError, TypeError, ValueError, IndexError, AttributeError) as error:
        said = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise VerificationError(f"the module does not run, so nothing was written: {said}") from error


def _imported(path: Path) -> ModuleType:
    """The module; an import would leave compiled code beside it."""
    module = ModuleType("onnxprune_written_module")
    module.__file__ = str(path)
    exec(compile(path.read_text(encoding="utf-8"), path, "exec"), module.__dict__)
    return module


def _difference(name: str, due: Array, given: Array) -> float:
    if due.shape != given.shape or due.dtype != given.dtype:
        raise VerificationError(
            f"output '{name}' of the module is {given.dtype}{list(given.shape)}, not {due.dtype}{list(due.shape)}; "
            "nothing was written"
        )
    if due.dtype.kind not in "f":
        difference = float(np.mean(due != given)) if due.size else 0.0
    else:
        wide, other = np.nan_to_num(due.astype(np.float64)), np.nan_to_num(given.astype(np.float64))
        difference = float(np.abs(wide - other).max(initial=0.0)) / (float(np.abs(wide).max(initial=0.0)) or 1.0)
    if difference > (2e-2 if due.dtype == np.float16 else _ROUNDING):
        raise VerificationError(f"output '{name}' of the module differs by {difference:.1e}; nothing was written")
    return difference
