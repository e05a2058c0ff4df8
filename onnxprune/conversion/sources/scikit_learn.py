"""Estimators of scikit-learn."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxprune.conversion.base import ExportOptions, Opened, is_made_of, network_source
from onnxprune.errors import MissingExtraError, ModelError
from onnxprune.model.file import as_model
from onnxprune.model.signature import Feed

_NAME = "X"


@network_source("scikit-learn")
class ScikitLearn:
    """A fitted estimator of scikit-learn, like MLPClassifier, converted by skl2onnx. Pickles are not opened."""

    @staticmethod
    def takes(given: Any) -> bool:
        """Is it an estimator?"""
        return is_made_of(given, "sklearn", "BaseEstimator")

    @staticmethod
    def open(given: Any, example_inputs: Any, options: ExportOptions) -> Opened:
        """The estimator. Raises MissingExtraError without skl2onnx, ModelError where it is not fitted."""
        if find_spec("skl2onnx") is None:
            raise MissingExtraError("skl2onnx", "sklearn")
        count = getattr(given, "n_features_in_", None)
        if count is None:
            raise ModelError(f"{type(given).__name__} is not fitted, so there is nothing to export")
        drawn = np.random.default_rng(0).standard_normal((3, count)) if example_inputs is None else example_inputs
        x = np.asarray(drawn, np.float32)
        feeds = ({_NAME: x}, {_NAME: np.concatenate([x, x[:1]])})
        return Opened(_runner(given), feeds, {"skl2onnx": lambda: _converted(given, x, options.opset)})


def _runner(estimator: Any) -> Callable[[Feed], list[Any]]:
    def run(feed: Feed) -> list[Any]:
        x = feed[_NAME]
        if hasattr(estimator, "predict_proba"):
            return [estimator.predict(x), estimator.predict_proba(x).astype(np.float32)]
        return [estimator.predict(x).astype(np.float32).reshape(len(x), -1)]

    return run


def _converted(estimator: Any, x: Any, opset: int | None) -> ir.Model:
    import skl2onnx

    options = {id(estimator): {"zipmap": False}} if hasattr(estimator, "predict_proba") else None
    # A double of skl2onnx's newest opset may be newer than what ONNX Runtime knows.
    return as_model(skl2onnx.to_onnx(estimator, x[:1], options=options, target_opset=opset or 18))
