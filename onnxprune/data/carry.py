"""Sequences: samples in the order of time, whose states a model gives back from one call to the next."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from onnxprune.data.base import Array, Batch, Data
from onnxprune.data.split import in_batches_of
from onnxprune.errors import UsageError
from onnxprune.model.signature import Feed, Port, sizes_of
from onnxprune.support.messages import did_you_mean

Run = Callable[[Feed], Mapping[str, Array]]


def carried_states(
    texts: Iterable[str], inputs: Sequence[Port], outputs: Iterable[str], flag: str = "carry"
) -> dict[str, str]:
    """The output that each state comes from, by the input that it goes into, from texts like `h=hn` of an option.

    Raises UsageError for a malformed text, and for names that the model does not have.
    """
    found: dict[str, str] = {}
    known = [port.name for port in inputs]
    for text in texts:
        state, equals, output = (part.strip() for part in text.partition("="))
        if not equals:
            raise UsageError(f"--{flag} '{text}' is not an input and the output that it comes from, like h=hn")
        for name, names, what in ((state, known, "input"), (output, list(outputs), "output")):
            if name not in names:
                raise UsageError(f"--{flag} '{text}': the model has no {what} '{name}'{did_you_mean(name, names)}")
        found[state] = output
    return found


def in_sequence(data: Data, run: Run, ports: Sequence[Port], states: Mapping[str, str]) -> Data:
    """The same samples, each with the states that the original has reached there.

    Args:
        data: samples in the order of time, without the states. The first one begins with zeros.
        run: the original: all outputs by name, for the inputs of one sample.
        ports: the inputs of the model.
        states: see `carried_states`.
    """
    single = in_batches_of(data, 1)

    def batches() -> Iterator[Batch]:
        held: dict[str, Array] = {}
        for batch in single.batches():
            feed = {**batch.feed, **(held or _zeros(batch.feed, ports, states))}
            yield replace(batch, feed={port.name: feed[port.name] for port in ports}, axes=_axes(batch, ports))
            results = run(feed)
            held = {state: np.asarray(results[output]) for state, output in states.items()}

    return Data(data.source, data.labelled, batches, states=dict(states))


def _zeros(feed: Feed, ports: Sequence[Port], states: Mapping[str, str]) -> Feed:
    """States before the first sample."""
    sizes = sizes_of(feed, ports)
    zeros = {}
    for port in (port.bound(sizes) for port in ports if port.name in states):
        zeros[port.name] = np.zeros([size if isinstance(size, int) else 1 for size in port.shape], port.dtype)
    return zeros


def _axes(batch: Batch, ports: Sequence[Port]) -> dict[str, int | None]:
    return {port.name: batch.axes.get(port.name, port.batch_axis) for port in ports}
