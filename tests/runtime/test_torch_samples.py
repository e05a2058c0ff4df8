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


def verify(form: Form) -> None:
    if _name(form) not in DIFFERENT:
        compare(form)
        return
    with pytest.raises(AssertionError):
        compare(form)


@pytest.mark.parametrize("form", some_forms(3), ids=str)
def test_a_spread_of_the_samples(form: Form) -> None:
    verify(form)


@pytest.mark.slow
@pytest.mark.parametrize("form", all_forms(), ids=str)
def test_all_samples(form: Form) -> None:
    verify(form)
