"""Data made from the signature of a model, and from what the model itself says about its inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxprune.data.base import Array, Batch, Hints, ImageStatistics, SampleRequest, SourceSample, Start, source
from onnxprune.data.index_ranges import SizeOf, constant_input, declared_size, index_ranges, known_categories
from onnxprune.data.natural_images import SLOPE, autocorrelation, natural_images
from onnxprune.data.pixels import channel_axis
from onnxprune.data.signals import signals
from onnxprune.model.signature import Feed, IndexRange, Port, ports_of, synthetic_feed
from onnxprune.ops.traits import convolves, repeats, runs_on_statistics, statistics

SAMPLES = 128
# What is kept of them between passes.
_KEPT_BYTES = 32 << 20
# Sizes for dynamic axes that no one gave: height and width of images, anything else.
_SIDE, _LENGTH = 224, 32
# By which power the amplitude of natural images falls with frequency: what is tried.
_SLOPES = tuple(step / 10 for step in range(8, 19))
# Red, green and blue of a natural image go together; this is what is taken where the model does not tell.
_CHANNEL_CORRELATION = 0.9
# The middle and a third of the range of a byte.
_BYTE_MEAN, _BYTE_STD = 128, 43

Floats = npt.NDArray[np.float64]


def _sample(_: Path) -> SourceSample:
    return SourceSample("synthetic", (Port("x", "tensor(float)", ("batch", 3)),), {"samples": 7})


@source("synthetic", "synthetic, made up", lambda request: request.spec == "synthetic", sample=_sample, batched=True)
def open_synthetic(request: SampleRequest) -> Start:
    """Made-up inputs, 128 samples unless a number is asked for.

    Images are `natural_images`, with the channels' mean and covariance that `request.hints` has; other floats with a
    long axis are `signals`, all others normal; integers lie within the table that they index where that is known; masks
    are all true, positions count up. Dynamic axes without a size get 224 (height and width) or 32.
    """
    return _Passes(request)


@dataclass(frozen=True)
class _Passes:
    """Starts passes over the batches: the first ones are kept for the passes behind, as far as they are small."""

    request: SampleRequest
    kept: list[Batch] = field(default_factory=list)

    def __call__(self) -> Iterator[Batch]:
        left, index = self.request.samples or SAMPLES, 0
        while left > 0:
            count = min(left, self.request.batch)
            yield self._batch(count, index)
            left, index = left - count, index + 1

    def _batch(self, count: int, index: int) -> Batch:
        if index < len(self.kept):
            return self.kept[index]
        batch = Batch(_feed(self.request, count, index))
        if index == len(self.kept) and _bytes([*self.kept, batch]) <= _KEPT_BYTES:
            self.kept.append(batch)
        return batch


def _bytes(batches: list[Batch]) -> int:
    return sum(array.nbytes for batch in batches for array in batch.feed.values())


def _feed(request: SampleRequest, count: int, index: int) -> Feed:
    sizes: dict[str, int] = {}
    for port in request.ports:  # the batch first: other inputs may have its name on an axis that is none
        if port.batch_symbol is not None:
            sizes[port.batch_symbol] = count
    for axis in range(max(len(port.shape) for port in request.ports)):  # first axes first: symbols are shared
        for port in request.ports:
            if axis < len(port.shape):
                sizes.setdefault(port.symbol(axis), _SIDE if len(port.shape) == 4 else _LENGTH)
    return {
        port.name: _array(port.bound(sizes), sizes, request.hints, np.random.default_rng([request.seed, index, place]))
        for place, port in enumerate(request.ports)
    }


def _array(port: Port, sizes: Mapping[str, int], hints: Hints, rng: np.random.Generator) -> Array:
    plain = synthetic_feed([port], sizes, int(rng.integers(1 << 32)), hints.values)[port.name]
    name, kind = port.name.lower(), plain.dtype.kind
    if "mask" in name and kind in "iuf":
        return np.ones_like(plain)
    axis = channel_axis(port)
    if axis is not None and (kind == "f" or plain.dtype.itemsize == 1):
        return _images(plain, axis, hints.images.get(port.name), rng)
    allowed = hints.values.get(port.name)
    if kind in "iu" and isinstance(allowed, IndexRange) and "position" in name:
        low, high = allowed.bounds(sizes)
        counting = low + np.arange(plain.shape[-1]) % (high - low)
        return np.broadcast_to(counting, plain.shape).astype(plain.dtype)
    if kind == "f" and plain.ndim > 1:
        return signals(plain.shape, rng).astype(plain.dtype)
    return plain


def _images(plain: Array, axis: int, statistics: ImageStatistics | None, rng: np.random.Generator) -> Array:
    """Images of the shape and type of `plain`, whose channels lie on `axis`."""
    shape = np.moveaxis(plain, axis, 1).shape
    due = statistics or _prior(shape[1])
    values, vectors = np.linalg.eigh(due.covariance)
    drawn = natural_images(shape, rng, due.slope)
    mixed = np.einsum("ij,njhw->nihw", vectors * np.sqrt(values.clip(0)), drawn) + due.mean[:, None, None]
    if plain.dtype.kind != "f":
        info = np.iinfo(plain.dtype)
        mixed = np.clip(np.rint(mixed * _BYTE_STD + _BYTE_MEAN + min(info.min, 0)), info.min, info.max)
    return np.ascontiguousarray(np.moveaxis(mixed, 1, axis), plain.dtype)


def _prior(channels: int) -> ImageStatistics:
    """Of normalized images: mean 0, variance 1."""
    correlation = np.full((channels, channels), _CHANNEL_CORRELATION)
    np.fill_diagonal(correlation, 1.0)
    return ImageStatistics(np.zeros(channels), correlation, SLOPE)


# ---- what the model tells -----------------------------------------------------------------------------------------


def hints_of(model: ir.Model, size_of: SizeOf = declared_size) -> Hints:
    """Facts in the graph about its inputs: which entries of tables there are, and statistics of images.

    Args:
        model: it is left as it is.
        size_of: see `index_ranges`.
    """
    return Hints({**known_categories(model), **index_ranges(model, size_of)}, match_batchnorm(model))


def _fed(model: ir.Model) -> list[ir.Value]:
    return [value for value in model.graph.inputs if not value.is_initializer()]


def _readers(value: ir.Value) -> Iterator[tuple[ir.Node, int]]:
    """Who reads a value, also behind nodes that pass it on."""
    for node, slot in value.uses():
        if repeats(node) and slot == 0:
            yield from _readers(node.outputs[0])
        else:
            yield node, slot


@dataclass(frozen=True)
class _Stem:
    """A Conv that reads an image, and the running statistics of its output: one equation per output channel."""

    weight: Floats  # [output, input, height, width]
    bias: Floats  # [output]
    dilations: tuple[int, int]
    mean: Floats
    variance: Floats


def match_batchnorm(model: ir.Model) -> dict[str, ImageStatistics]:
    """Statistics of each image input that fit the running statistics of the first BatchNormalization.

    Where an input goes through a Conv (groups 1) into a BatchNormalization, its running mean and variance of channel c
    are what training images gave there. For `natural_noise` with channel mean m and covariance S they are

        mean_c = bias_c + sum over i of m_i * sum over taps k of w_cik
        var_c  = sum over i, j of S_ij * sum over taps k, l of w_cik * w_cjl * r(k - l)

    with r the noise's autocorrelation: linear in m and S, solved by least squares in units of the running deviation and
    variance, S then made positive semidefinite, for each of several slopes of the spectrum, the best of which is taken.
    Where a BatchNormalization reads the input itself, its statistics are taken as they are. The idea of matching them
    is from H. Yin et al., "Dreaming to Distill", CVPR 2020, and Y. Cai et al., "ZeroQ", CVPR 2020, which optimize
    pixels through the whole network.

    What it does not do: later BatchNormalizations are not matched (that takes gradients); neither are statistics behind
    an activation, a grouped Conv or a Gemm; the zeros around padded images are ignored; nothing is found where the
    exporter folded the BatchNormalization into the Conv, or put arithmetic other than a Transpose in front of it.
    """
    ports = {port.name: port for port in ports_of(model)}
    found = {}
    for value in _fed(model):
        port = ports[value.name or ""]
        axis = channel_axis(port) if value.dtype is not None and value.dtype.is_floating_point() else None
        statistics = None if axis is None else _matched(value, port, axis)
        if statistics is not None:
            found[port.name] = statistics
    return found


def _matched(value: ir.Value, port: Port, axis: int) -> ImageStatistics | None:
    channels = port.shape[axis]
    assert isinstance(channels, int)
    stems = []
    for node, slot in _readers(value):
        own = _running(node) if slot == 0 else None
        if own is not None and len(own[0]) == channels:
            return ImageStatistics(own[0], np.diag(own[1]), SLOPE)
        if convolves(node) and slot == 0:
            stems += [stem for stem in _stems(node) if stem.weight.shape[1] == channels]
    if not stems:
        return None
    height, width = (
        size if isinstance(size, int) else _SIDE for place, size in enumerate(port.shape) if place not in (0, axis)
    )
    fits = [_fit(stems, channels, autocorrelation(height, width, slope), slope) for slope in _SLOPES]
    return min(fits, key=lambda fit: (round(fit[0], 3), abs(fit[1].slope - SLOPE)))[1]


def _stems(conv: ir.Node) -> Iterator[_Stem]:
    """One for each BatchNormalization that reads the result."""
    weight, bias = _numbers(conv, 1), _numbers(conv, 2)
    if weight is None or weight.ndim != 4 or conv.attributes.get_int("group", 1) != 1:
        return
    bias = np.zeros(len(weight)) if bias is None else bias
    down, across = conv.attributes.get_ints("dilations", (1, 1))
    for reader, slot in conv.outputs[0].uses():
        running = _running(reader) if slot == 0 else None
        if running is not None and len(running[0]) == len(weight):
            yield _Stem(weight, bias, (down, across), running[0], np.maximum(running[1], 1e-12))


def _running(node: ir.Node) -> tuple[Floats, Floats] | None:
    """Running mean and variance of a BatchNormalization."""
    if not runs_on_statistics(node):
        return None
    mean, variance = (_numbers(node, slot) for slot in statistics(node))
    return None if mean is None or variance is None else (mean, variance)


def _numbers(node: ir.Node, slot: int) -> Floats | None:
    tensor = constant_input(node, slot)
    array = None if tensor is None else np.asarray(tensor.numpy(), np.float64)
    return array if array is not None and np.isfinite(array).all() else None


def _fit(stems: list[_Stem], channels: int, correlation: Floats, slope: float) -> tuple[float, ImageStatistics]:
    """How far off they are, and the statistics nearest to the prior among those that fit best."""
    prior = _prior(channels)
    deviations = np.concatenate([np.sqrt(stem.variance) for stem in stems])
    sums = np.concatenate([stem.weight.sum((2, 3)) for stem in stems]) / deviations[:, None]
    means = np.concatenate([stem.mean - stem.bias for stem in stems]) / deviations
    mean = prior.mean + np.linalg.lstsq(sums, means - sums @ prior.mean)[0]
    products = np.concatenate([_products(stem, correlation) for stem in stems]) / deviations[:, None] ** 2
    correction = np.linalg.lstsq(products, 1 - products @ prior.covariance.ravel())[0].reshape(channels, channels)
    values, vectors = np.linalg.eigh(prior.covariance + (correction + correction.T) / 2)
    covariance = (vectors * values.clip(max(values.max(), 0) * 1e-4)) @ vectors.T
    return float(np.abs(products @ covariance.ravel() - 1).mean()), ImageStatistics(mean, covariance, slope)


def _products(stem: _Stem, correlation: Floats) -> Floats:
    """The share of each entry of S in the variance of an output channel: [output, C * C]."""
    rows, columns = np.indices(stem.weight.shape[2:]).reshape(2, -1) * np.reshape(stem.dilations, (2, 1))
    height, width = correlation.shape
    near = correlation[np.subtract.outer(rows, rows) % height, np.subtract.outer(columns, columns) % width]
    taps = stem.weight.reshape(*stem.weight.shape[:2], -1)
    products: Floats = np.einsum("cik,kl,cjl->cij", taps, near, taps)
    return products.reshape(len(taps), -1)
