"""Models that declare batches of any size and take one sample at a time: found out by a trial, then fed so."""

from __future__ import annotations

from onnxprune.data.base import Data, length_of
from onnxprune.data.split import in_batches_of
from onnxprune.errors import ModelError
from onnxprune.evaluation.metrics.base import Runs
from onnxprune.model.signature import Feed

ONE_BY_ONE = "the model declares batches of any size but takes one sample at a time, so it was given one at a time"


def as_taken(session: Runs, data: Data) -> tuple[Data, str]:
    """The samples as a model takes them, and a word on it: one by one where it refuses the first batch but no sample.

    Where it refuses those, too, the data stays as it is: whoever runs the model says why.
    """
    batch = next(data.batches(), None)
    if batch is None or not batch.cuttable or length_of(batch) < 2 or _runs(session, batch.feed):
        return data, ""
    return (in_batches_of(data, 1), ONE_BY_ONE) if _runs(session, batch.take(slice(1)).feed) else (data, "")


def _runs(session: Runs, feed: Feed) -> bool:
    try:
        session.run(feed, None)
    except ModelError:
        return False
    return True
