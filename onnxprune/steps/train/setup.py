"""The parts of a training, put together from a model, samples and options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch
from torch import Tensor

from onnxprune.analysis.copy import copy_model
from onnxprune.analysis.groups import Analysis
from onnxprune.analysis.inspect import analyze_model
from onnxprune.data.base import Batch, Data
from onnxprune.errors import ModelError, UsageError
from onnxprune.evaluation.metrics import Metric, metric
from onnxprune.model.signature import Port, ports_of
from onnxprune.runtime.torch.losses import choose_loss
from onnxprune.steps.train.augment import Augmentation, make_augmentation
from onnxprune.steps.train.computing import Computing, computing
from onnxprune.steps.train.decoding import decoded
from onnxprune.steps.train.distil import Targets, Teacher, feature_values
from onnxprune.steps.train.evaluate import Evaluation
from onnxprune.steps.train.losses import Objective
from onnxprune.steps.train.network import Network
from onnxprune.steps.train.options import AUTO, TrainOptions
from onnxprune.steps.train.parallel import Processes
from onnxprune.steps.train.samples import MOST_APART, Portion, TrainingSamples, hold_apart
from onnxprune.support.memory import bytes_for
from onnxprune.support.messages import did_you_mean
from onnxprune.support.progress import Progress, silent

# So many samples decide what can be decided beforehand: statistics of normalizations, kinds of outputs.
_FIRST = 256

Zeros = Mapping[str, npt.NDArray[np.bool_]]


@dataclass(frozen=True)
class Running:
    """The settings of the context for a training.

    Attributes:
        loss: on labels: auto, a name of `runtime.torch.losses`, or module:function.
        metric: what is reported and compared; None: what fits.
        device: where torch computes, "cpu" or "cuda".
        seed: of everything random.
        progress: is called with how far it is.
        checkpoint: file that the state is kept in; None for none.
        every: minutes between two checkpoints.
        resume: go on from the checkpoint, where there is one.
        workers: processes that decode images; 0: the training does it between its steps.
    """

    loss: str = AUTO
    metric: str | None = None
    device: str = "cpu"
    seed: int = 0
    progress: Progress = silent
    checkpoint: Path | None = None
    every: float = 5.0
    resume: bool = False
    workers: int = 0


@dataclass
class Setup:
    """Everything that a training needs.

    Attributes:
        options, running, among: what was asked for, where it runs, and who takes part.
        samples: what is trained on.
        network: what is trained.
        objective: what is minimized.
        targets: the teacher's values; None without one.
        augmentation: how samples are varied.
        evaluation: what is evaluated on.
        computing: where and how torch computes.
        notes: what a person should know.
    """

    options: TrainOptions
    running: Running
    among: Processes
    samples: TrainingSamples
    network: Network
    objective: Objective
    targets: Targets | None
    augmentation: Augmentation
    evaluation: Evaluation
    computing: Computing
    notes: list[str] = field(default_factory=list)

    def run(self, portion: Portion) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor] | None, Tensor | None]:
        """Outputs, what the teacher says, and labels of samples as they are, without gradients."""
        feed = self.computing.placed(tensors(portion.batch))
        targets = None if self.targets is None else self.targets(portion, feed, varied=False)
        with torch.no_grad():
            found = self.network(feed, self.objective.features, training=False)
        return found, targets, batch_labels(portion.batch, self.computing.device)


def tensors(batch: Batch) -> dict[str, Tensor]:
    """The inputs as torch has them. Raises ModelError for inputs of texts, which torch cannot train on."""
    for name, array in batch.feed.items():
        if array.dtype.kind in "USO":
            raise ModelError(f"input '{name}' holds texts, and torch cannot compute with those")
    return {name: torch.from_numpy(np.ascontiguousarray(_known(array))) for name, array in batch.feed.items()}


def _known(array: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """In a type that torch has."""
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:
        return array.astype(np.int64)
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array


def batch_labels(batch: Batch, device: torch.device) -> Tensor | None:
    """The labels of a batch; integers in int64."""
    if batch.labels is None:
        return None
    array = batch.labels if batch.labels.dtype.kind == "f" else batch.labels.astype(np.int64)
    return torch.from_numpy(np.ascontiguousarray(array)).to(device)


def make_setup(
    model: ir.Model,
    data: Data,
    options: TrainOptions,
    running: Running,
    among: Processes,
    *,
    teacher: Teacher | None,
    evaluation: Data | None,
    zeros: Zeros,
    analysis: Analysis | None,
) -> Setup:
    """Put a training together; see `loop.train` for the arguments and errors."""
    fixed = any(isinstance(size, int) for port in ports_of(model) for size in port.shape[:1])
    notes: list[str] = []
    samples, apart = _samples(decoded(data, running.workers), evaluation, options, running, fixed=fixed, notes=notes)
    first = samples.first(_FIRST)
    made = [tensors(portion.batch) for portion in first]
    how = computing(options, among.device(running.device), made[0])
    feeds = [how.placed(feed) for feed in made]
    network = Network(model, options, feeds, how, among, zeros)
    notes += network.notes
    names = _features(network, options, model)
    targets = None
    if teacher is not None and options.distil != 0:
        targets = Targets(teacher, names, how, bytes_for("training"))
    said = None if targets is None else targets(first[0], feeds[0], varied=True)
    outputs = network.module.outputs
    objective = Objective(options, outputs, loss=running.loss, labelled=samples.labelled, targets=targets, sample=said)
    _fit(network, objective, first[0], feeds[0], said, notes)
    methods = options.chosen()
    if methods:
        known = analyze_model(copy_model(model)) if analysis is None else analysis
        network.begin(methods, known, samples=samples.count, seed=running.seed)
    augmentation = make_augmentation(
        options.augment, list(made[0].values()), per_sample=_per_sample(objective, first[0])
    )
    with torch.no_grad():
        found = network(feeds[0], training=False)
    measured = _evaluation(model, running.metric, objective, apart, found, samples)
    return Setup(options, running, among, samples, network, objective, targets, augmentation, measured, how, notes)


def _samples(
    data: Data, evaluation: Data | None, options: TrainOptions, running: Running, *, fixed: bool, notes: list[str]
) -> tuple[TrainingSamples, list[Portion]]:
    """The samples to train on, and those to evaluate on."""
    fitting = data
    if evaluation is None:
        fitting, evaluation = hold_apart(data, options.holdout, fixed=fixed)
    room = bytes_for("training")
    samples = TrainingSamples(fitting, options.batch_size, room, running.seed, fixed=fixed)
    if evaluation is None:
        notes.append("evaluated on the samples that it was trained on: there are too few to keep some apart")
        return samples, [_renumbered(portion) for portion in samples.first(MOST_APART)]
    apart = TrainingSamples(evaluation, options.batch_size, room, fixed=fixed)
    notes.append(f"trained on {samples.count} samples, evaluated on {apart.count} others")
    shared = len(samples.digests() & apart.digests())
    if shared:
        notes.append(
            f"{shared} of the samples that it is evaluated on are also trained on, so it looks better than it is"
        )
    return samples, [_renumbered(portion) for portion in apart.first(apart.count)]


def _renumbered(portion: Portion) -> Portion:
    """Numbers that no training sample has, so that what the teacher says to both is kept apart."""
    return Portion(portion.batch, -2 - portion.numbers, portion.whole)


def _features(network: Network, options: TrainOptions, model: ir.Model) -> list[str]:
    """The inner values that are compared. Raises UsageError for one that the model does not have."""
    for name in options.feature_values:
        if name not in network.module.values:
            raise UsageError(f"the model has no value '{name}'{did_you_mean(name, network.module.values)}")
    return list(options.feature_values) or (feature_values(model) if options.features else [])


def _fit(
    network: Network,
    objective: Objective,
    first: Portion,
    feed: Mapping[str, Tensor],
    said: Mapping[str, Tensor] | None,
    notes: list[str],
) -> None:
    """Leave out inner values and weights that the training cannot use."""
    objective.features = [name for name in objective.features if name in network.module.values]
    values = network(feed, objective.features, training=False)
    if said is not None and objective.features:
        objective.fit_features(values, said)
        notes.append(f"inner values beside the original's: {', '.join(objective.features) or 'none that fit'}")
    device = next(iter(feed.values())).device
    loss = objective(values, batch_labels(first.batch, device), said)
    unreached = network.freeze_unreached(loss)
    if unreached:
        notes.append(f"{len(unreached)} weights stay as they are: the loss does not depend on them")


def _per_sample(objective: Objective, first: Portion) -> bool:
    """Are targets the same when an image is moved? One label per sample is; what the teacher says follows anyway."""
    labels = first.batch.labels
    return not objective.uses_labels or labels is None or labels.ndim == 1


def _evaluation(
    model: ir.Model,
    named: str | None,
    objective: Objective,
    apart: Sequence[Portion],
    found: Mapping[str, Tensor],
    samples: TrainingSamples,
) -> Evaluation:
    """The metric that was asked for, else the one that fits: accuracy for classes with labels, beside the original
    agreement or SNR, nothing where there is neither.
    """
    output = objective.outputs[0]
    value = next(value for value in model.graph.outputs if value.name == output)
    shape = tuple(size if isinstance(size, int) else str(size) for size in value.shape or ())
    labels = batch_labels(apart[0].batch, torch.device("cpu"))
    classes = labels is not None and choose_loss(found[output], labels) == "cross-entropy"
    chosen: Metric | None = None
    if named is not None:
        chosen = metric(named, samples.labelled)
        if chosen.needs_reference and not objective.distances:
            raise UsageError(f"metric {named} compares with the original, which this training is not given")
    elif objective.uses_labels and classes:
        chosen = metric("accuracy", True)
    elif objective.distances:
        chosen = metric(
            "snr" if objective.distances.get(output) != "kl" else None, False, Port(output, "tensor(float)", shape)
        )
    by_metric = named is not None or (objective.uses_labels and classes)
    return Evaluation(apart, objective, chosen, output, by_metric)
