"""lda against scikit-learn's analysis of variance and discriminant analysis."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.feature_selection import f_classif

from onnxprune.data.base import Batch, Data
from onnxprune.errors import UsageError
from onnxprune.pipeline.run import inspect
from onnxprune.statistics.activations import Activations
from onnxprune.steps.prune.criteria.base import ScoringContext, WeightReader, criteria
from onnxprune.steps.prune.score import score_model
from tests.conftest import Build
from tests.criteria.test_activations import (
    CONVOLUTION,
    PERCEPTRON,
    SIZES,
    Array,
    hidden,
    inputs,
    maps,
    only_scores,
)

LABELS = np.random.default_rng(3).integers(0, 4, sum(SIZES))


def test_ranks_as_the_f_statistic(build: Build) -> None:
    """F = (b / (classes - 1)) / (w / (samples - classes)), for channels by their means."""
    path, (data, x) = build(CONVOLUTION), inputs(3, 9, 8, labels=LABELS)
    f, _ = f_classif(maps(path, x).mean((2, 3)), LABELS)
    ratio = f * 3 / (len(LABELS) - 4)
    np.testing.assert_allclose(only_scores(path, "lda", data), ratio / (1 + ratio), rtol=1e-5)


def test_one_unit_alone_is_fishers_discriminant(build: Build) -> None:
    """For one feature the explained share follows from LDA's class means and covariance."""
    path, (data, x) = build(PERCEPTRON), inputs(5, labels=LABELS)
    h = hidden(path, x)[:, :1]
    found = LinearDiscriminantAnalysis(solver="lsqr", store_covariance=True).fit(h, LABELS)
    between = (found.priors_ @ (found.means_ - h.mean()) ** 2).item()
    within = found.covariance_.item()
    np.testing.assert_allclose(only_scores(path, "lda", data)[0], between / (between + within), rtol=1e-5)


def test_units_that_follow_the_label_score_one(build: Build) -> None:
    path = build(
        """
        net (float[batch, 5] x) => (float[batch, 3] y)
        <float[5, 3] w, float[3, 3] v>
        { h = MatMul(x, w)  y = MatMul(h, v) }
        """,
        w=np.eye(5)[:, :3],
    )
    x = np.random.default_rng(0).standard_normal((40, 5)).astype(np.float32)
    labels = np.arange(40) % 4
    x[:, 0], x[:, 1] = labels, 7.0
    data = Data("made up", True, lambda: iter([Batch({"x": x}, labels)]))
    found = only_scores(path, "lda", data)
    assert found[0] == pytest.approx(1)
    assert found[1] == 0
    assert 0 < found[2] < 0.5


def test_one_class_tells_nothing(build: Build) -> None:
    data, _ = inputs(5, labels=np.zeros(sum(SIZES), np.int64))
    np.testing.assert_allclose(only_scores(build(PERCEPTRON), "lda", data), 0, atol=1e-12)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (None, r"needs labels, and made up has none: give --labels"),
        (np.zeros(sum(SIZES)), r"the labels are float64 of shape 13"),
        (np.zeros((sum(SIZES), 2), np.int64), r"the labels are int64 of shape 13x2"),
    ],
)
def test_other_labels_are_refused(build: Build, labels: Array | None, message: str) -> None:
    analysis = inspect(build(PERCEPTRON))
    data, _ = inputs(5, labels=labels)
    with pytest.raises(UsageError, match=message):
        score_model(analysis, analysis.groups, "lda", data)
    context = ScoringContext(analysis, WeightReader(analysis), observed=Activations(analysis, data))
    with pytest.raises(UsageError, match=message):
        criteria["lda"](analysis.groups[0], context)
