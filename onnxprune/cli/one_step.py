"""Commands that run one step on one model, and write what comes of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onnxprune.cli.base import Presentation
from onnxprune.cli.options import given, tell_missing
from onnxprune.data.options import DataOptions
from onnxprune.steps.base import Context
from onnxprune.steps.evaluate import Evaluate


def run_one_step(
    name: str,
    model: Path,
    target: tuple[Path | None, str],
    shown: Presentation,
    options: dict[str, Any],
    settings: Mapping[str, Any],
    evaluation: str | None,
) -> None:
    """Run a function of the package on a model, write the result and print it.

    Args:
        name: of the function, like "quantize".
        model: the file.
        target: where to write, as it was asked for, and the word that names results otherwise.
        shown: how the result is printed.
        options: of the command: those of the data, of `Evaluate` and of `Context` are taken from there.
        settings: options of the step.
        evaluation: samples that the result is compared on.
    """
    with shown.progress() as progress:
        import onnxprune
        from onnxprune.pipeline.result import output_path
        from onnxprune.support.files import check_targets

        path = output_path(model, *target)
        check_targets([model], path)
        shown.check([model], path)
        settings = {**settings, **given(options, Evaluate, Context)}
        tell_missing(settings)
        data = DataOptions.from_command(options)
        data.check_alone()
        samples = {"data": data if data.data else None, "evaluation": data.beside(evaluation)}
        result = getattr(onnxprune, name)(model, progress=progress, **samples, **settings)
        result.save(path, progress=progress)
    shown.tell_result(result, model, path)
