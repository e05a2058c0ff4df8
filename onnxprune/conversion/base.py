"""The contract of sources: a network of another framework, and the exporters that can be tried on it.

A source is a file in `conversion/sources/`:

    @network_source("keras", package="keras", extra="keras")
    class Keras:
        def takes(given): ...                            # a path, or an object of the framework
        def open(given, example_inputs, options): ...    # -> Opened
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from onnxprune.errors import OnnxpruneError
from onnxprune.support.options import check_options, option
from onnxprune.support.registry import Registry

_LONGEST = 300  # characters of a reason

if TYPE_CHECKING:
    import onnx_ir as ir

    from onnxprune.model.signature import Feed


@dataclass(frozen=True)
class ExportOptions:
    """How a network is exported."""

    example: tuple[str, ...] = option(
        (),
        "An input that the network is tried on, by name, shape and element type; float32 where none is named.",
        metavar="NAME:2x3x224x224[:int64]",
    )
    dynamic: tuple[str, ...] = option(
        (),
        "Axes of an input whose size stays open, by name; by default the first of every input, as the batch. 'none': "
        "all sizes are fixed.",
        metavar="NAME:0=batch,2=h,3=w",
    )
    opset: int | None = option(None, "The version of ONNX's operators; by default the exporter's own.", low=9)
    keep_batchnorm: bool = option(
        False, "Leave BatchNormalization as nodes, for training; by default it becomes part of the layers."
    )
    weights: Path | None = option(
        None,
        "Weights for the network that SOURCE makes: a state dict, .pt, .pth or .safetensors. Never unpickled.",
        metavar="FILE",
    )
    exporter: str | None = option(
        None, "The only exporter to try, like dynamo; by default one after the other.", metavar="NAME"
    )
    hub: bool = option(False, "SOURCE may name a model of a hub, which is downloaded. Else nothing is.")

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True)
class Opened:
    """A network in its framework, ready to be exported and compared.

    Attributes:
        run: the network itself: inputs by name to the outputs, in the order of the ONNX file's.
        feeds: inputs to compare on; later ones have other sizes on dynamic axes.
        exporters: by name; each makes a model, or raises anything. They are tried in this order.
        notes: what a person should know.
        repeatable: it gives the same outputs again for the same inputs.
    """

    run: Callable[[Feed], list[Any]]
    feeds: tuple[Feed, ...]
    exporters: Mapping[str, Callable[[], ir.Model]]
    notes: tuple[str, ...] = ()
    repeatable: bool = True


class NetworkSource(Protocol):
    """A kind of source, in its file of `conversion/sources/`; its docstring's first line is what lists show."""

    @staticmethod
    def takes(given: Any) -> bool:
        """Is this source for what was given, a path or an object? Imports no framework."""

    @staticmethod
    def open(given: Any, example_inputs: Any, options: ExportOptions) -> Opened:
        """The network. Raises UsageError, ModelError or MissingExtraError with one line."""


EXPORT_SOURCES: Registry[str, type[NetworkSource]] = Registry(
    "source", "onnxprune.conversion.sources", "onnxprune.export_sources"
)


def network_source(name: str) -> Callable[[type[NetworkSource]], type[NetworkSource]]:
    """Decorator: make a kind of source known by name. Raises ValueError when the name is taken."""
    return EXPORT_SOURCES.register(name)


def is_made_of(given: Any, package: str, name: str) -> bool:
    """Is this an object of the class `name` of `package`, or of one derived from it? The package is not imported."""
    return any(kind.__name__ == name and kind.__module__.partition(".")[0] == package for kind in type(given).__mro__)


def is_network(given: Any) -> bool:
    """Is this an object of a framework that can be exported? Paths are not: they may be those of ONNX files."""
    if isinstance(given, str | bytes | Path):
        return False
    return any(EXPORT_SOURCES[name].takes(given) for name in EXPORT_SOURCES)


def has_suffix(given: Any, *suffixes: str) -> bool:
    """Is this a path that ends so?"""
    return isinstance(given, str | Path) and Path(given).suffix.lower() in suffixes


def cause_of(error: BaseException) -> str:
    """The innermost cause of an error, on one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = lines[0] if lines else ""
    kind = "" if isinstance(error, OnnxpruneError) else f"{type(error).__name__}: " if said else type(error).__name__
    return f"{kind}{said}"[:_LONGEST].rstrip(" .")
