"""Data made from the signature of a model, and from what the model itself says about its inputs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxprune.calibration.base import Array, Batch, Hints, Request, Start, source
from onnxprune.calibration.pixels import channel_axis
from onnxprune.signature import Feed, Port, ports_of, synthetic_feed

SAMPLES = 128
# Sizes for dynamic axes that no one gave: height and width of images, anything else.
_SIDE, _LENGTH = 224, 32
# By which power the amplitude of natural images falls with frequency (Tolhurst 1992).
_SLOPE = 1.2
# Red, green and blue of a natural image go together; this is what is taken where the model does not tell.
_CHANNEL_CORRELATION = 0.9
# The middle and a third of the range of a byte.
_BYTE_MEAN, _BYTE_STD = 128, 43

Moments = tuple[Array, Array]
Floats = npt.NDArray[np.float64]


@source("synthetic", "synthetic, made up", lambda request: request.spec == "synthetic", batched=True)
def open_synthetic(request: Request) -> Start:
    """Made-up inputs, 128 samples unless a number is asked for.

    Images are `natural_noise`, with the channels' mean and covariance that `request.hints` has; other floats are
    normal; integers lie within the table that they index where that is known; masks are all true, positions count up.
    Dynamic axes without a size get 224 (height and width) or 32.
    """
    return lambda: _batches(request)


def _batches(request: Request) -> Iterator[Batch]:
    left, index = request.samples or SAMPLES, 0
    while left > 0:
        count = min(left, request.batch)
        yield Batch(_feed(request, count, index))
        left, index = left - count, index + 1


def _feed(request: Request, count: int, index: int) -> Feed:
    sizes: dict[str, int] = {}
    for axis in range(max(len(port.shape) for port in request.ports)):  # first axes first: symbols are shared
        for port in request.ports:
            if axis < len(port.shape):
                sizes.setdefault(port.symbol(axis), count if axis == 0 else _SIDE if len(port.shape) == 4 else _LENGTH)
    return {
        port.name: _array(port.bound(sizes), request.hints, np.random.default_rng([request.seed, index, place]))
        for place, port in enumerate(request.ports)
    }


def _array(port: Port, hints: Hints, rng: np.random.Generator) -> Array:
    plain = synthetic_feed([port], {}, int(rng.integers(1 << 32)))[port.name]
    name, kind = port.name.lower(), plain.dtype.kind
    if "mask" in name and kind in "iuf":
        return np.ones_like(plain)
    axis = channel_axis(port)
    if axis is not None and (kind == "f" or plain.dtype.itemsize == 1):
        return _images(plain, axis, hints.moments.get(port.name), rng)
    if kind in "iu" and port.name in hints.limits:
        limit = hints.limits[port.name]
        if "position" in name:
            return np.broadcast_to(np.arange(plain.shape[-1]) % limit, plain.shape).astype(plain.dtype)
        return np.asarray(rng.integers(0, limit, plain.shape)).astype(plain.dtype)
    return plain


def _images(plain: Array, axis: int, moments: Moments | None, rng: np.random.Generator) -> Array:
    """Noise of the shape and type of `plain`, whose channels lie on `axis`."""
    shape = np.moveaxis(plain, axis, 1).shape
    mean, covariance = moments or _prior(shape[1])
    noise = natural_noise(shape, rng)
    values, vectors = np.linalg.eigh(covariance)
    mixed = np.einsum("ij,njhw->nihw", vectors * np.sqrt(values.clip(0)), noise) + mean[:, None, None]
    if plain.dtype.kind != "f":
        info = np.iinfo(plain.dtype)
        mixed = np.clip(np.rint(mixed * _BYTE_STD + _BYTE_MEAN + min(info.min, 0)), info.min, info.max)
    return np.ascontiguousarray(np.moveaxis(mixed, 1, axis), plain.dtype)


def _prior(channels: int) -> Moments:
    """Normalized images: mean 0, variance 1."""
    correlation = np.full((channels, channels), _CHANNEL_CORRELATION)
    np.fill_diagonal(correlation, 1.0)
    return np.zeros(channels), correlation


# ---- noise like images --------------------------------------------------------------------------------------------


def natural_noise(shape: tuple[int, ...], rng: np.random.Generator) -> Floats:
    """Normal noise [..., height, width] of variance 1 whose amplitude falls with frequency as that of photographs does.

    That it falls as about 1 / frequency: D. J. Field, "Relations between the statistics of natural images and the
    response properties of cortical cells", JOSA A 4 (1987); the exponent, 1.2 on average: D. J. Tolhurst et al.,
    "Amplitude spectra of natural images", Ophthalmic Physiol. Opt. 12 (1992). That such noise is a better stand-in for
    images than white noise: M. Baradad et al., "Learning to See by Looking at Noise", NeurIPS 2021, and
    benchmarks/synthetic_data.py. It has no edges and no objects, and wraps around at the borders.
    """
    white = rng.standard_normal(shape)
    amplitude = _amplitude(shape[-2], shape[-1])[:, : shape[-1] // 2 + 1]
    return np.fft.irfft2(np.fft.rfft2(white) * amplitude, s=shape[-2:])


def _amplitude(height: int, width: int) -> Floats:
    """Of each frequency [height, width], with a mean square of 1; the mean gets that of the lowest frequency."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None, :])
    amplitude = np.maximum(frequency, 1 / max(height, width)) ** -_SLOPE
    return np.asarray(amplitude / np.sqrt(np.mean(amplitude**2)))


def _autocorrelation(height: int, width: int) -> Floats:
    """Of `natural_noise` by distance [height, width], modulo the size (Wiener-Khinchin)."""
    return np.fft.ifft2(_amplitude(height, width) ** 2).real


# ---- what the model tells -----------------------------------------------------------------------------------------


def hints_of(model: ir.Model) -> Hints:
    """What the graph says about its inputs: the sizes of embedding tables, and statistics of images."""
    return Hints(limits=vocabulary_limits(model), moments=match_batchnorm(model))


# What leaves the values of an integer input as they are.
_PASSES_ON = {"Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Expand", "Transpose"}
# Slots of the indices and of the table that they index.
_LOOK_UPS = {"Gather": [(1, 0)], "GatherBlockQuantized": [(1, 0)], "EmbedLayerNormalization": [(0, 2), (1, 4)]}


def vocabulary_limits(model: ir.Model) -> dict[str, int]:
    """For each integer input that indexes constant tables: the number of rows of the smallest."""
    limits: dict[str, int] = {}
    for value in _fed(model):
        if value.dtype in (ir.DataType.INT64, ir.DataType.INT32):
            sizes = [rows for node, slot in _readers(value) for rows in _rows(node, slot)]
            if sizes:
                limits[value.name or ""] = min(sizes)
    return limits


def _fed(model: ir.Model) -> list[ir.Value]:
    return [value for value in model.graph.inputs if not value.is_initializer()]


def _readers(value: ir.Value) -> Iterator[tuple[ir.Node, int]]:
    """Who reads a value, also behind nodes that pass it on."""
    for node, slot in value.uses():
        if node.op_type in _PASSES_ON and slot == 0:
            yield from _readers(node.outputs[0])
        else:
            yield node, slot


def _rows(node: ir.Node, slot: int) -> Iterator[int]:
    for indices, table in _LOOK_UPS.get(node.op_type, []):
        tensor = _constant(node, table) if slot == indices else None
        if tensor is not None and len(tensor.shape) > 0:
            axis = node.attributes.get_int("axis", 0)
            yield tensor.shape.numpy()[axis]


def _constant(node: ir.Node, slot: int) -> ir.TensorProtocol | None:
    """A constant input; a quantized table counts as what it stands for."""
    value = node.inputs[slot] if slot < len(node.inputs) else None
    if value is None:
        return None
    producer = value.producer()
    if producer is not None and producer.op_type in ("DequantizeLinear", "Cast", "Identity"):
        return _constant(producer, 0)
    return ir.convenience.get_const_tensor(value)


def match_batchnorm(model: ir.Model) -> dict[str, Moments]:
    """Mean [C] and covariance [C, C] of each image input's channels that fit the running statistics of the first
    BatchNormalization.

    Where an input goes through a Conv (groups 1) into a BatchNormalization, its running mean and variance of channel c
    are what training images gave there. For `natural_noise` with channel mean m and covariance S they are

        mean_c = bias_c + sum over i of m_i * sum over taps k of w_cik
        var_c  = sum over i, j of S_ij * sum over taps k, l of w_cik * w_cjl * r(k - l)

    with r the noise's autocorrelation: linear in m and S, solved by least squares in units of the running deviation and
    variance, S then made positive semidefinite. Where a BatchNormalization reads the input itself, its statistics are
    taken as they are. The idea of matching them is from H. Yin et al., "Dreaming to Distill", CVPR 2020, and Y. Cai et
    al., "ZeroQ", CVPR 2020, which optimize pixels through the whole network.

    What it does not do: later BatchNormalizations are not matched (that takes gradients); neither are statistics behind
    an activation, a grouped Conv or a Gemm; the zeros around padded images are ignored; nothing is found where the
    exporter folded the BatchNormalization into the Conv, or put arithmetic other than a Transpose in front of it.
    """
    ports = {port.name: port for port in ports_of(model)}
    found = {}
    for value in _fed(model):
        port = ports[value.name or ""]
        axis = channel_axis(port) if value.dtype is not None and value.dtype.is_floating_point() else None
        if axis is not None:
            moments = _moments(value, port, axis)
            if moments is not None:
                found[port.name] = moments
    return found


def _moments(value: ir.Value, port: Port, axis: int) -> Moments | None:
    channels = port.shape[axis]
    assert isinstance(channels, int)
    sides = [
        size if isinstance(size, int) else _SIDE for place, size in enumerate(port.shape) if place not in (0, axis)
    ]
    correlation = _autocorrelation(*sides)
    equations = []
    for node, slot in _readers(value):
        if slot != 0 or (node.op_type == "Conv" and node.attributes.get_int("group", 1) != 1):
            continue
        if (own := _statistics(node, channels)) is not None:
            return own[0], np.diag(own[1])
        for reader, place in node.outputs[0].uses() if node.op_type == "Conv" else ():
            weight = _constant(node, 1)
            statistics = _statistics(reader, None) if place == 0 else None
            if weight is not None and statistics is not None and weight.shape.numpy()[1] == channels:
                equations.append(_equations(node, np.asarray(weight.numpy(), np.float64), statistics, correlation))
    if not equations:
        return None
    return _solved([np.concatenate(parts) for parts in zip(*equations, strict=True)], channels)


def _statistics(node: ir.Node, channels: int | None) -> Moments | None:
    """Running mean and variance of a BatchNormalization with so many channels, or any number."""
    if node.op_type != "BatchNormalization" or node.attributes.get_int("training_mode", 0) != 0:
        return None
    mean, variance = _constant(node, 3), _constant(node, 4)
    if mean is None or variance is None or (channels is not None and mean.shape.numpy() != (channels,)):
        return None
    return np.asarray(mean.numpy(), np.float64), np.asarray(variance.numpy(), np.float64)


def _equations(conv: ir.Node, weight: Floats, statistics: Moments, correlation: Floats) -> list[Floats]:
    """Rows and right sides for m, then for the C * C entries of S, in units of the running deviation and variance."""
    mean, variance = statistics[0], np.maximum(statistics[1], 1e-12)
    bias = _constant(conv, 2)
    left = weight.sum((2, 3))
    right = mean - (0 if bias is None else np.asarray(bias.numpy(), np.float64))
    rows, columns = np.indices(weight.shape[2:]).reshape(2, -1)
    down, across = (int(step) for step in conv.attributes.get_ints("dilations", (1, 1)))
    height, width = correlation.shape
    near = correlation[
        np.subtract.outer(rows, rows) * down % height, np.subtract.outer(columns, columns) * across % width
    ]
    taps = weight.reshape(*weight.shape[:2], -1)
    products = np.einsum("cik,kl,cjl->cij", taps, near, taps).reshape(len(taps), -1)
    deviation = np.sqrt(variance)
    return [left / deviation[:, None], right / deviation, products / variance[:, None], np.ones_like(variance)]


def _solved(system: list[Floats], channels: int) -> Moments:
    """The moments nearest to the prior among those that fit best."""
    left, right, products, ones = system
    prior_mean, prior = _prior(channels)
    mean = prior_mean + np.linalg.lstsq(left, right - left @ prior_mean)[0]
    correction = np.linalg.lstsq(products, ones - products @ prior.ravel())[0].reshape(channels, channels)
    covariance = prior + (correction + correction.T) / 2
    values, vectors = np.linalg.eigh(covariance)
    return mean, (vectors * values.clip(values.max() * 1e-4)) @ vectors.T
