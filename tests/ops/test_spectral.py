"""Fourier transforms against the rule oracle."""

from __future__ import annotations

import numpy as np

from tests.rule_oracle import Case, SampleDraw, case, oracle, sample


@sample("DFT", prunable="x[0] x[1] y[0] y[1]", since=20)
def along_the_axis_before_the_parts(d: SampleDraw) -> Case:
    n, c = d.sizes(2)
    return case(x=d.normal(n, c, 8, 2))


@sample("DFT", prunable="x[0] x[2] y[0] y[2]", since=20)
def of_real_numbers_one_half(d: SampleDraw) -> Case:
    n, c = d.sizes(2)
    return case(x=d.normal(n, 8, c, 1), length=None, axis=np.array(1), onesided=1)


@sample("DFT", prunable="x[0] x[2] y[0] y[2]", since=17, until=19)
def along_the_first_axis_of_a_signal(d: SampleDraw) -> Case:
    n, c = d.sizes(2)
    return case(x=d.normal(n, 6, c, 2))


@sample("DFT", prunable="x[0] x[2] y[0] y[2]", since=17, until=19)
def backwards_along_an_axis_given(d: SampleDraw) -> Case:
    n, c = d.sizes(2)
    return case(x=d.normal(n, 6, c, 2), axis=1, inverse=1)


test_rule = oracle(__name__)
