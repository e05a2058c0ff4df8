"""The network that is trained: a copy of the model in torch, with normalizations put in where that helps."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch
from torch import Tensor

from onnxprune.analysis.groups import Analysis
from onnxprune.errors import ModelError, UsageError
from onnxprune.ops.traits import runs_on_statistics
from onnxprune.runtime.torch.module import TorchModel
from onnxprune.steps.train.computing import Computing, full
from onnxprune.steps.train.integers import train_integers
from onnxprune.steps.train.method import Effect, Moment, Scene, TrainingMethod
from onnxprune.steps.train.normalization import folded, insert_normalization, lacks_normalization
from onnxprune.steps.train.options import AUTO, TrainOptions
from onnxprune.steps.train.parallel import Processes, replicated
from onnxprune.steps.train.parameters import trainable
from onnxprune.support.messages import one_line

Feed = Mapping[str, Tensor]
Snapshot = dict[str, Tensor]
# Statistics of fewer samples than this are too rough to train on.
_LEAST_BATCH = 8


class Network:
    """A model in training.

    Args:
        model: it is not changed.
        options: normalization, precision, layout and the rest.
        feeds: inputs of some samples, as they are trained on.
        computing: where and how it computes.
        among: the processes that train together.
        zeros: per weight, which entries may be other than zero: bool, of its shape.

    Attributes:
        module: the network in torch.
        weights: what is trained, by name.
        roles: of the weights, see `ops.learned`.
        inserted: the normalizations that were put in.
        integers: weights that the file has as integers, see `integers`.
        effects: the methods that take part, see `method`; none before `begin`.
        notes: what a person should know.
    """

    def __init__(
        self,
        model: ir.Model,
        options: TrainOptions,
        feeds: Sequence[Feed],
        computing: Computing,
        among: Processes,
        zeros: Mapping[str, npt.NDArray[np.bool_]],
    ) -> None:
        self._options, self._computing = options, computing
        self.notes: list[str] = []
        working = model.clone()
        self.integers = train_integers(working, scales=options.scales)
        if self.integers.weights:
            self.notes.append(f"{len(self.integers.weights)} weights are trained through the rounding of the file")
        if self.integers.fixed:
            self.notes.append(f"{len(self.integers.fixed)} weights stay as they are: integers in a form of their own")
        samples = max((len(value) for value in feeds[0].values() if value.ndim), default=1)
        wanted = options.normalization == "batch" or (
            options.normalization == AUTO and samples >= _LEAST_BATCH and lacks_normalization(model)
        )
        self.inserted = insert_normalization(working, feeds, computing.device) if wanted else []
        if self.inserted:
            self.notes.append(f"trained with {len(self.inserted)} normalizations put in and folded away again")
        self._by_batch = options.statistics == "batch" and samples >= _LEAST_BATCH
        if options.statistics == "batch" and not self._by_batch and any(map(runs_on_statistics, working.graph)):
            self.notes.append(f"statistics of normalizations stay as they are: batches have {samples} samples")
        self.module = TorchModel(working)
        computing.place(self.module)
        left_out = {*(norm.bias for norm in self.inserted), *self.integers.scales}
        own = self.module.weights
        roles = {**{name: slot.role for name, slot in trainable(working).items()}, **self.integers.roles}
        self.roles = {name: role for name, role in roles.items() if name in own and name not in left_out}
        self.weights = {name: own[name] for name in self.roles}
        for name, weight in own.items():
            weight.requires_grad_(name in self.weights)
        self._zeros = {name: torch.from_numpy(mask).to(computing.device) for name, mask in zeros.items() if name in own}
        self.keep_zeros()
        self._among = among
        self._callable: torch.nn.Module = self.module
        self.effects: dict[str, Effect] = {}
        self.moment: Moment | None = None

    def freeze_unreached(self, loss: Tensor) -> list[str]:
        """Leave out weights that a loss does not depend on; their names. Then the network is ready to be trained.

        Raises ModelError where torch cannot differentiate it, UsageError where no weight is left.
        """
        try:
            gradients = (
                () if not self.weights else torch.autograd.grad(loss, list(self.weights.values()), allow_unused=True)
            )
        except (RuntimeError, NotImplementedError) as error:
            raise ModelError(f"torch cannot differentiate the model: {one_line(error)}") from error
        unreached = [name for name, found in zip(self.weights, gradients, strict=True) if found is None]
        for name in unreached:
            self.weights.pop(name).requires_grad_(False)
        if not self.weights:
            raise UsageError("the loss depends on no weight of the model, so nothing can be trained")
        self._callable = replicated(self.module, self._among, self._computing.device)
        if self._options.compile:
            self._callable = torch.compile(self._callable)  # type: ignore[assignment]
        return unreached

    def begin(self, methods: Sequence[TrainingMethod], analysis: Analysis, *, samples: int, seed: int) -> None:
        """Let methods take part. Raises UsageError where one cannot, or is given twice."""
        if methods and self._options.compile:
            raise UsageError("compile does not go with training methods and penalties: leave it out")
        if methods and self._options.ema:
            raise UsageError("ema does not go with training methods and penalties: an average has no exact zeros")
        scene = Scene(self.module.weights, self.roles, analysis, self.inserted, samples, seed, self._zeros)
        scene = replace(scene, roles={name: self.roles[name] for name in self.weights})
        for each in methods:
            if each.name in self.effects:
                raise UsageError(f"{each.name} is given twice")
            self.effects[each.name] = each.start(scene)

    @property
    def optimized(self) -> dict[str, torch.nn.Parameter]:
        """The parameters that the optimizer trains: weights, and the parameters of methods as METHOD/NAME."""
        own = {f"{name}/{key}": each for name, key, each in self._own() if isinstance(each, torch.nn.Parameter)}
        return {**self.weights, **own}

    @property
    def rates(self) -> dict[str, float]:
        """Factors on the learning rate of parameters of methods."""
        return {f"{name}/{key}": effect.rate for name, effect in self.effects.items() for key in effect.parameters}

    def _own(self) -> Iterator[tuple[str, str, Tensor]]:
        for name, effect in self.effects.items():
            for key, tensor in (*effect.parameters.items(), *effect.buffers.items()):
                yield name, key, tensor

    def seen(self, *, training: bool) -> dict[str, Tensor]:
        """The weights that the forward pass uses in place of its own, by name; none before the first update."""
        found: dict[str, Tensor] = {}
        if self.moment is None:
            return found
        for effect in self.effects.values():
            own: dict[str, Tensor] = {**self.module.weights, **found}
            found.update(effect.weights(own, self.moment, training=training))
        return found

    def term(self) -> Tensor | None:
        """The additions of methods to the loss of an update."""
        assert self.moment is not None
        found = [effect.term(self.weights, self.moment) for effect in self.effects.values()]
        terms = [each for each in found if each is not None]
        return torch.stack(terms).sum() if terms else None

    def before_step(self) -> None:
        """The gradients are complete."""
        assert self.moment is not None
        for effect in self.effects.values():
            self._among.average([each.grad for each in effect.parameters.values() if each.grad is not None])
            effect.before_step(self.weights, self.moment)

    @torch.no_grad()
    def after_step(self) -> None:
        """The optimizer has made its step."""
        assert self.moment is not None
        self.keep_zeros()
        for effect in self.effects.values():
            effect.after_step(self.weights, self.moment)

    @torch.no_grad()
    def finish(self, moment: Moment) -> None:
        """The last update was made."""
        self.moment = moment
        for effect in self.effects.values():
            effect.finish(self.weights, moment)

    def __call__(self, feed: Feed, keep: Collection[str] = (), *, training: bool) -> dict[str, Tensor]:
        """Outputs and the inner values in `keep`, floats in float32; training by statistics of the batch."""
        self.module.train(training and (self._by_batch or bool(self.inserted)))
        run = self._callable if training else self.module
        self.module.substitutes = self.seen(training=training)
        with self._computing.context():
            return full(run(feed, tuple(keep)))

    @property
    def scales_gradients(self) -> bool:
        """In float16 small gradients vanish unless they are scaled."""
        return self._computing.precision == torch.float16

    @torch.no_grad()
    def keep_zeros(self) -> None:
        """Set to zero what has to stay there."""
        own = self.module.weights
        for name, mask in self._zeros.items():
            own[name].mul_(mask)

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Trained weights, running statistics, and what belongs to methods, by name."""
        yield from self.weights.items()
        yield from self.module.statistics.items()
        for name, key, tensor in self._own():
            yield f"{name}/{key}", tensor

    def snapshot(self) -> Snapshot:
        """A copy of them."""
        return {name: tensor.detach().clone() for name, tensor in self.tensors()}

    @torch.no_grad()
    def restore(self, snapshot: Mapping[str, Tensor]) -> None:
        """Back to a snapshot, or to weights by name that leave out some."""
        for name, tensor in self.tensors():
            if name in snapshot:
                tensor.copy_(snapshot[name])

    @torch.no_grad()
    def result(self) -> dict[str, Tensor]:
        """All weights and statistics that may have changed, as the model has them: integers are, and nothing put in."""
        fixed = {norm.bias: self.module.weights[norm.bias] for norm in self.inserted}
        own = {**self.weights, **self.module.statistics, **fixed, **self.seen(training=False)}
        return self.integers.written(folded(own, self.inserted), self.module.weights)

    def zeros(self, result: Mapping[str, Tensor]) -> dict[str, npt.NDArray[np.bool_]]:
        """Per weight that a method has made sparse, which entries of `result` may be other than zero."""
        names = {name for effect in self.effects.values() for name in effect.sparse if name in result}
        return {name: (result[name] != 0).numpy() for name in sorted(names)}

    @torch.no_grad()
    def scores(self) -> dict[str, npt.NDArray[np.float64]]:
        """The scores of units that methods have learned, by group id."""
        found: dict[str, npt.NDArray[np.float64]] = {}
        for effect in self.effects.values():
            found.update({name: each.cpu().double().numpy() for name, each in effect.scores(self.weights).items()})
        return found

    @torch.no_grad()
    def remarks(self, result: Mapping[str, Tensor]) -> Iterator[str]:
        """What methods have to say at the end."""
        for name, effect in self.effects.items():
            yield from (f"{name}: {said}" for said in effect.notes(result))
