"""Compare the quality of a smaller model with the original's: two files, samples, a table."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from onnxprune.evaluation.quality import Quality
from onnxprune.model.file import runnable
from onnxprune.pipeline.opening import open_and_inspect
from onnxprune.steps.base import Context
from onnxprune.steps.evaluate import Evaluate
from onnxprune.support.options import options_of
from onnxprune.support.progress import Progress, silent


def evaluate(
    original: Any, model: Any = None, *, data: Any = None, progress: Progress = silent, **options: Any
) -> Quality:
    """Compare the quality of a smaller model with the original's.

    Args:
        original: a path, an `onnx.ModelProto` or an `onnx_ir.Model`; it is only read.
        model: the smaller model; None: the original alone, for its metric on labelled data.
        data: samples that the model was not fitted to, see `load_data`; None: inputs are made up.
        progress: is called with what is being done.
        options: of the step `Evaluate` and of `Context`: measure, strict, metric, providers, threads, seed.

    Raises DamageError where `strict` is set and the model fell apart, UsageError for options that make no sense, and
    ModelError, DataError for models and data that do not fit each other.
    """
    known = {name: options.pop(name) for name in options_of(Evaluate) if name in options}
    step, context = Evaluate(**known), Context(**options, progress=progress)
    given = open_and_inspect(original, context, data).fed(context)
    context = replace(context, data=given.data)
    after = given.source if model is None else runnable(model)
    found = step.compare(given.source, given.source, after, given.analysis, context, alone=True)
    return found if model is not None else replace(found, scores=found.scores[:1])
