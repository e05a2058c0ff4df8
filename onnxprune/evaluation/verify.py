"""Prove that a pruned file is a model with the interface of the original: checker, shape inference, ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onnxprune.errors import ModelError, VerificationError
from onnxprune.model.file import check_model
from onnxprune.model.signature import Feed, Port, synthetic_feed
from onnxprune.runtime.session import Runnable, Session


@dataclass(frozen=True)
class Original:
    """What the original looks like from outside, and what it answers to one input."""

    model: Runnable
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    feed: Feed
    results: dict[str, Any]


def run_original(model: Runnable, sizes: Mapping[str, int], seed: int = 0) -> Original:
    """Load and run the original once. Raises ModelError when ONNX Runtime refuses it.

    Symbolic axes are tried at size 1 for the batch and as given otherwise, then all as given.
    """
    try:
        session = Session(model)
        one = {port.batch_symbol: 1 for port in session.inputs if port.batch_symbol is not None}
        try:
            return _answer(model, session, {**sizes, **one}, seed)
        except ModelError:
            return _answer(model, session, sizes, seed)
    except ModelError as refused:
        reason = str(refused).rstrip(".")
        raise ModelError(f"{reason}; make the model run there first, a result is checked by running both") from refused


def _answer(model: Runnable, session: Session, sizes: Mapping[str, int], seed: int) -> Original:
    feed = synthetic_feed(session.inputs, sizes, seed)
    return Original(model, tuple(session.inputs), tuple(session.outputs), feed, session.run(feed))


def verify(path: Path, original: Original) -> list[str]:
    """Check the file at `path` against the original; what is worth telling besides.

    Raises VerificationError when the checker or ONNX Runtime refuse it, when the interface differs, or when an output
    is not finite where the original's is.
    """
    notes = []
    try:
        refusal = _refusal(path)
        if refusal is not None:
            if _refusal(original.model) is None:
                raise refusal
            notes.append(f"the onnx checker refuses the original too, so ONNX Runtime alone was asked ({refusal})")
        session = Session(path)
        _compare_interfaces(original, session)
        outputs = session.run(original.feed)
    except ModelError as error:
        raise VerificationError(f"the pruned model is not valid, so nothing was written: {error}") from error
    for name, array in original.results.items():
        _compare(name, array, outputs[name])
    return notes


def _refusal(model: Runnable) -> ModelError | None:
    """What the checker has against a model. Some forms of operators run everywhere and are refused all the same."""
    try:
        check_model(model)
    except ModelError as error:
        return error
    return None


def _compare_interfaces(original: Original, pruned: Session) -> None:
    for before, after in ((original.inputs, pruned.inputs), (original.outputs, pruned.outputs)):
        signature = [(port.name, port.type, len(port.shape)) for port in before]
        if [(port.name, port.type, len(port.shape)) for port in after] != signature:
            raise VerificationError("the pruned model has another interface than the original; nothing was written")


def _compare(name: str, before: Any, after: Any) -> None:
    if not isinstance(before, np.ndarray):
        return
    if before.ndim != after.ndim or before.dtype != after.dtype:
        raise VerificationError(f"output '{name}' of the pruned model has another type; nothing was written")
    if before.dtype.kind == "f" and np.isfinite(before).all() and not np.isfinite(after).all():
        raise VerificationError(f"output '{name}' of the pruned model is not finite; nothing was written")
