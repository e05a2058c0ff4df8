"""Convolutions against the rule oracle."""

from __future__ import annotations

import numpy as np

from tests.rule_oracle import Case, SampleDraw, case, oracle, sample


@sample("Conv", prunable="x[0] x[1] w[0] w[1] b[0] y[1]")
def plain(d: SampleDraw) -> Case:
    n, c, o = d.sizes(3)
    return case(x=d.normal(n, c, 6, 5), w=d.normal(o, c, 3, 2), b=d.normal(o), strides=[2, 1], pads=[0, 1, 1, 0])


@sample("Conv", prunable="x[1] w[0] w[1] y[1]")
def one_dimensional_without_bias(d: SampleDraw) -> Case:
    n, c, o = d.sizes(3)
    return case(x=d.normal(n, c, 7), w=d.normal(o, c, 3), dilations=[2])


@sample("Conv", prunable="x[1] x[2] x[3] x[4] w[0] w[1] y[1] y[2] y[3] y[4]")
def bias_left_empty(d: SampleDraw) -> Case:
    n, c, o = d.sizes(3)
    return case(x=d.normal(n, c, 3, 4, 5), w=d.normal(o, c, 1, 1, 1), b=None)


@sample("Conv", prunable="x[1] x[2] w[0] w[1] y[1] y[2]")
def a_window_along_one_axis(d: SampleDraw) -> Case:
    n, c, o, tokens = d.sizes(4)
    return case(x=d.normal(n, c, tokens, 5), w=d.normal(o, c, 1, 3), pads=[0, 1, 0, 1])


@sample("Conv", prunable="x[1] w[0] w[1] y[1]")
def a_window_of_one_that_skips_or_adds_places(d: SampleDraw) -> Case:
    n, c, o = d.sizes(3)
    return case(x=d.normal(n, c, 6, 5), w=d.normal(o, c, 1, 1), strides=[2, 1], pads=[0, 0, 0, 1])


@sample("ConvTranspose", prunable="x[1] x[2] w[0] w[1] y[1] y[2]")
def transposed_pointwise(d: SampleDraw) -> Case:
    n, c, o, tokens = d.sizes(4)
    return case(x=d.normal(n, c, tokens), w=d.normal(c, o, 1))


@sample("Conv", prunable="x[1] w[0] w[1] b[0] y[1]")
def grouped(d: SampleDraw) -> Case:
    n, g, i, o = d.sizes(4)
    return case(x=d.normal(n, g * i, 4, 5), w=d.normal(g * o, i, 3, 3), b=d.normal(g * o), group=g)


@sample("Conv", prunable="x[1] w[0] b[0] y[1]")
def depthwise(d: SampleDraw) -> Case:
    n, g = d.sizes(2)
    return case(x=d.normal(n, g, 4, 5), w=d.normal(g, 1, 3, 3), b=d.normal(g), group=g)


@sample("Conv", prunable="x[1] w[0] b[0] y[1]")
def depthwise_with_multiplier(d: SampleDraw) -> Case:
    n, g, m = d.sizes(3)
    return case(x=d.normal(n, g, 4, 5), w=d.normal(g * m, 1, 3, 3), b=d.normal(g * m), group=g)


@sample("Conv", prunable="x[1] w[0] w[1] y[1]", fed="x w")
def dynamic_kernel(d: SampleDraw) -> Case:
    n, c, o = d.sizes(3)
    return case(x=d.normal(n, c, 6, 5), w=d.normal(o, c, 3, 2), auto_pad="SAME_UPPER")


@sample("ConvTranspose", prunable="x[1] w[0] w[1] b[0] y[1]")
def transposed(d: SampleDraw) -> Case:
    n, c, o = d.sizes(3)
    return case(x=d.normal(n, c, 4, 5), w=d.normal(c, o, 3, 2), b=d.normal(o), strides=[2, 2], output_padding=[1, 0])


@sample("ConvTranspose", prunable="x[1] w[0] w[1] b[0] y[1]")
def transposed_grouped(d: SampleDraw) -> Case:
    n, g, i, o = d.sizes(4)
    return case(x=d.normal(n, g * i, 4, 3), w=d.normal(g * i, o, 3, 2), b=d.normal(g * o), group=g)


@sample("ConvTranspose", prunable="x[1] w[0] y[1]")
def transposed_depthwise(d: SampleDraw) -> Case:
    n, g = d.sizes(2)
    return case(x=d.normal(n, g, 4, 3), w=d.normal(g, 1, 3, 2), b=None, group=g)


def _deformable(d: SampleDraw, groups: int = 1) -> Case:
    n, c, o = d.sizes(3)
    offsets = np.float32(0.3) * d.normal(n, 2 * 2 * 2, 4, 4)
    w = d.normal(o * groups, c, 2, 2)
    return case(x=d.normal(n, c * groups, 5, 5), w=w, offset=offsets, b=d.normal(o * groups))


@sample("DeformConv", prunable="x[0] x[1] w[0] w[1] b[0] y[1]", fed="x offset")
def deformable(d: SampleDraw) -> Case:
    return _deformable(d)


@sample("DeformConv", prunable="x[0] x[1] w[0] w[1] y[1]", fed="x offset mask")
def deformable_with_mask(d: SampleDraw) -> Case:
    drawn = _deformable(d)
    return {**drawn, "b": None, "mask": d.positive(len(drawn["x"]), 4, 4, 4)}


@sample("DeformConv", prunable="x[1] w[0] w[1] y[1]", fed="x offset")
def deformable_grouped(d: SampleDraw) -> Case:
    return {**_deformable(d, 2), "group": 2}


@sample("DeformConv", prunable="x[0] x[1] offset[1] mask[1] w[1] y[1]", fed="x offset mask")
def deformable_in_blocks_of_channels(d: SampleDraw) -> Case:
    n, c, o, blocks = d.sizes(4)
    offsets, masks = np.float32(0.3) * d.normal(n, blocks * 8, 4, 4), d.positive(n, blocks * 4, 4, 4)
    x, w = d.normal(n, blocks * c, 5, 5), d.normal(o, blocks * c, 2, 2)
    return case(x=x, w=w, offset=offsets, b=None, mask=masks, offset_group=blocks)


@sample("DeformConv", prunable="x[1] offset[1] w[0] w[1] y[1]", fed="x offset")
def deformable_grouped_in_blocks(d: SampleDraw) -> Case:
    n, c, o, blocks = d.sizes(4)
    x, w = d.normal(n, blocks * c, 5, 5), d.normal(blocks * o, c, 2, 2)
    offsets = np.float32(0.3) * d.normal(n, blocks * 8, 4, 4)
    return case(x=x, w=w, offset=offsets, b=None, group=blocks, offset_group=blocks)


test_rule = oracle(__name__)
