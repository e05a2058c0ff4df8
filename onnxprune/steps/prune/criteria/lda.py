"""How well a unit tells the classes apart: the one criterion that cannot do without labels."""

from __future__ import annotations

import numpy as np

from onnxprune.analysis.groups import Group
from onnxprune.errors import UsageError
from onnxprune.statistics.accumulators import Classes, pooled_by_sample
from onnxprune.steps.prune.criteria.base import Scores, ScoringContext, by_size, criterion


@criterion(
    "lda",
    needs=("activations", "labels"),
    cost="one pass over the data",
    source='Tian et al. 2021, "Task Dependent Deep LDA Pruning of Neural Networks", section 3',
)
def lda(group: Group, context: ScoringContext) -> Scores:
    """Share of the variance of a unit's mean activation per sample that lies between classes.

    b / (b + w) with the scatter between classes b and within them w: it ranks as Fisher's ratio b / w, which Tian et
    al. use under the assumption that units are uncorrelated. They measure it in the last layer and trace it back; here
    every group is measured where it is read. In [0, 1]; units that never change have 0, as do all where the labels are
    of one class. Raises UsageError without integer labels, one for each sample.
    """
    places = context.activations.places(group)
    if not places:
        return by_size(group, context)
    _check_labels(context)
    found = context.activations.per_group("classes", lambda each, place: Classes(pooled_by_sample(place, each.atom)))
    shares = []
    for place in places:
        classes = found[group.id, place]
        between, within = classes.between[0], classes.within[0]
        total = between + within
        shares.append(np.divide(between, total, out=np.zeros_like(total), where=total > 0))
    return np.asarray(np.mean(shares, axis=0))


def _check_labels(context: ScoringContext) -> None:
    first = next(context.activations.data.batches())
    if first.labels is None:
        raise UsageError(f"lda needs labels, and {context.activations.data.source} has none: give --labels")
    if first.labels.ndim != 1 or first.labels.dtype.kind not in "iu":
        shown = f"{first.labels.dtype.name} of shape {'x'.join(map(str, first.labels.shape))}"
        raise UsageError(f"lda needs a class number for each sample; the labels are {shown}")
