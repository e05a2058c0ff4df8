"""The official backend node tests are the oracle of the operators: what fails is listed here, with the reason."""

from __future__ import annotations

import re

import pytest

from onnxprune.runtime.torch.ops import find_operator
from tests.runtime.torch_nodes import Outcome, attempt, attempt_stored, cases, spread, stored_models

# Tests that cannot pass. One that does fails the suite, so that nothing hides here.
FAILING = {
    r"test_bernoulli.*|test_training_dropout_(default|default_mask|mask)|test_training_dropout": (
        "draws at random; the expected numbers are those of numpy's generator"
    ),
    r"test_equal_string.*|test_unique_.*string.*": "torch has no strings",
}
# Operators without an implementation: none of them has a gradient with regard to weights, none occurs in the zoo.
WITHOUT = {
    "ImageDecoder": "decodes files",
    "TfIdfVectorizer": "text, or counts of integers",
    "StringConcat": "text",
    "StringNormalizer": "text",
    "StringSplit": "text",
    "RegexFullMatch": "text",
    "LabelEncoder": "a dictionary",
    "Momentum": "an optimizer's step",
    "Adam": "an optimizer's step",
    "Adagrad": "an optimizer's step",
    "TreeEnsemble": "decision trees",
    "ArrayFeatureExtractor": "classic machine learning",
    "Binarizer": "classic machine learning",
}


def _verify(outcomes: list[Outcome]) -> None:
    failed = {outcome.name: outcome.why for outcome in outcomes if outcome.verdict == "failed"}
    expected = {name for name in (outcome.name for outcome in outcomes) if _is_excluded(name)}
    expected -= {outcome.name for outcome in outcomes if outcome.verdict == "unsupported"}
    assert set(failed) == expected, {name: failed.get(name, "passes now") for name in set(failed) ^ expected}
    unsupported = {outcome for outcome in outcomes if outcome.verdict == "unsupported"}
    surprises = {outcome.name: outcome.why for outcome in unsupported if not set(outcome.operators) & set(WITHOUT)}
    assert {name for name in surprises if not _is_excluded(name)} == set(), surprises


def _is_excluded(name: str) -> bool:
    return any(re.fullmatch(pattern, name) for pattern in FAILING)


def test_a_spread_of_the_node_tests() -> None:
    outcomes = [attempt(case) for case in spread(each=25)]
    assert len(outcomes) > 200
    _verify(outcomes)


@pytest.mark.slow
def test_all_node_tests() -> None:
    outcomes = [attempt(case) for case in cases()]
    _verify(outcomes)
    passed = sum(outcome.verdict == "passed" for outcome in outcomes)
    assert passed >= 0.96 * len(outcomes)


def test_models_of_old_opsets() -> None:
    folders = stored_models()
    assert len(folders) > 100
    for folder in folders:
        attempt_stored(folder)


@pytest.mark.parametrize("operator", WITHOUT)
def test_what_is_said_to_be_missing_is_missing(operator: str) -> None:
    assert all(find_operator((domain, operator)) is None for domain in ("", "ai.onnx.ml", "ai.onnx.preview.training"))
