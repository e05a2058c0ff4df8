"""Inputs for a model that comes without data: images like photographs, brought nearer to what the network asks for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial

from onnxprune.analysis import cost
from onnxprune.analysis.groups import Analysis
from onnxprune.analysis.input_values import size_of
from onnxprune.data.base import Batch, Data, length_of, load_data
from onnxprune.data.sources.synthetic import hints_of
from onnxprune.errors import MissingExtraError, ModelError, OnnxpruneError
from onnxprune.model.signature import ports_of
from onnxprune.ops.traits import runs_on_statistics
from onnxprune.runtime.session import Session
from onnxprune.support.progress import Progress, silent

# Samples, and of a batch; steps of gradients for each. Making them up may take so many MACs, some fifteen seconds of a
# processor, and so may what is fitted to them: observing, scoring and recovering run the network some ten times.
_SAMPLES, _BATCH, _STEPS, _MACS, _RUNS = 128, 128, 40, 8e11, 10
# A step is a pass forward, one back to the inputs, and as much again for what is remembered in between.
_PASSES = 3
# The time of so many MACs goes by whenever a node is called and its gradient taken: what counts in batches of one.
_CALL = 1e7
# Fewer samples say too little, and fewer steps are not worth the gradients.
_FEWEST, _FEWEST_STEPS = 32, 15


def made_up_samples(
    analysis: Analysis, sizes: Mapping[str, int] = {}, *, seed: int = 0, progress: Progress = silent
) -> Data:
    """Made-up inputs to fit a model to, without labels: as `--data synthetic` gives them, then distilled.

    Where torch is there, gradients through the network bring them nearer to what it was trained on, see
    `runtime.torch.distilled_inputs`, with fewer samples and steps for larger networks, and no gradients where even a
    few would take long.

    Args:
        analysis: the model.
        sizes: of dynamic axes, as the user named them.
        seed: of everything random.
        progress: is called with what is being done.

    Raises ModelError, DataError where no inputs can be made that the model runs on.
    """
    macs = max(cost.before(analysis).macs, 1)
    batches = _drawn(analysis, sizes, min(_SAMPLES, max(_FEWEST, int(_MACS / (_RUNS * macs)))), seed)
    calls = _CALL * len(analysis.model.graph) / max(1, length_of(batches[0]))
    passes = int(_MACS / (_PASSES * macs + calls))  # of one sample
    samples = min(_SAMPLES, max(_FEWEST, passes // _STEPS))
    steps = min(_STEPS, passes // samples)
    if steps >= _FEWEST_STEPS:
        batches = _distilled(analysis, batches, samples, steps, seed, progress)
    return Data("made-up inputs", labelled=False, start=partial(iter, batches))


def _drawn(analysis: Analysis, sizes: Mapping[str, int], samples: int, seed: int) -> list[Batch]:
    """Samples that the model runs on: dynamic axes get the sizes usual for what they are, else those of the analysis.

    Raises ModelError, DataError where there are none.
    """
    ports, hints = ports_of(analysis.model), hints_of(analysis.model, size_of(analysis))
    session = Session(analysis.model)
    batch_symbols = {port.batch_symbol for port in ports}
    known = {name: size for name, size in analysis.shapes.bindings.items() if name not in batch_symbols}
    refused: OnnxpruneError | None = None
    for tried in (sizes, {**known, **sizes}):
        try:
            found = load_data("synthetic", ports, samples=samples, batch=_BATCH, seed=seed, sizes=tried, hints=hints)
            batches = list(found.batches())
            session.run(batches[0].feed)
        except ModelError as error:
            refused = error
            continue
        return batches
    assert refused is not None
    raise refused


def _distilled(
    analysis: Analysis, batches: list[Batch], samples: int, steps: int, seed: int, progress: Progress
) -> list[Batch]:
    """About so many of the samples, distilled; as they were drawn without torch, and where it cannot run the model.

    Without running statistics a network says only of which class it is sure, which need not look like anything that it
    was trained on: then every other sample stays as it was drawn, of images the dead leaves.
    """
    chosen, kept = list(_first(batches, samples)), list[Batch]()
    if not any(runs_on_statistics(node) for node in analysis.model.graph):
        kept = [batch.take(slice(1, None, 2)) for batch in chosen if batch.cuttable and length_of(batch) > 1]
        chosen = [batch.take(slice(0, None, 2)) if batch.cuttable else batch for batch in chosen]
    given = [batch.feed for batch in chosen]
    try:
        from onnxprune.runtime.torch.distilled_inputs import distilled_inputs

        made = distilled_inputs(analysis.model, given, steps=steps, seed=seed, progress=progress)
    except (MissingExtraError, ModelError):
        return batches
    if all(new is old for new, old in zip(made, given, strict=True)):
        return batches
    return [*(replace(batch, feed=feed) for batch, feed in zip(chosen, made, strict=True)), *kept]


def _first(batches: list[Batch], samples: int) -> Iterator[Batch]:
    """Batches of about as many samples together."""
    taken = 0
    for batch in batches:
        length = length_of(batch)
        if taken + length > samples and batch.cuttable:
            batch, length = batch.take(slice(samples - taken)), samples - taken
        taken += length
        yield batch
        if taken >= samples:
            return
