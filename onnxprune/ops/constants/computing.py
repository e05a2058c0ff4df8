"""Operators that compute: which of their outputs are constant when some of their inputs are."""

from __future__ import annotations

import numpy as np

from onnxprune.dims import Mask
from onnxprune.ops.compute import compute
from onnxprune.ops.constants.base import KnownEntries, Site, constant, on_axis
from onnxprune.ops.constants.linear import linear_form

# Where a rounding error in the input can change the output by a whole step.
_JUMPS = frozenset(("Ceil", "Floor", "Round", "Sign", "Mod", "Shrink", "ThresholdedRelu"))


# -- entry by entry


def elementwise(site: Site) -> KnownEntries | None:
    """f(constants) is constant, and so is zero times anything."""
    op_type = site.node.op_type
    given = [known for known, value in zip(site.x, site.node.inputs, strict=True) if value is not None]
    if op_type in _JUMPS or "broadcast" in site.node.attributes or not any(given):
        return None
    if op_type != "Mul" and not all(given):
        return None
    rank = len(site.y[0])
    filled = [KnownEntries.nothing(rank, site.dtypes[0]) if known is None else known for known in given]
    known = np.logical_and.reduce(np.broadcast_arrays(*[each.known for each in filled]))
    zero = np.zeros_like(known)
    if op_type == "Mul":
        zero = np.logical_or.reduce(np.broadcast_arrays(*[each.zero for each in filled]))
    if not (known | zero).any():
        return None
    arrays = iter(each.values for each in filled)
    results = compute(site.node, [None if x is None else next(arrays) for x in site.node.inputs], site.opsets)
    if results is None:
        return None
    result = KnownEntries(np.where(zero, 0, results[0]).astype(results[0].dtype), known | zero)
    return result.moved(lambda array: array.reshape((1,) * (rank - array.ndim) + array.shape))


@constant("Dropout")
def dropout(site: Site) -> KnownEntries | None:
    """The input, outside training."""
    training = site.constant(2)
    return None if site.has(2) and (training is None or training.any()) else site.x[0]


@constant("CastLike")
def cast_like(site: Site) -> KnownEntries | None:
    """The input as another floating-point type (the driver drops integers)."""
    x = site.x[0]
    return None if x is None else KnownEntries(x.values.astype(site.dtypes[0]), x.known)


@constant("BatchNormalization", "InstanceNormalization")
def normalization(site: Site) -> KnownEntries | None:
    """Scale and shift per channel. Where the scale is 0 the shift is left; an instance of zeros has mean 0 too."""
    parameters = [site.constant(i) for i in range(1, len(site.node.inputs))]
    if any(array is None for array in parameters) or site.attr("training_mode", 0) or not site.attr("spatial", 1):
        return None
    rank = len(site.y[0])
    scale, shift, *statistics = (
        array.astype(np.float64).reshape((1, -1) + (1,) * (rank - 2)) for array in parameters if array is not None
    )
    x = site.x[0] or KnownEntries.nothing(rank)
    if not statistics:
        x = x.collapsed(range(2, rank))
    known = x.known if statistics else x.zero
    factor, offset = scale, shift
    if statistics:
        mean, variance = statistics
        factor = scale / np.sqrt(variance + site.attr("epsilon", 1e-5))
        offset = shift - mean * factor
    values = np.where(scale == 0, shift, np.where(known, x.values, 0) * factor + offset)
    return KnownEntries(values.astype(site.dtypes[0]), known | (scale == 0))


# -- sums


@constant("Conv", "ConvTranspose", "Gemm", "MatMul")
def sums(site: Site) -> KnownEntries | None:
    """An output entry is constant where its weights are zero or its inputs constant."""
    form = linear_form(site)
    if form is None:
        return product_of_values(site) if site.node.op_type == "MatMul" else None
    values, known = form.constants(site.x[0])
    return on_axis(values, known, form.out, len(site.y[0]), site.dtypes[0]) if known.any() else None


def product_of_values(site: Site) -> KnownEntries | None:
    """a·b of two values is zero where every product of entries has a factor that is zero."""
    if min(len(site.shapes[0]), len(site.shapes[1])) < 2 or not any(site.x):
        return None
    a, b = _not_zero(site, 0), _not_zero(site, 1)
    terms = max(a.shape[-1], b.shape[-2])
    a = np.broadcast_to(a, (*a.shape[:-1], terms)).astype(np.float32)
    b = np.broadcast_to(b, (*b.shape[:-2], terms, b.shape[-1])).astype(np.float32)
    zero = np.matmul(a, b) == 0
    return KnownEntries(np.zeros(zero.shape, site.dtypes[0]), zero)


def terms_of_product(site: Site) -> Mask | None:
    """Which of the K terms of a matrix product may add something: bool, shape [K]; None for other operators."""
    if site.node.op_type != "MatMul" or min(len(site.shapes[0]), len(site.shapes[1])) < 2:
        return None
    a, b = _not_zero(site, 0), _not_zero(site, 1)
    terms = np.asarray(a.any(axis=-2) & b.any(axis=-1))
    return np.broadcast_to(terms.reshape(-1, terms.shape[-1]).any(axis=0), site.shapes[0][-1:])


def _not_zero(site: Site, i: int) -> Mask:
    known = site.x[i] or KnownEntries.nothing(len(site.shapes[i]))
    return ~known.zero


@constant("ReduceMean", "ReduceMax", "ReduceMin", "ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare")
def reduction(site: Site) -> KnownEntries | None:
    """A mean or an extreme of equal numbers is that number; a sum of zeros is zero."""
    x, rank = site.x[0], len(site.shapes[0])
    if x is None or (site.has(1) and site.constant(1) is None):
        return None
    axes = {axis % rank for axis in site.argument(1, "axes") or ()}
    if not axes and not site.attr("noop_with_empty_axes", 0):
        axes = set(range(rank))
    if site.node.op_type not in ("ReduceMean", "ReduceMax", "ReduceMin") and axes:
        x = KnownEntries(x.values, x.zero)
    kept = x.collapsed(axes)
    return kept if len(site.y[0]) == rank else kept.moved(lambda array: array.squeeze(tuple(axes)))


# -- images


@constant("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool", "MaxPool", "AveragePool", "LpPool")
def pooling(site: Site) -> KnownEntries | None:
    """A constant channel stays what it is, where every window sees nothing else."""
    x = site.x[0]
    if x is None:
        return None
    channels = x.collapsed(range(2, x.values.ndim))
    op_type = site.node.op_type
    if op_type.startswith("Global") and op_type != "GlobalLpPool":
        return channels
    if op_type == "MaxPool":
        return channels if _windows_reach_inside(site) else None
    plain = op_type == "AveragePool" and not site.attr("ceil_mode", 0)
    if plain and not (site.attr("count_include_pad", 0) and _pads(site)):
        return channels if _windows_reach_inside(site) else None
    return KnownEntries(channels.values, channels.zero) if _windows_reach_inside(site) else None


@constant("Resize", "Upsample")
def resize(site: Site) -> KnownEntries | None:
    """Between equal entries there is nothing new; batch and channels keep their sizes."""
    x, crops = site.x[0], site.attr("coordinate_transformation_mode") == "tf_crop_and_resize"
    return None if x is None or crops or site.shapes[0][:2] != site.y[0][:2] else x.collapsed(range(2, x.values.ndim))


def _pads(site: Site) -> bool:
    return any(site.attr("pads", ())) or site.attr("auto_pad", "NOTSET") not in ("NOTSET", "VALID", "")


def _windows_reach_inside(site: Site) -> bool:
    """No window lies outside the image as a whole, as one at the end may do with `ceil_mode`."""
    if site.node.op_type == "GlobalLpPool":
        return True
    kernel = site.attr("kernel_shape")
    strides, dilations = site.attr("strides") or [1] * len(kernel), site.attr("dilations") or [1] * len(kernel)
    pads = site.attr("pads") or [0] * (2 * len(kernel))
    overhang = [stride - 1 if site.attr("ceil_mode", 0) else 0 for stride in strides]
    ends = zip(kernel, pads[: len(kernel)], pads[len(kernel) :], overhang, strict=True)
    if any(size > 1 for size in dilations) and (_pads(site) or any(overhang)):
        return False
    return all(max(before, after + over) < size for size, before, after, over in ends)
