"""The harm that a cut does to the outputs, on samples that nothing was fitted to."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, isnan

import onnx_ir as ir

from onnxprune.data.base import Data
from onnxprune.evaluation.quality import compare_quality
from onnxprune.runtime.session import Session


def harm_of(original: Session, model: ir.Model, data: Data, providers: Sequence[str], most: int | None = None) -> float:
    """The share of the variance that comes out wrong, of the worst output; of their power where nothing varies."""
    made = Session(model, providers, optimized=True)
    found = compare_quality(original, original, made, data, most=most)
    if not isnan(found.explained):
        return 1 - found.explained
    ratio = next((score.after for score in found.scores if score.metric == "snr"), -inf)
    return float(10 ** (-ratio / 10))
