"""Batches from things that come one after the other: arrays, dictionaries of them, pairs with labels, tensors.

Tensors of torch, and of whatever else has `.numpy()` or `__array__`, are known by that; nothing is imported for them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from numbers import Number
from typing import Any

import numpy as np

from onnxprune.data.base import SampleRequest
from onnxprune.data.batch import Array, Batch, joined
from onnxprune.data.columns import inputs_of, is_sample, one_label, one_sample
from onnxprune.errors import DataError, OnnxpruneError, UsageError
from onnxprune.support.messages import did_you_mean, one_line

# What arrays and tensors of all libraries have one of.
_ARRAYS = ("__array__", "__array_interface__", "detach")


def said(error: BaseException) -> str:
    """The message of an error of somebody else's code, in one line."""
    return f"{type(error).__name__}: {one_line(error)}"


def iterator(given: Any) -> Iterator[Any]:
    """Go through `given` once: an iterable, a reader with `get_next()`, or a sequence without an end of its own.

    Raises TypeError for anything else.
    """
    if hasattr(given, "get_next"):
        return iter(given.get_next, None)
    if not hasattr(given, "__iter__") and hasattr(given, "__getitem__") and hasattr(given, "__len__"):
        return (given[index] for index in range(len(given)))
    return iter(given)


def batches_of(items: Iterator[Any], request: SampleRequest) -> Iterator[Batch]:
    """Batches from items, each of which is a batch, or a sample where its arrays lack the batch axis.

    An item is a dictionary of arrays by input name, with the labels under the key that the request names; an array for
    the only input; or a tuple or list of the inputs in their order, with the labels last. Batches come as they are,
    samples as many together as the request says.

    Raises DataError for other items, and for what going through them raises.
    """
    waiting: list[Batch] = []
    for number, item in enumerate(_guarded(items, request)):
        feed, labels = _parts(item, request, f"item {number} of {request.spec}")
        if not is_sample({name: array.shape for name, array in feed.items()}, request):
            yield from _together(waiting, request)
            waiting = []
            yield Batch(feed, None if labels is None else np.atleast_1d(labels))
            continue
        waiting.append(replace(one_sample(feed, request), labels=None if labels is None else one_label(labels)))
        if len(waiting) == request.batch:
            yield from _together(waiting, request)
            waiting = []
    yield from _together(waiting, request)


def _together(samples: Sequence[Batch], request: SampleRequest) -> Iterator[Batch]:
    if samples:
        axes = {port.name: port.batch_axis for port in request.ports}
        yield joined([replace(sample, axes=axes) for sample in samples], request.spec)


def _guarded(items: Iterator[Any], request: SampleRequest) -> Iterator[Any]:
    while True:
        try:
            item = next(items)
        except StopIteration:
            return
        except OnnxpruneError:
            raise
        except (Exception, SystemExit) as error:  # whatever the user's code raises
            raise DataError(f"{request.spec} failed: {said(error)}") from error
        yield item


def _parts(item: Any, request: SampleRequest, what: str) -> tuple[dict[str, Array], Array | None]:
    """Arrays by input name, and labels."""
    ports = request.ports
    if isinstance(item, Mapping):
        return _named(item, request, what)
    if request.labels is not None:
        raise UsageError(
            f"{what} is not a dict, so it has no '{request.labels}'; give (input, label) pairs and no labels beside"
        )
    if is_array(item):
        parts: Sequence[Any] = [item]
    elif isinstance(item, tuple | list) and item:
        parts = item
    else:
        raise DataError(f"{what} is {_kind(item)}; expected {_expected(request)}")
    first = parts[0]
    if len(parts) <= 2 and (isinstance(first, Mapping) or _is_group(first, len(ports))):
        feed = _named(first, request, what)[0] if isinstance(first, Mapping) else _in_order(first, request, what)
        return feed, array_of(parts[1], f"the label of {what}") if len(parts) == 2 else None
    if len(parts) not in (len(ports), len(ports) + 1):
        raise DataError(f"{what} has {len(parts)} parts; expected {_expected(request)}")
    labels = array_of(parts[-1], f"the label of {what}") if len(parts) > len(ports) else None
    return _in_order(parts[: len(ports)], request, what), labels


def _is_group(value: Any, count: int) -> bool:
    """The inputs of a model with several, in a tuple or list of their own."""
    return count > 1 and isinstance(value, tuple | list) and len(value) == count and not is_array(value)


def _named(item: Mapping[Any, Any], request: SampleRequest, what: str) -> tuple[dict[str, Array], Array | None]:
    named = {str(name): value for name, value in item.items()}
    labels = None
    if request.labels is not None:
        if request.labels not in named:
            raise DataError(f"{what} has no labels '{request.labels}'{did_you_mean(request.labels, named)}")
        labels = array_of(named.pop(request.labels), f"the label of {what}")
    inputs = inputs_of(named, request, what)
    return {name: array_of(value, f"'{name}' of {what}") for name, value in inputs.items()}, labels


def _in_order(parts: Sequence[Any], request: SampleRequest, what: str) -> dict[str, Array]:
    pairs = zip(request.ports, parts, strict=True)
    return {port.name: array_of(part, f"'{port.name}' of {what}") for port, part in pairs}


def is_array(value: Any) -> bool:
    """An array, a tensor, a number, or numbers in lists."""
    if isinstance(value, list | tuple) and value:
        nested = isinstance(value, list) and all(isinstance(each, list) and is_array(each) for each in value)
        return nested or all(isinstance(each, Number) for each in value)
    return isinstance(value, Number) or any(hasattr(value, name) for name in _ARRAYS)


def array_of(value: Any, what: str) -> Array:
    """As a numpy array; what is on another device, or has gradients, is copied from there.

    Raises DataError for what is not an array; `what` is what the message names.
    """
    try:
        if hasattr(value, "detach"):  # a tensor of torch
            value = value.detach().cpu()
            value = (value.float() if str(value.dtype) == "torch.bfloat16" else value).numpy()
        array = np.asarray(value)
    except Exception as error:  # whatever a library raises over its own arrays, or numpy over lists of several lengths
        raise DataError(f"{what} cannot be made an array: {said(error)}") from error
    if array.dtype.kind == "O" and not all(isinstance(each, str | bytes) for each in array.flat):
        raise DataError(f"{what} is {_kind(value)}, not an array of numbers or texts")
    return array


def _expected(request: SampleRequest) -> str:
    names = [port.name for port in request.ports]
    shown = "{" + ", ".join(f"'{name}': array" for name in names) + "}"
    one = "an array" if len(names) == 1 else f"a tuple of {len(names)} arrays"
    return f"{shown}, {one}, or a pair of one of these and its labels"


def _kind(value: Any) -> str:
    return "None" if value is None else f"a {type(value).__name__}"
