"""The training loop: updates, evaluations, a way back where it collapses, and a result that is never worse.

trained = train_model(model, data, TrainOptions(epochs=2), teacher=teacher_of(original, keep))
save(trained.model, "trained.onnx")
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch
from torch import Tensor

from onnxprune.analysis.groups import Analysis
from onnxprune.data.base import Data
from onnxprune.steps.train.augment import Part
from onnxprune.steps.train.computing import reproducible
from onnxprune.steps.train.distil import Teacher
from onnxprune.steps.train.evaluate import Evaluated
from onnxprune.steps.train.method import Moment
from onnxprune.steps.train.network import Snapshot
from onnxprune.steps.train.optim import MovingAverage, make_optimizer, optimizer_defaults, set_rate
from onnxprune.steps.train.options import TrainOptions
from onnxprune.steps.train.parallel import processes
from onnxprune.steps.train.rate import rate_factor
from onnxprune.steps.train.samples import Portion
from onnxprune.steps.train.setup import Running, Setup, Zeros, batch_labels, make_setup, tensors
from onnxprune.steps.train.state import TrainingCheckpoint, TrainingPlace
from onnxprune.steps.train.trained import Trained
from onnxprune.steps.train.write import Written, write_weights
from onnxprune.support.progress import Counted, duration

# The mean loss of so many updates says that the training has collapsed, where it is above that of a constant answer
# and above twice that of the first update.
_WINDOW, _WORSE = 20, 2.0
# After a collapse the rate is divided by this.
_SLOWER = 3.0
# With fewer updates than this a training that gained nothing was too short, most likely.
_FEW = 50


def train_model(
    model: ir.Model,
    data: Data,
    options: TrainOptions = TrainOptions(),  # noqa: B008  (frozen)
    *,
    teacher: Teacher | None = None,
    evaluation: Data | None = None,
    zeros: Zeros | None = None,
    analysis: Analysis | None = None,
    running: Running = Running(),  # noqa: B008  (frozen)
) -> Trained:
    """Train a model on samples, with labels, beside a teacher, or both.

    Args:
        model: it is not changed.
        data: what to train on, labels where it has them.
        options: how.
        teacher: the original, see `distil.teacher_of`; None: labels alone.
        evaluation: samples to evaluate on that are not trained on; None: a share of `data` is kept apart.
        zeros: per weight, which entries may be other than zero: bool, of its shape.
        analysis: of the model, for methods that look at units; None: made where one does.
        running: device, seed, progress and checkpoints.

    Raises UsageError for options that do not fit, ModelError for a model that torch cannot train, DataError for data
    that does not fit the model.
    """
    with processes() as among, reproducible(running.device), torch.random.fork_rng():
        torch.manual_seed(running.seed)
        setup = make_setup(
            model,
            data,
            options,
            running,
            among,
            teacher=teacher,
            evaluation=evaluation,
            zeros=zeros or {},
            analysis=analysis,
        )
        memory = TrainingCheckpoint(setup, model, teacher)
        return _Training(setup, memory).run(model, zeros or {})


class _Training:
    """A training on its way; what has to survive an interruption is in `self.at` and in the tensors."""

    def __init__(self, setup: Setup, memory: TrainingCheckpoint) -> None:
        self.setup, self.memory = setup, memory
        self.options, self.network, self.among = setup.options, setup.network, setup.among
        self.rate, _ = optimizer_defaults(
            self.options, normalized=bool(self.network.inserted), rounded=bool(self.network.integers.weights)
        )
        self.optimizer = self._optimizer()
        self.average = MovingAverage(self.network.weights, self.options.ema) if self.options.ema else None
        self.scaler = torch.amp.GradScaler(setup.computing.device.type, enabled=self.network.scales_gradients)
        epochs = math.ceil(self.options.epochs * setup.samples.steps)
        self.total = epochs if self.options.updates is None else self.options.updates
        self.constant = math.inf
        self.best: Snapshot = self.network.snapshot()
        self.last_saved = self.began = time.monotonic()

    def _optimizer(self) -> torch.optim.Optimizer:
        network = self.network
        return make_optimizer(
            self.options,
            network.optimized,
            network.roles,
            normalized=bool(network.inserted),
            processes=self.among.count,
            rates=network.rates,
        )

    # -- from the beginning to the end

    def run(self, model: ir.Model, zeros: Zeros) -> Trained:
        """Train, and write the weights that are kept into a copy of the model."""
        self.at = TrainingPlace()
        if not self._resumed():
            self.at.start = self.at.best = self._evaluated()
            self.at.history.append(self.at.start)
        self._watch()
        while not self._over():
            self._epoch()
        self._choose()
        self._save(finished=True)
        return self._result(model, zeros)

    def _over(self) -> bool:
        return self.at.stopped or self.at.step >= self.total or self._share() >= 1

    def _share(self) -> float:
        """How much of the training is done, by updates or by the clock, in [0, 1]."""
        steps = self.at.step / self.total if self.total else 1.0
        minutes = self.options.minutes
        return min(max(steps, 0.0 if minutes is None else self._seconds() / (60 * max(minutes, 1e-9))), 1.0)

    def _seconds(self) -> float:
        return self.at.seconds + time.monotonic() - self.began

    def _epoch(self) -> None:
        """The updates of an epoch that are still due."""
        updates = islice(self.setup.samples.epoch(self.at.epoch), self.at.within, None)
        for update in updates:
            share = self.among.shared(self._share())
            if self.among.shared(self._over()):
                return
            loss = self._update(update, share)
            self.at.within += 1
            if self._collapsed(loss):
                self._go_back()
            elif int(self.at.evaluated_at * self.options.evaluations) < int(self._share() * self.options.evaluations):
                self._evaluate()
            if self.among.shared(time.monotonic() - self.last_saved > 60 * self.setup.running.every):
                self._save()
            if self.at.stopped:
                return
        self.at.epoch, self.at.within = self.at.epoch + 1, 0

    # -- one update

    def _update(self, update: list[Portion], share: float) -> float:
        """One step of the optimizer; the mean loss over the samples."""
        at, step = self.at, self.at.step
        first = rate_factor(self.options, share + (1 - share) / (self.total - step + 1))
        rate = self.rate * at.slower * first
        set_rate(self.optimizer, rate)
        self.network.moment = Moment(share, rate, step)
        torch.manual_seed(hash((self.setup.running.seed, step)) % (1 << 63))
        generator = torch.Generator().manual_seed(hash((self.setup.running.seed, step, 1)) % (1 << 63))
        self.optimizer.zero_grad(set_to_none=True)
        pieces = list(self._pieces(update))
        samples = sum(len(portion) for portion, _, _ in pieces)
        total, term = 0.0, self.network.term()
        for portion, start, whole in pieces:
            loss = self._loss(portion, Part(start, start + len(portion), whole), generator)
            weight = len(portion) / samples
            minimized = loss * weight if term is None else loss * weight + term
            torch.autograd.backward(self.scaler.scale(minimized))
            term = None
            total += float(loss.detach()) * weight
        self._step()
        at.step += 1
        at.samples += samples * self.among.count
        at.losses.append((at.step, rate, total))
        self._say(total)
        return total

    def _pieces(self, update: list[Portion]) -> Iterator[tuple[Portion, int, int]]:
        """The parts that this process computes in turn, each with its place in the update and its size."""
        total = sum(map(len, update))
        for portion, start in self.among.parts(update, self.options.batch_size):
            parts = 1 if portion.whole else self.options.accumulate
            size = max(math.ceil(len(portion) / parts), 1)
            for at in range(0, len(portion), size) if parts > 1 else ():
                yield portion.part(at, at + size), start + at, total
            if parts == 1:
                yield portion, start, total

    def _loss(self, portion: Portion, part: Part, generator: torch.Generator) -> Tensor:
        setup, objective = self.setup, self.setup.objective
        state = generator.get_state()  # every part of an update draws from the same numbers
        mixed = setup.augmentation(tensors(portion.batch), generator, part)
        generator.set_state(state)
        feed = setup.computing.placed(mixed.feed)
        targets = None
        if setup.targets is not None:
            targets = setup.targets(portion, feed, varied=bool(setup.augmentation))
        found = self.network(feed, objective.features, training=True)
        return objective(found, batch_labels(portion.batch, setup.computing.device), targets, mixed)

    def _step(self) -> None:
        if self.options.clip is not None or self.network.effects:
            self.scaler.unscale_(self.optimizer)
        self.network.before_step()
        if self.options.clip is not None:
            torch.nn.utils.clip_grad_norm_(self.network.weights.values(), self.options.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.network.after_step()
        if self.average is not None:
            self.average.update(self.network.weights)

    # -- watching over it

    def _watch(self) -> None:
        """The loss of a constant answer."""
        outputs, targets, labels = self.setup.run(self.setup.evaluation.portions[0])
        constant = self.setup.objective.of_constant(outputs, labels, targets)
        self.constant = math.inf if constant is None else constant

    def _collapsed(self, loss: float) -> bool:
        """Not a number, or worse than a constant answer for a while."""
        at = self.at
        window = [each for _, _, each in at.losses[-_WINDOW:]]
        limit = max(self.constant, _WORSE * max(at.start.loss, at.losses[0][2]))
        above = at.step - at.back_at >= _WINDOW and float(np.mean(window)) > limit
        return self.among.any(not np.isfinite(loss) or above)

    def _go_back(self) -> None:
        """The best weights so far, with a lower rate and an optimizer that knows nothing yet."""
        at = self.at
        at.stopped = at.retries >= self.options.retries
        at.retries += 1
        at.slower /= _SLOWER
        at.back_at = at.step
        self.network.restore(self.best)
        self.optimizer = self._optimizer()
        self.scaler = torch.amp.GradScaler(self.setup.computing.device.type, enabled=self.network.scales_gradients)
        if self.average is not None:
            self.average = MovingAverage(self.network.weights, self.options.ema)
        lower = "training ends there" if at.stopped else f"it goes on at a rate of {self.rate * at.slower:.2g}"
        at.notes.append(f"training collapsed at step {at.step}, back to the weights of step {at.best.step}; {lower}")
        self.setup.running.progress(at.notes[-1])

    def _evaluated(self) -> Evaluated:
        """The weights as they are now, or their moving average."""
        own = self.network.snapshot() if self.average is not None else None
        if self.average is not None:
            self.network.restore(self.average.values)
        found = self.setup.evaluation(self.setup.run, self.at.step)
        if own is not None:
            self.network.restore(own)
        shared: Evaluated = self.among.shared(found)
        return shared

    def _evaluate(self) -> None:
        """Evaluate, remember the best, and stop where none came for too long."""
        at, evaluation = self.at, self.setup.evaluation
        at.evaluated_at = self._share()
        found = self._evaluated()
        at.history.append(found)
        if evaluation.better(found, at.best):
            at.best, at.waited = found, 0
            self.best = self._current()
            return
        at.waited += 1
        if self.options.patience is not None and at.waited >= self.options.patience:
            at.stopped = True
            at.notes.append(f"stopped at step {at.step}: no better evaluation in {at.waited}")

    def _current(self) -> Snapshot:
        return {**self.network.snapshot(), **(self.average.values if self.average is not None else {})}

    def _choose(self) -> None:
        """The weights that are kept: the best, or the last ones where those are asked for and are not worse than at
        the start. Where methods take part the last ones are: zeros and gates are settled at the end only.
        """
        at = self.at
        if self.network.effects and at.step:
            self._settle()
            return
        if at.step and at.back_at == at.step:
            return  # the best ones are there already
        if at.history[-1].step != at.step:
            self._evaluate()
        if self.options.keep == "last" and at.history[-1].step == at.step:
            last = at.history[-1]
            if self.setup.evaluation.better(at.start, last):
                at.notes.append("the last weights are worse than those at the start; the best are kept")
            else:
                at.best, self.best = last, self._current()

    def _settle(self) -> None:
        """Let methods come to an end, and keep what they end with."""
        at = self.at
        if at.back_at == at.step:
            self.network.restore(self.best)
        self.network.finish(Moment(1.0, 0.0, at.step))
        at.best, self.best = self._evaluated(), self._current()
        at.history = [each for each in at.history if each.step != at.step] + [at.best]

    # -- what is said and kept

    def _say(self, loss: float) -> None:
        at, evaluation = self.at, self.setup.evaluation
        seconds = max(self._seconds(), 1e-9)
        left = seconds * (1 - self._share()) / max(self._share(), 1e-9)
        shown = "" if at.history[-1].metric is None else f", {evaluation.metric.name} {at.history[-1].metric:.3f}"  # type: ignore[union-attr]
        text = (
            f"training, step {at.step} of {self.total}: loss {loss:.4g}{shown}, {at.samples / seconds:.0f} samples/s, "
            f"{duration(left)} left"
        )
        if self.among.writes:
            self.setup.running.progress(Counted(text, at.step, self.total))

    def _resumed(self) -> bool:
        """Take up the checkpoint, where that is asked for."""
        running = self.setup.running
        found = self.memory.load(self.network, self.optimizer, self.average) if running.resume else None
        if found is None:
            return False
        self.at, self.best = found
        return True

    def _save(self, *, finished: bool = False) -> None:
        self.last_saved = time.monotonic()
        if self.setup.running.checkpoint is not None and not (finished and self.at.step == 0):
            now = replace(self.at, seconds=self._seconds())
            self.memory.save(now, self.network, self.optimizer, self.average, self.best)

    def _result(self, model: ir.Model, zeros: Zeros) -> Trained:
        at, evaluation = self.at, self.setup.evaluation
        copy = model.clone()
        copy.meta.update(model.meta)
        written = Written()
        found: dict[str, npt.NDArray[np.bool_]] = {}
        if at.best.step:
            self.network.restore(self.best)
            result = self.network.result()
            found = self.network.zeros(result)
            written = write_weights(copy, result, {**zeros, **found})
            at.notes.extend(self.network.remarks(result))
        else:
            few = f": {at.step} updates are few, try more epochs" if 0 < at.step < _FEW else ""
            at.notes.append(f"training found nothing better than the weights at the start, which are kept{few}")
        name = None if evaluation.metric is None else evaluation.metric.name
        if written.clipped:
            at.notes.append(f"{len(written.clipped)} weights were beyond what their type holds, and got its limit")
        return Trained(
            copy,
            at.start,
            at.best,
            tuple(at.history),
            tuple(at.losses),
            name,
            at.step,
            at.samples,
            self._seconds(),
            len(self.network.weights),
            written,
            (*self.setup.notes, *at.notes),
            found,
            self.network.scores() if at.best.step else {},
        )
