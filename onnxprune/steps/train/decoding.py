"""Decoding in several processes: each reads its part of the data, and the samples come in the order of the data."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from dataclasses import replace
from queue import Empty
from typing import Any

from onnxprune.data.base import Batch, Data
from onnxprune.errors import DataError

# Samples that a process may be ahead.
_AHEAD = 64
_PATIENCE = 5.0  # seconds between two looks at whether a process is still there


def decoded(data: Data, count: int) -> Data:
    """The same data, read by so many processes; as it is where it cannot be read in parts, or `count` is 0."""
    if data.part is None or not count:
        return data
    return replace(data, start=lambda: in_processes(data, count), part=None)


def in_processes(data: Data, count: int) -> Iterator[Batch]:
    """A pass over the data, sample by sample.

    Args:
        data: it can be read in parts.
        count: processes.

    Raises whatever reading the data raises, DataError where a process dies.
    """
    assert data.part is not None
    context = multiprocessing.get_context("fork")  # what the data consists of need not be sent
    queues: list[Any] = [context.Queue(_AHEAD) for _ in range(count)]
    workers = [
        context.Process(target=_work, args=(data, index, count, queue), daemon=True)
        for index, queue in enumerate(queues)
    ]
    for worker in workers:
        worker.start()
    try:
        number = 0
        while True:  # sample i comes from process i mod count; the first that has no more is at the end
            found = _next(queues[number % count], workers[number % count], data.source)
            if found is None:
                return
            if isinstance(found, BaseException):
                raise found
            yield found
            number += 1
    finally:
        for worker in workers:
            worker.terminate()
            worker.join()


def _next(queue: Any, worker: Any, source: str) -> Any:
    while True:
        try:
            return queue.get(timeout=_PATIENCE)
        except Empty:
            if not worker.is_alive():
                raise DataError(f"{source}: a process that reads it died; try it without workers") from None


def _work(data: Data, index: int, count: int, queue: Any) -> None:
    assert data.part is not None
    try:
        for batch in data.part(index, count):
            queue.put(batch)
        queue.put(None)
    except BaseException as error:
        queue.put(error)
