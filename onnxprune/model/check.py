"""The onnx checker on a model, and what it overlooks."""

from __future__ import annotations

import os
from pathlib import Path

import onnx

from onnxprune.errors import ModelError
from onnxprune.model.file import Given, as_model, data_files, name_of, on_disk, open_model
from onnxprune.support.messages import one_line


def check_references(given: Given) -> None:
    """Raises ModelError where a node of the graph takes an attribute from a function around it: there is none, and the
    checker does not say so.
    """
    for node in as_model(given).graph:
        if any(attribute.is_ref() for attribute in node.attributes.values()):
            raise ModelError(f"{_short(given)}: node '{node.name}' refers to an attribute of a function")


def check_model(given: Given) -> None:
    """The onnx checker with strict shape inference. Raises ModelError with its first line."""
    try:
        with on_disk(_without_links(given)) as path:
            onnx.checker.check_model(str(path), full_check=True)
    except Exception as error:
        raise ModelError(f"{_short(given)}: {one_line(error)}") from error


def _without_links(given: Given) -> Given:
    """The form for the checker: it refuses data files that are links or have several, as caches of downloads have."""
    if not isinstance(given, str | os.PathLike):
        return given
    folder = Path(given).parent.resolve()
    linked = any(file.stat().st_nlink > 1 or file.parent != folder for file in data_files(given))
    return open_model(given) if linked else given


def _short(given: Given) -> str:
    return Path(given).name if isinstance(given, str | os.PathLike) else name_of(given)
