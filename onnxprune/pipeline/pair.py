"""Two models that share a width, an encoder and a decoder in files of their own: compressed together."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxprune.dims import keep_mask
from onnxprune.errors import ModelError, UsageError, VerificationError
from onnxprune.evaluation.verify import Trial, equal_up_to_rounding
from onnxprune.model.check import check_model
from onnxprune.model.file import Given, staged
from onnxprune.model.joining import Joined, join, part_of
from onnxprune.pipeline.recipe import Recipe
from onnxprune.pipeline.result import Report, Result
from onnxprune.pipeline.run import run
from onnxprune.runtime.session import Session
from onnxprune.support.files import check_targets
from onnxprune.support.progress import Progress, silent

# The two files compute what the joined model does, in an order that ONNX Runtime may choose anew.
_ROUNDING = 1e-6  # of their power: a thousandth in size


@dataclass(frozen=True)
class Pair:
    """Two models that were compressed as one.

    Attributes:
        joined: how they were joined.
        result: what became of the joined model; its report is about both together.
        sources: the files that they came from, where they did.
    """

    joined: Joined
    result: Result
    sources: tuple[Path, ...] = ()

    @property
    def report(self) -> Report:
        """The numbers of both together."""
        return self.result.report

    @property
    def models(self) -> tuple[ir.Model, ir.Model]:
        """The two models, with the names of their files."""
        before, left = self.result.before, self.result.state.left
        sizes = {name: [int(keep_mask(dim, left).sum()) for dim in before.dims[name]] for name in self.joined.tied}
        first, second = (
            part_of(self.result.model, self.joined, side, sizes) for side in (self.joined.first, self.joined.second)
        )
        return first, second

    def save(self, first: str | Path, second: str | Path, *, progress: Progress = silent) -> Report:
        """Write both files, or none.

        The joined model is checked as `Result.save` does it; then the first file is run and the second on what it
        gives, and both together must give what the joined model gives. Raises as `Result.save`.
        """
        for path in (first, second):
            check_targets(self.sources, path)
        if Path(first).absolute() == Path(second).absolute():
            raise UsageError(f"{first} is named for both models; name another file for one of them")
        with tempfile.TemporaryDirectory(prefix="onnxprune.") as folder:
            whole = Path(folder) / "joined.onnx"
            report = self.result.save(whole, progress=progress)
            one, two = self.models
            with staged(one, first) as left, staged(two, second) as right:
                self._check(whole, left, right)
        return report

    def _check(self, whole: Path, left: Path, right: Path) -> None:
        try:
            for path in (left, right):
                check_model(path)
            if self.result.original.unverified:
                return
            sessions = [Session(path, self.result.original.providers) for path in (whole, left, right)]
            for trial in self.result.original.trials:
                self._compare(trial, *sessions)
        except ModelError as error:
            raise VerificationError(f"the two models are not valid, so nothing was written: {error}") from error

    def _compare(self, trial: Trial, whole: Session, left: Session, right: Session) -> None:
        """Both files, one after the other, on the inputs of a trial."""
        seen = dict(trial.feed)
        for side, session in ((self.joined.first, left), (self.joined.second, right)):
            made = session.run({own: seen[name] for name, own in side.inputs.items()})
            seen.update({name: made[own] for name, own in side.outputs.items()})
        for name, due in whole.run(trial.feed).items():
            if (
                isinstance(due, np.ndarray)
                and due.dtype.kind == "f"
                and not equal_up_to_rounding(due, seen[name], _ROUNDING)
            ):
                raise VerificationError(
                    f"output '{name}' of the two files differs from that of both together; nothing was written. This "
                    "is a bug, please report it"
                )


def compress_pair(
    first: Given,
    second: Given,
    tie: Mapping[str, str] | Iterable[str] | str,
    *,
    data: Any = None,
    progress: Progress = silent,
    **options: Any,
) -> Pair:
    """Compress two models together, of which the second takes what the first gives.

        pair = compress_pair("encoder.onnx", "decoder.onnx", "hidden=memory", ratio=0.5, data="samples.npz")
        pair.save("encoder.small.onnx", "decoder.small.onnx")

    The value between them is an inner one: its width shrinks in both files, and each layer of either is fitted to what
    it gave in the original.

    Args:
        first: the model that runs first, as for `compress`.
        second: the model that takes what it gives.
        tie: which output of the first goes into which input of the second: `{"hidden": "memory"}` or "hidden=memory".
            An input of the first may be tied, too, where both take the same.
        data: samples with the inputs of both. Where both have inputs of one name that are not tied, that of the second
            is called like its file, `decoder.input_ids`.
        progress: is called with what is being done.
        options: as for `compress`.

    Raises as `compress`, UsageError for models that cannot be joined.
    """
    return run_pair(Recipe.of_options(options), first, second, tie, data=data, progress=progress)


def run_pair(
    recipe: Recipe,
    first: Given,
    second: Given,
    tie: Mapping[str, str] | Iterable[str] | str,
    *,
    progress: Progress = silent,
    **given: Any,
) -> Pair:
    """The same with a recipe; `given` is further what `run` takes: data and settings of the context."""
    joined = join(first, second, tie if isinstance(tie, Mapping) else ties_of([tie] if isinstance(tie, str) else tie))
    sources = tuple(Path(each) for each in (first, second) if isinstance(each, str | Path))
    return Pair(joined, run(recipe, joined.model, progress=progress, **given), sources)


def ties_of(texts: Iterable[str]) -> dict[str, str]:
    """From texts like `hidden=memory`. Raises UsageError for others."""
    found: dict[str, str] = {}
    for text in texts:
        name, equals, entry = (part.strip() for part in text.partition("="))
        if not equals or not name or not entry:
            raise UsageError(f"--tie '{text}' is not an output of the first model and an input of the second: out=in")
        if name in found or entry in found.values():
            raise UsageError(f"--tie '{text}': each output goes into one input, and each input takes one output")
        found[name] = entry
    return found
