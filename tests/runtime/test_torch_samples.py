"""Every operator against what ONNX Runtime makes of it, old opsets and fused operators included."""

from __future__ import annotations

import pytest

from tests.rule_oracle import Form
from tests.runtime.torch_samples import all_forms, compare, some_forms

# Forms that cannot agree; one that does fails the suite.
DIFFERENT = {
    "Attention-flat_mask_and_scores": "masked scores are minus infinity here, as the standard says",
    "BiasSplitGelu-gate": "the sample's reference leaves out the factor of a half",
    "DynamicQuantizeLSTM-states": "inputs and states are not rounded at every step here",
    "Bernoulli-certain_outcomes": "onnx's definition of opset 15 has the outcomes the wrong way round",
    "Multinomial-drawn_at_random": "drawn at random",
}


def _name(form: Form) -> str:
    return f"{form.sample.key[1]}-{form.sample.label}"


def _verify(forms: list[Form]) -> None:
    wrong = {}
    for form in forms:
        try:
            compare(form)
        except AssertionError as error:
            wrong[str(form)] = " ".join(str(error).split())[:200]
    expected = {str(form) for form in forms if _name(form) in DIFFERENT}
    assert set(wrong) == expected, {name: wrong.get(name, "agrees now") for name in set(wrong) ^ expected}


def test_a_spread_of_the_samples() -> None:
    _verify(some_forms(3))


@pytest.mark.slow
def test_all_samples() -> None:
    _verify(all_forms())
