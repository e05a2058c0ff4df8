"""Export a network to ONNX: open it in its framework, and try its exporters until one gives the same outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir

from onnxprune.conversion.base import EXPORT_SOURCES, ExportOptions, NetworkSource, Opened, cause_of
from onnxprune.conversion.compare import OutputCheck, compared
from onnxprune.errors import ModelError, OnnxpruneError, UsageError, WrongTypeError
from onnxprune.model.file import save, to_proto
from onnxprune.passes.fold_batchnorm import FoldBatchNorm
from onnxprune.passes.strip_metadata import StripMetadata
from onnxprune.support.messages import did_you_mean
from onnxprune.support.progress import Progress, silent
from onnxprune.support.registry import imported_function


@dataclass(frozen=True)
class Exported:
    """A network as ONNX.

    Attributes:
        model: in memory, with its weights.
        exporter: the one that made it.
        checks: how far its outputs are from those of the network, per set of inputs.
        notes: what a person should know, like why other exporters failed.
    """

    model: ir.Model
    exporter: str
    checks: tuple[OutputCheck, ...]
    notes: tuple[str, ...] = ()

    @property
    def proto(self) -> onnx.ModelProto:
        """The model as a message of onnx. Raises ModelError above 2 GB."""
        return to_proto(self.model)

    def save(self, path: str | Path) -> None:
        """Write the model to `path`, atomically. Raises UsageError, ModelError where it cannot be written."""
        save(self.model, path)

    def __repr__(self) -> str:
        inputs = ", ".join(str(value.name) for value in self.model.graph.inputs)
        return f"Exported(inputs={inputs}, exporter={self.exporter}, compared={len(self.checks)})"


def export(
    source: Any,
    example_inputs: Any = None,
    *,
    dynamic: str | list[str] | Mapping[str, Mapping[int, str]] | None = None,
    progress: Progress = silent,
    **options: Any,
) -> Exported:
    """Export a network to ONNX, with its parameters' names, and check it against the network.

        export(net, torch.randn(2, 3, 32, 32), dynamic={"images": {0: "batch"}}).save("net.onnx")

    Args:
        source: a `torch.nn.Module`, a Keras model, a scikit-learn estimator; a path (`.pt2`, `.keras`, a SavedModel, a
            folder of transformers or timm); or `package.module:function`, which returns one of these, or a pair of it
            and example inputs.
        example_inputs: a tensor, a tuple of the positional arguments, or a dict of keyword arguments.
        dynamic: axes whose size stays open, as `{"images": {0: "batch"}}` or `"images:0=batch"`; None: the first axis
            of every input, as the batch, where the network takes several sizes of it.
        progress: is called with what is being done.
        options: those of `ExportOptions`.

    Raises UsageError for a request that makes no sense, MissingExtraError where the framework is not installed, and
    ModelError with the reason of each exporter where none gives the network's outputs.
    """
    settings = ExportOptions(**options, dynamic=() if dynamic is None else _as_texts(dynamic))
    kind = _kind(source)
    if kind is None and isinstance(source, str) and ":" in source and not Path(source).exists():
        progress("importing")
        source, made = _called(source)
        example_inputs = made if example_inputs is None else example_inputs
        kind = _kind(source)
    if kind is None:
        raise _unknown(source)
    progress("opening the network")
    return _first_that_fits(kind.open(source, example_inputs, settings), settings, progress)


def _kind(source: Any) -> type[NetworkSource] | None:
    return next((each for each in map(EXPORT_SOURCES.__getitem__, EXPORT_SOURCES) if each.takes(source)), None)


def _as_texts(dynamic: str | list[str] | Mapping[str, Mapping[int, str]]) -> Any:
    """`{"images": {0: "batch"}}` as the command line writes it."""
    if not isinstance(dynamic, Mapping):
        return dynamic
    if not all(isinstance(axes, Mapping) for axes in dynamic.values()):
        raise WrongTypeError("dynamic is a table of axes per input, like {'images': {0: 'batch'}}")
    return [f"{name}:{','.join(f'{axis}={said}' for axis, said in axes.items())}" for name, axes in dynamic.items()]


def _called(spec: str) -> tuple[Any, Any]:
    """The result of a user's function: a network, with example inputs or None."""
    try:
        made = imported_function(spec)()
    except OnnxpruneError:
        raise
    except Exception as error:  # whatever the user's function raises
        raise UsageError(f"{spec} fails: {cause_of(error)}") from error
    if isinstance(made, tuple):
        if len(made) != 2:
            raise UsageError(f"{spec} returns {len(made)} values; it is to return a network, or it and example inputs")
        return made
    return made, None


def _unknown(source: Any) -> UsageError:
    if isinstance(source, str | Path) and not Path(source).exists():
        return UsageError(
            f"{source} does not exist; give a file, a folder, or a function that makes the network: package.net:make"
        )
    if isinstance(source, str | Path):
        return UsageError(f"{source} is not a network that can be exported; there are: {', '.join(EXPORT_SOURCES)}")
    return WrongTypeError(
        f"a network to export is a module of torch, Keras or scikit-learn, not {type(source).__name__}"
    )


def _first_that_fits(opened: Opened, settings: ExportOptions, progress: Progress) -> Exported:
    """Raises ModelError with the reason of every exporter."""
    known, only = opened.exporters, settings.exporter
    if only is not None and only not in known:
        raise UsageError(f"unknown exporter '{only}'{did_you_mean(only, known)}")
    failed: list[str] = []
    for name in known if only is None else [only]:
        try:
            progress(f"exporting with {name}")
            model = _cleaned(known[name](), settings)
            progress("comparing with the network")
            return Exported(model, name, compared(model, opened), (*opened.notes, *failed))
        except Exception as error:  # whatever an exporter raises: the next one is tried
            failed.append(f"{name} failed: {cause_of(error)}")
    raise ModelError("; ".join(failed))


def _cleaned(model: ir.Model, settings: ExportOptions) -> ir.Model:
    """Without traces of the machine that it was made on. Raises ModelError for another opset than was asked for."""
    if settings.opset is not None and model.opset_imports.get("") != settings.opset:
        raise ModelError(f"it writes opset {model.opset_imports.get('')}, not {settings.opset}")
    if not settings.keep_batchnorm:
        FoldBatchNorm()(model)
    StripMetadata()(model)
    model.graph.metadata_props.clear()
    model.doc_string = None
    return model
