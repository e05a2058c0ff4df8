"""The file of numbers that models are compared with: written by --update-baseline, kept beside the models."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr, ValidationError

from onnxprune.errors import UsageError
from onnxprune.support.files import staged_text
from onnxprune.support.messages import one_line

FORMAT: Literal[1] = 1
_ADVICE = "repair it, or delete it and write it again with --update-baseline"

Number = Annotated[StrictInt, Field(ge=0)]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LatencyEntry(_Entry):
    """The median of the runs in seconds, and how they were run."""

    seconds: Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
    provider: StrictStr
    threads: Number
    batch: Number
    sizes: dict[StrictStr, Number]


class MetricEntry(_Entry):
    """A metric's value, and on what."""

    name: StrictStr
    value: Annotated[float, Field(strict=True, allow_inf_nan=False)]
    on: dict[str, Any]


class BaselineEntry(_Entry):
    """Measurements of one model; `sha256` says of which file exactly, external data included."""

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    size: Number
    parameters: Number
    macs: Number | None = None
    latency: LatencyEntry | None = None
    metric: MetricEntry | None = None


class BaselineFile(_Entry):
    """The whole file: models by their path from the folder of the file."""

    format: Literal[1]
    models: dict[StrictStr, BaselineEntry]


def baseline_key(model: Path, file: Path) -> str:
    """The name of a model in a baseline file: the same wherever the two lie together."""
    return Path(os.path.relpath(model, file.parent)).as_posix()


def read_baseline(file: Path) -> dict[str, BaselineEntry]:
    """The entries of a baseline file. Raises UsageError for one that is missing, damaged or of another format."""
    try:
        document = json.loads(file.read_text(encoding="utf-8"), parse_constant=_refuse, object_pairs_hook=_unique)
    except OSError as error:
        raise UsageError(f"cannot read the baseline {file}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the baseline {file} is not JSON ({one_line(error)}); {_ADVICE}") from None
    found = document.get("format") if isinstance(document, dict) else None
    if type(found) is not int or found != FORMAT:
        raise UsageError(f"the baseline {file} has format {found}, this version reads format {FORMAT}; {_ADVICE}")
    try:
        return BaselineFile.model_validate(document).models
    except ValidationError as invalid:
        raise UsageError(f"the baseline {file} is damaged: {_first(invalid)}; {_ADVICE}") from None


def write_baseline(file: Path, entries: Mapping[str, BaselineEntry]) -> None:
    """Write the file, atomically; the same entries give the same bytes."""
    document = BaselineFile(format=FORMAT, models=dict(entries)).model_dump(exclude_none=True)
    with staged_text(json.dumps(document, indent=2, sort_keys=True) + "\n", file):
        pass


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not a number")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A merge that went wrong leaves keys twice; which of them counts would be a matter of luck."""
    if len({key for key, _ in pairs}) < len(pairs):
        raise ValueError("a key is in it twice")
    return dict(pairs)


def _first(invalid: ValidationError) -> str:
    error = invalid.errors()[0]
    place = " / ".join(str(part) for part in error["loc"]) or "the document"
    return f"{place}: {error['msg']}"
