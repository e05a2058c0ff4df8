"""Prove that a pruned file is a model with the interface of the original: checker, shape inference, ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from onnxprune.errors import ModelError, VerificationError
from onnxprune.model import check
from onnxprune.runtime.ort import Feed, Session, synthetic_feed


def run_original(path: Path, sizes: Mapping[str, int], seed: int = 0) -> tuple[Session, Feed, dict[str, Any]]:
    """Load and run the original once. Raises ModelError when ONNX Runtime refuses it.

    Symbolic axes are tried at size 1 for the batch and as given otherwise, then all as given.
    """
    session = Session(path)
    symbols = {axis[0] for port in session.inputs for axis in [port.shape[:1]] if axis and not isinstance(axis[0], int)}
    firsts = {symbol or f"{port.name}[0]" for port in session.inputs for symbol in port.shape[:1] if symbol in symbols}
    error: ModelError | None = None
    for attempt in ({**sizes, **dict.fromkeys(map(str, firsts), 1)}, dict(sizes)):
        feed = synthetic_feed(session.inputs, attempt, seed)
        try:
            return session, feed, session.run(feed)
        except ModelError as refused:
            error = refused
    assert error is not None
    raise error


def verify(path: Path, original: Session, feed: Feed, expected: Mapping[str, Any]) -> dict[str, Any]:
    """Check the file at `path` against the original; the outputs of the pruned model on `feed`.

    Raises VerificationError when the checker or ONNX Runtime refuse it, when the interface differs, or when an output
    is not finite where the original's is.
    """
    try:
        check(path)
        session = Session(path)
        outputs = session.run(feed)
    except ModelError as error:
        raise VerificationError(f"the pruned model is not valid, so nothing was written: {error}") from error
    for before, after in ((original.inputs, session.inputs), (original.outputs, session.outputs)):
        signature = [(port.name, port.type, len(port.shape)) for port in before]
        if [(port.name, port.type, len(port.shape)) for port in after] != signature:
            raise VerificationError("the pruned model has another interface than the original; nothing was written")
    for name, array in expected.items():
        _compare(name, array, outputs[name])
    return outputs


def _compare(name: str, before: Any, after: Any) -> None:
    if not isinstance(before, np.ndarray):
        return
    if before.ndim != after.ndim or before.dtype != after.dtype:
        raise VerificationError(f"output '{name}' of the pruned model has another type; nothing was written")
    if before.dtype.kind == "f" and np.isfinite(before).all() and not np.isfinite(after).all():
        raise VerificationError(f"output '{name}' of the pruned model is not finite; nothing was written")
