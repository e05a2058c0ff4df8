"""Prove that a pruned file is a model with the interface of the original: checker, shape inference, ONNX Runtime."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxprune.errors import ModelError, VerificationError
from onnxprune.evaluation.trial_inputs import TrialInputs, TrialMaker
from onnxprune.model.check import check_model
from onnxprune.model.file import as_model
from onnxprune.model.signature import Feed, Port, ports_in
from onnxprune.runtime.providers import CPU_ONLY
from onnxprune.runtime.session import Runnable, Session

Array = npt.NDArray[Any]

# What a message lists of what was tried.
_SHOWN = 3
# A result that is to equal the original may differ by rounding: this much in power, beside the original's own.
_ROUNDING = 1e-3


@dataclass(frozen=True)
class Trial:
    """One run of the original: the inputs, and what it answers."""

    feed: Feed
    results: dict[str, Any]


@dataclass(frozen=True)
class Original:
    """The interface of the original, and its answers.

    Attributes:
        model: the original.
        inputs: as ONNX Runtime reports them.
        outputs: likewise.
        trials: the first on the inputs that are likeliest to be meant, the others at other sizes of dynamic axes.
        providers: execution providers of ONNX Runtime that it ran on.
        unverified: why it does not run here; then there are no trials. Empty where it does.
        one_by_one: it takes one sample, but not several at a time, though it declares a dynamic batch.
    """

    model: Runnable
    inputs: tuple[Port, ...] = ()
    outputs: tuple[Port, ...] = ()
    trials: tuple[Trial, ...] = ()
    providers: Sequence[str] = CPU_ONLY
    unverified: str = ""
    one_by_one: bool = False


def run_original(model: Runnable, maker: TrialMaker, providers: Sequence[str] = CPU_ONLY) -> Original:
    """Load and run the original, on the first inputs that it takes and on some of other sizes.

    Raises ModelError when ONNX Runtime refuses the model, or all inputs that were tried.
    """
    try:
        session = Session(model, providers)
    except ModelError as refused:
        invalid = _refusal(model)
        if invalid is not None:
            raise ModelError(f"not a valid ONNX model, export it again: {invalid}") from refused
        raise ModelError(f"{_said(refused)}; {_WAY_OUT}") from refused
    first = _first(session, maker.first())
    others = [run for run in (_run(session, inputs) for inputs in maker.others(first.feed)) if run is not None]
    several = maker.several(first.feed)
    single = several is not None and not _ran(several.feed, others) and _run(session, several) is None
    ports = tuple(session.inputs), tuple(session.outputs)
    return Original(model, *ports, (first, *others), tuple(providers), one_by_one=single)


_WAY_OUT = "a result is checked by running both: make the model run here, or write with --unverified"


def _first(session: Session, candidates: Iterable[TrialInputs]) -> Trial:
    refusals: dict[str, list[str]] = {}
    for inputs in candidates:
        try:
            return Trial(inputs.feed, session.run(inputs.feed))
        except ModelError as refused:
            refusals.setdefault(_said(refused), []).append(inputs.said)
    more = f"; and {len(refusals) - _SHOWN} more" if len(refusals) > _SHOWN else ""
    listed = [f"{_listed(said)}: {why}" for why, said in refusals.items()]
    raise ModelError(
        f"the original refuses all inputs that were tried; give samples with --data, or sizes with --input-shape, or "
        f"write with --unverified. Tried: {'; '.join(listed[:_SHOWN])}{more}"
    )


def _listed(said: list[str]) -> str:
    """The inputs that were refused for one reason."""
    return ", ".join(said[:_SHOWN]) + (f" and {len(said) - _SHOWN} more" if len(said) > _SHOWN else "")


def _run(session: Session, inputs: TrialInputs) -> Trial | None:
    """None where the original refuses these sizes: then nobody can use them."""
    try:
        return Trial(inputs.feed, session.run(inputs.feed))
    except ModelError:
        return None


def _ran(feed: Feed, trials: Iterable[Trial]) -> bool:
    """Did one of them have inputs of these sizes?"""
    return any(all(trial.feed[name].shape == array.shape for name, array in feed.items()) for trial in trials)


def _said(refused: ModelError) -> str:
    return str(refused).rstrip(".")


def verify(path: Path, original: Original, *, same: bool = False) -> list[str]:
    """Check the file at `path` against the original; what is worth telling besides.

    Args:
        path: the file.
        original: see `run_original`.
        same: nothing was removed that matters, so outputs have to be those of the original, up to rounding.

    Raises VerificationError when the checker or ONNX Runtime refuse it, when the interface differs, when an output is
    not finite where the original's is, or not the `same`.
    """
    notes = []
    try:
        refusal = _refusal(path)
        if refusal is not None:
            if _refusal(original.model) is None:
                raise refusal
            notes.append(f"the onnx checker refuses the original too, so ONNX Runtime alone was asked ({refusal})")
        if original.unverified:
            return [*notes, *_unverified(path, original)]
        session = Session(path, original.providers)
        _compare_interfaces((original.inputs, original.outputs), (session.inputs, session.outputs))
        for trial in original.trials:
            outputs = session.run(trial.feed)
            fixed = same and _is_repeatable(original, trial)
            for name, array in trial.results.items():
                _compare(name, array, outputs[name], same=fixed)
    except ModelError as error:
        raise VerificationError(f"the pruned model is not valid, so nothing was written: {error}") from error
    return notes


def _is_repeatable(original: Original, trial: Trial) -> bool:
    """Does the original give the same numbers again? It does not where it draws some."""
    again = Session(original.model, original.providers).run(trial.feed)
    return all(
        np.array_equal(array, again[name], equal_nan=array.dtype.kind == "f")
        for name, array in trial.results.items()
        if isinstance(array, np.ndarray)
    )


def _refusal(model: Runnable) -> ModelError | None:
    """The checker's complaint about a model. Some forms of operators run everywhere and are refused all the same."""
    try:
        check_model(model)
    except ModelError as error:
        return error
    return None


def _unverified(path: Path, original: Original) -> Iterator[str]:
    """The checks that are left without running: the interface, as the files state it."""
    before, after = (as_model(model).graph for model in (original.model, path))
    _compare_interfaces(*((ports_in(graph.inputs), ports_in(graph.outputs)) for graph in (before, after)))
    yield f"written without being run, for the original does not run here; try it where it does ({original.unverified})"


Interface = tuple[Sequence[Port], Sequence[Port]]


def _compare_interfaces(original: Interface, pruned: Interface) -> None:
    for before, after in zip(original, pruned, strict=True):
        signature = [(port.name, port.type, len(port.shape)) for port in before]
        if [(port.name, port.type, len(port.shape)) for port in after] != signature:
            raise VerificationError("the pruned model has another interface than the original; nothing was written")


def _compare(name: str, before: Any, after: Any, *, same: bool) -> None:
    if not isinstance(before, np.ndarray):
        return
    if before.ndim != after.ndim or before.dtype != after.dtype:
        raise VerificationError(f"output '{name}' of the pruned model has another type; nothing was written")
    if before.dtype.kind != "f" or not np.isfinite(before).all():
        return
    if not np.isfinite(after).all():
        raise VerificationError(
            f"output '{name}' of the pruned model is not finite where the original's is; nothing was written. Remove "
            "less, or give --data to recover with"
        )
    if same and not equal_up_to_rounding(before, after):
        raise VerificationError(
            f"output '{name}' of the result differs from the original's though nothing was to change; nothing was "
            "written. This is a bug, please report it"
        )


def equal_up_to_rounding(before: Array, after: Array, share: float = _ROUNDING) -> bool:
    """Is the power of the difference of two arrays at most this share of that of the first?"""
    if before.shape != after.shape:
        return False
    before, after = before.astype(np.float64), after.astype(np.float64)
    return bool(np.square(before - after).sum() <= share * np.square(before).sum() + before.size * 1e-12)
