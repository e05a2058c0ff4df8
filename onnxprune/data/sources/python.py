"""Data from a Python function: what fits nowhere else."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from onnxprune.data.base import Batch, SampleRequest, SourceSample, Start, source
from onnxprune.data.items import batches_of, iterator, said
from onnxprune.errors import DataError
from onnxprune.model.signature import Port
from onnxprune.support.messages import did_you_mean

_SPEC = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def _recognizes(request: SampleRequest) -> bool:
    return _SPEC.fullmatch(request.spec) is not None and not request.path.exists()


def _sample(folder: Path) -> SourceSample:
    lines = [
        "import numpy as np",
        "",
        "def rows():",
        "    for i in range(7):",
        "        yield {'x': np.full((1, 3), i, np.float32)}",
    ]
    (folder / "seven_rows.py").write_text("\n".join(lines))
    return SourceSample("seven_rows:rows", (Port("x", "tensor(float)", ("batch", 3)),))


@source(
    "python",
    "module:function, which yields input dictionaries or pairs of one and labels",
    _recognizes,
    sample=_sample,
    batched=True,
)
def open_python(request: SampleRequest) -> Start:
    """`module:function`, imported as from the current folder and called without arguments for every pass.

    It yields dictionaries of arrays by input name, or pairs of one and its labels; each is one batch, fed to the model
    as it is, or one sample. It may instead return an object with `get_next()`, which gives such dictionaries and at
    last None, like the CalibrationDataReader of ONNX Runtime. Arrays and tensors without names do too, see `items`.

    Raises DataError for a function that cannot be imported, for what it raises, and for anything else that it yields.
    """
    function = _imported(request.spec)
    return lambda: _pass(function, request)


def _imported(spec: str) -> Callable[[], Any]:
    module_name, _, name = spec.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # whatever the user's module raises
        raise DataError(f"{spec}: {module_name} cannot be imported: {said(error)}") from error
    function = getattr(module, name, None)
    if not callable(function):
        found = "there is nothing of that name" if function is None else f"it is a {type(function).__name__}"
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        suggestion = did_you_mean(name, known) if known else ""
        raise DataError(f"{spec} is not a function: {found}{suggestion}")
    return function  # type: ignore[no-any-return]


def _pass(function: Callable[[], Any], request: SampleRequest) -> Iterator[Batch]:
    try:
        items = iterator(function())
    except (Exception, SystemExit) as error:
        raise DataError(f"{request.spec} cannot be called for data: {said(error)}") from error
    yield from batches_of(items, request)
