"""Preparation of columns in ai.onnx.ml against the rule oracle."""

from __future__ import annotations

from tests.rule_oracle import Case, SampleDraw, case, oracle, sample

ML = "ai.onnx.ml"


@sample("Scaler", prunable="x[0] y[0]", domain=ML)
def scaled(d: SampleDraw) -> Case:
    n, c = d.sizes(2)
    return case(x=d.normal(n, c), offset=d.normal(c).tolist(), scale=d.positive(c).tolist())


@sample("Imputer", prunable="x[0] y[0]", domain=ML)
def imputed(d: SampleDraw) -> Case:
    n, c = d.sizes(2)
    return case(x=d.normal(n, c), imputed_value_floats=d.normal(c).tolist(), replaced_value_float=0.0)


@sample("Normalizer", prunable="x[0] y[0]", domain=ML)
def normalized(d: SampleDraw) -> Case:
    n, c = d.sizes(2)
    return case(x=d.normal(n, c), norm="L2")


@sample("FeatureVectorizer", prunable="a[0] b[0] y[0]", domain=ML, fed="a b")
def vectorized(d: SampleDraw) -> Case:
    n, a, b = d.sizes(3)
    return case(a=d.normal(n, a), b=d.normal(n, b), inputdimensions=[a, b])


@sample("LinearRegressor", prunable="x[0] y[0]", domain=ML)
def regressed(d: SampleDraw) -> Case:
    n, c = d.sizes(2)
    return case(x=d.normal(n, c), coefficients=d.normal(c * 2).tolist(), intercepts=[0.5, 1.0], targets=2)


test_rule = oracle(__name__)
