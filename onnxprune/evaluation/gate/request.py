"""What is asked of models: from the command line, from `[tool.onnxprune.gate]`, or from both."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import onnx_ir as ir
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    PrivateAttr,
    StrictBool,
    StrictInt,
    StrictStr,
    ValidationError,
)

from onnxprune.errors import UsageError
from onnxprune.evaluation.gate.budgets.base import BUDGETS
from onnxprune.model.signature import given_sizes, ports_of
from onnxprune.support.messages import did_you_mean, one_line

_PLACES = (("onnxprune.toml", ("gate",)), ("pyproject.toml", ("tool", "onnxprune", "gate")))


def _listed(value: Any) -> Any:
    """`a, b` is as good as ["a", "b"]."""
    if isinstance(value, str):
        return tuple(entry.strip() for entry in value.split(",") if entry.strip())
    return tuple(value) if isinstance(value, list) else value


def _sides(value: Any) -> int | tuple[int, int]:
    """A size of images: one number, or height and width."""
    sides = [value] if isinstance(value, int) else list(value) if isinstance(value, list | tuple) else []
    if len(sides) not in (1, 2) or not all(type(side) is int and side > 0 for side in sides):
        raise ValueError(f"expected a size like 256, or [224, 288], not {value!r}")
    return int(sides[0]) if len(sides) == 1 else (int(sides[0]), int(sides[1]))


Texts = Annotated[tuple[StrictStr, ...], BeforeValidator(_listed)]
Real = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Count = Annotated[StrictInt, Field(ge=1)]
Reals = Annotated[tuple[Real, ...], BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)]
Sides = Annotated[int | tuple[int, int], PlainValidator(_sides)]


class GateData(BaseModel):
    """The data that metrics are taken on; the fields are the options of every command with --data."""

    data: StrictStr | None = None
    labels: StrictStr | None = None
    samples: Count | None = None
    batch: Count | None = None
    resize: Sides | None = None
    crop: Sides | None = None
    scale: Real | None = None
    mean: Reals | None = None
    std: Reals | None = None
    layout: StrictStr | None = None
    channel_order: StrictStr | None = None
    tokenizer: Path | None = None


class GateRequest(GateData):
    """Models, budgets (by name, see `budgets.base.BUDGETS`), and how to measure.

    Attributes:
        models: paths and globs.
        baseline: a JSON file written with --update-baseline, or the model to compare with.
        metric: name or `module:function` (None: see `metrics.metric`).
        output_name: the output that the metric looks at (None: the first of floats).
        providers: execution providers by preference; latency is measured on the first.
        threads: of one operator, while latency is measured; 0 lets ONNX Runtime decide.
        latency_batch: samples at a time while latency is measured.
        latency_seconds: to measure each model for.
        input_shape: sizes of dynamic axes, like `images:1x3x224x224`.
        custom_ops: libraries of operators that ONNX Runtime loads.
        seed: of made-up inputs.
        update_baseline: write what was found, if all budgets hold.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        arbitrary_types_allowed=True,
        validate_by_name=True,
        alias_generator=lambda name: name.replace("_", "-"),
    )

    models: Texts = ()
    baseline: Path | None = None
    metric: StrictStr | None = None
    output_name: StrictStr | None = None
    providers: Texts = ("cpu",)
    threads: Annotated[StrictInt, Field(ge=0)] = 1
    latency_batch: Count = 1
    latency_seconds: Annotated[Real, Field(gt=0)] = 2.0
    input_shape: Texts = ()
    custom_ops: Texts = ()
    seed: Annotated[StrictInt, Field(ge=0)] = 0
    update_baseline: StrictBool = False
    _budgets: Mapping[str, Any] = PrivateAttr(default_factory=dict)

    @property
    def budgets(self) -> Mapping[str, Any]:
        """The limits that are asked for, by the name of the budget."""
        return self._budgets

    @property
    def data_options(self) -> dict[str, Any]:
        """Keyword arguments for `cli.data_options.data_from`."""
        return {name: getattr(self, name) for name in GateData.model_fields}

    def sizes(self, model: ir.Model) -> dict[str, int]:
        """The sizes of dynamic axes that were asked for, see `given_sizes`."""
        return given_sizes(self.input_shape, ports_of(model))


def load_request(given: Mapping[str, Any], config: Path | None = None, folder: Path = Path()) -> GateRequest:
    """What was given, over what a configuration says.

    Args:
        given: options by name; what is None or an empty tuple was not given.
        config: a TOML file (None: `onnxprune.toml` or `pyproject.toml` in the folder, where they speak of the gate).
        folder: where to look.

    Raises UsageError for a file that cannot be read, an unknown key and a value that makes no sense, and where there is
    no model or nothing that it has to keep.
    """
    source, table = _configured(config, folder)
    options = {name: value for name, value in given.items() if value is not None and value != ()}
    _validated(table, source)  # on its own first, so that the file is blamed for what stands in it
    request = _validated({**table, **{name.replace("_", "-"): value for name, value in options.items()}}, "gate")
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


def _validated(table: Mapping[str, Any], source: str) -> GateRequest:
    """What a table of options asks for: the budgets by themselves, the rest as the fields of a request."""
    asked = {name: table[name] for name in BUDGETS if table.get(name) is not None}
    limits = {name: _limit(name, value, source) for name, value in asked.items()}
    try:
        request = GateRequest.model_validate({name: value for name, value in table.items() if name not in BUDGETS})
    except ValidationError as invalid:
        raise UsageError(f"{source}: {first_error(invalid)}") from None
    request._budgets = limits
    return request


def _limit(name: str, value: Any, source: str) -> Any:
    try:
        return BUDGETS[name].read(value)
    except ValueError as error:
        raise UsageError(f"{source}: {name}: {error}") from None


def first_error(invalid: ValidationError) -> str:
    """The first of pydantic's errors on one line: where, what was found, what is expected."""
    error = invalid.errors()[0]
    place = ".".join(str(part) for part in error["loc"][:1])
    if error["type"] == "extra_forbidden":
        known = [*(str(field.alias) for field in GateRequest.model_fields.values()), *BUDGETS]
        return f"unknown key '{place}'{did_you_mean(place, known)}"
    said = error["msg"].removeprefix("Value error, ")
    found = "" if error["type"] == "value_error" else f", not {error['input']!r}"
    return f"{place}: {said[0].lower()}{said[1:]}{found}"
