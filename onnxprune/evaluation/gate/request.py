"""Demands on models: from the command line, from `[tool.onnxprune.gate]`, or from both."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxprune.data.options import DataOptions
from onnxprune.errors import UsageError
from onnxprune.evaluation.gate.budgets.base import BUDGETS
from onnxprune.evaluation.options import MeasureOptions
from onnxprune.support.messages import did_you_mean, one_line
from onnxprune.support.options import option, options_of

if TYPE_CHECKING:
    import onnx_ir as ir

    from onnxprune.data.base import Data

_PLACES = (("onnxprune.toml", ("gate",)), ("pyproject.toml", ("tool", "onnxprune", "gate")))


@dataclass(frozen=True)
class GateRequest(DataOptions, MeasureOptions):
    """Models, budgets, and how to measure. The options are those of the command line and keys of a configuration.

    Attributes:
        budgets: the limits that are asked for, by the name of the budget.
    """

    models: tuple[str, ...] = option((), "Files and globs.")
    baseline: Path | None = option(None, "A model, or a .json file of numbers to compare with.", metavar="PATH")
    update_baseline: bool = option(False, "Write the numbers, if all budgets hold.")
    output_name: str | None = option(None, "The output for the metric; by default the first of floats.", metavar="NAME")
    latency_seconds: float = option(
        2.0, "For latency: how long to measure each model.", low=0.001, unit="seconds", metavar="SECONDS"
    )
    budgets: Mapping[str, Any] = field(default_factory=dict)

    @property
    def measured_on(self) -> dict[str, Any]:
        """Everything that a metric depends on beside the model."""
        given = {**{name: getattr(self, name) for name in options_of(DataOptions)}, "output": self.output_name}
        return {name: str(value) for name, value in given.items() if value not in (None, ())}

    def data_of(self, model: ir.Model) -> Data | None:
        """The samples for a model; None where none are named. Raises DataError for those that do not fit."""
        return self.open(lambda: model, self.seed, self.sizes(model))


def load_request(given: Mapping[str, Any], config: Path | None = None, folder: Path = Path()) -> GateRequest:
    """The options that were given, over those of a configuration.

    Args:
        given: options by name; what is None or an empty tuple was not given.
        config: a TOML file (None: `onnxprune.toml` or `pyproject.toml` in the folder, where they speak of the gate).
        folder: where to look.

    Raises UsageError for a file that cannot be read, an unknown key and a value that makes no sense, and where there is
    no model or nothing that it has to keep.
    """
    source, table = _configured(config, folder)
    options = {name: value for name, value in given.items() if value is not None and value != ()}
    _request(table, source)  # on its own first, so that the file is blamed for what is in it
    request = _request({**table, **{name.replace("_", "-"): value for name, value in options.items()}}, "gate")
    if not request.models:
        raise UsageError("no model is given: name files or globs, or set models in [tool.onnxprune.gate]")
    if not request.budgets and not request.update_baseline:
        raise UsageError("no budget is given, so nothing can be broken: add one, like --max-size 5MB")
    if request.update_baseline and (request.baseline is None or not is_baseline_file(request.baseline)):
        raise UsageError("--update-baseline writes a file: name it with --baseline FILE.json")
    return request


def is_baseline_file(path: Path) -> bool:
    """A file of numbers, rather than a model."""
    return path.suffix == ".json"


def _configured(config: Path | None, folder: Path) -> tuple[str, dict[str, Any]]:
    """The table for the gate and the name of its file; empty where there is none."""
    places = [(folder / name, keys) for name, keys in _PLACES]
    if config is not None:
        keys = ("tool", "onnxprune", "gate") if config.name == "pyproject.toml" else ("gate",)
        places = [(config, keys)]
    for path, keys in places:
        if config is None and not path.is_file():
            continue
        table: Any = _read(path)
        for key in keys:
            table = table.get(key) if isinstance(table, dict) else None
        if isinstance(table, dict):
            return str(path), {name.replace("_", "-"): value for name, value in table.items()}
        if config is not None or table is not None:
            raise UsageError(f"{path} has no table [{'.'.join(keys)}]; add it, or give budgets as options")
    return "", {}


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not TOML: {one_line(error)}") from None


def _request(table: Mapping[str, Any], source: str) -> GateRequest:
    """The demands of a table: budgets, and options by their names with dashes. Raises UsageError, with the source."""
    asked = {name: value for name, value in table.items() if value is not None}
    limits = {name: _limit(name, asked.pop(name), source) for name in BUDGETS if name in asked}
    known = {each.replace("_", "-"): each for each in options_of(GateRequest)}
    for name in asked:
        if name not in known:
            raise UsageError(f"{source}: unknown key '{name}'{did_you_mean(name, [*known, *BUDGETS])}")
    try:
        return GateRequest(**{known[name]: _listed(known[name], asked[name]) for name in asked}, budgets=limits)
    except UsageError as error:
        raise UsageError(f"{source}: {error}") from None


def _listed(name: str, value: Any) -> Any:
    """`a, b` is as good as ["a", "b"]."""
    if isinstance(value, str) and options_of(GateRequest)[name].many:
        return [entry.strip() for entry in value.split(",") if entry.strip()]
    return value


def _limit(name: str, value: Any, source: str) -> Any:
    try:
        return BUDGETS[name].read(value)
    except ValueError as error:
        raise UsageError(f"{source}: {name}: {error}") from None
