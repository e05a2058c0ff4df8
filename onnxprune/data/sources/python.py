"""Data from a Python function: what fits nowhere else."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from onnxprune.data.base import Batch, Request, Start, source
from onnxprune.errors import DataError
from onnxprune.support.messages import did_you_mean, one_line

_SPEC = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def _recognizes(request: Request) -> bool:
    return _SPEC.fullmatch(request.spec) is not None and not request.path.exists()


@source(
    "python", "module:function, which yields input dictionaries or pairs of one and labels", _recognizes, batched=True
)
def open_python(request: Request) -> Start:
    """`module:function`, imported as from the current folder and called without arguments for every pass.

    It yields dictionaries of arrays by input name, or pairs of one and its labels; each is one batch, fed to the model
    as it is. It may instead return an object with `get_next()`, which gives such dictionaries and at last None, like
    the CalibrationDataReader of ONNX Runtime.

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
        raise DataError(f"{spec}: {module_name} cannot be imported: {_said(error)}") from error
    function = getattr(module, name, None)
    if not callable(function):
        found = "there is nothing of that name" if function is None else f"it is a {type(function).__name__}"
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        suggestion = did_you_mean(name, known) if known else ""
        raise DataError(f"{spec} is not a function: {found}{suggestion}")
    return function  # type: ignore[no-any-return]


def _pass(function: Callable[[], Any], request: Request) -> Iterator[Batch]:
    try:
        given = function()
        items = iter(given.get_next, None) if hasattr(given, "get_next") else iter(given)
    except (Exception, SystemExit) as error:
        raise DataError(f"{request.spec} cannot be called for data: {_said(error)}") from error
    while True:
        try:
            item = next(items)
        except StopIteration:
            return
        except (Exception, SystemExit) as error:
            raise DataError(f"{request.spec} failed: {_said(error)}") from error
        yield _batch(item, request)


def _batch(item: Any, request: Request) -> Batch:
    feed, labels = item if isinstance(item, tuple) and len(item) == 2 else (item, None)
    if not isinstance(feed, Mapping):
        wanted = "{'" + request.ports[0].name + "': array}"
        raise DataError(f"{request.spec} yields {type(feed).__name__}; expected {wanted}, or a pair of it and labels")
    arrays = {str(name): np.asarray(value) for name, value in feed.items()}
    return Batch(arrays, None if labels is None else np.atleast_1d(np.asarray(labels)))


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {one_line(error)}"
