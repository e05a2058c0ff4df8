"""Made-up inputs that come nearer to what a network was trained on, by gradients through the network itself.

The batches are changed so that the BatchNormalizations see their running statistics (H. Yin et al., "Dreaming to
Distill", CVPR 2020, equation 4; Y. Cai et al., "ZeroQ", CVPR 2020, equation 2), and so that a classifier is sure of
a class, of each class as often (G. K. Nayak et al., "Zero-Shot Knowledge Distillation in Deep Networks", ICML 2019).
Deployed files have their BatchNormalizations folded into weights, and then classes are all that there is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import cos, pi

import numpy as np
import onnx_ir as ir

from onnxprune.errors import MissingExtraError

try:
    import torch
    from torch import Tensor
except ImportError:
    raise MissingExtraError("torch", "torch") from None

from onnxprune.model.signature import Feed
from onnxprune.ops.traits import runs_on_statistics, statistics
from onnxprune.runtime.torch.losses.base import log_probabilities
from onnxprune.runtime.torch.module import TorchModel
from onnxprune.support.progress import Counted, Progress, silent

# Of Adam, in standard deviations of the input: it goes this far in a step at the start.
_STEP = 0.05
_MEANS, _SQUARES, _TINY = 0.9, 0.999, 1e-8
# Of the classes beside the statistics, of which there are many more.
_CLASSES = 0.1

Statistics = Sequence[tuple[str, Tensor, Tensor]]


def distilled_inputs(
    model: ir.Model, batches: Sequence[Feed], *, steps: int, seed: int = 0, progress: Progress = silent
) -> list[Feed]:
    """The batches with their float inputs changed; as they are where the network says nothing of what it wants.

    Args:
        model: the network.
        batches: made-up inputs, arrays by name, float32 or wider where they are to change.
        steps: of Adam, for each batch.
        seed: of the classes that samples get.
        progress: is called with which batch is being worked on.

    Raises ModelError for operators that torch has no implementation of.
    """
    module = TorchModel(model)
    module.requires_grad_(False)
    found = _running_statistics(model)
    rng = np.random.default_rng(seed)
    results = []
    for number, batch in enumerate(batches):
        progress(Counted(f"making up inputs, batch {number + 1} of {len(batches)}", number, len(batches)))
        results.append(_distilled(module, batch, found, steps, rng))
    return results


def _running_statistics(model: ir.Model) -> Statistics:
    """Of each BatchNormalization: the name of the value that it reads, running mean and variance."""
    found = []
    for node in model.graph:
        if runs_on_statistics(node):
            kept = [ir.convenience.get_const_tensor(node.inputs[slot]) for slot in statistics(node)]  # type: ignore[arg-type]
            if all(tensor is not None for tensor in kept):
                mean, variance = (torch.from_numpy(tensor.numpy().astype(np.float32)) for tensor in kept)  # type: ignore[union-attr]
                found.append((node.inputs[0].name or "", mean, variance.clamp_min(1e-8)))  # type: ignore[union-attr]
    return found


def _distilled(module: TorchModel, batch: Feed, found: Statistics, steps: int, rng: np.random.Generator) -> Feed:
    """One batch; as it is where there is no loss to follow, or where it leads to what is not finite."""
    free = {name: torch.tensor(array) for name, array in batch.items() if array.dtype.kind == "f" and array.size > 1}
    scales = {name: max(float(value.std()), 1e-6) for name, value in free.items()}
    for value in free.values():
        value.requires_grad_()
    if not free:
        return batch
    optimizers = {name: Adam(value, _STEP * scales[name]) for name, value in free.items()}
    classes: dict[str, Tensor] = {}
    for step in range(steps):
        values = module({**batch, **free}, [name for name, _, _ in found])
        loss = _statistics_loss(values, found) + _CLASSES * _classes_loss(module.outputs, values, classes, rng)
        if not isinstance(loss, Tensor) or not loss.requires_grad or not bool(torch.isfinite(loss)):
            return batch
        gradients = torch.autograd.grad(loss, list(free.values()), allow_unused=True)
        for name, gradient in zip(free, gradients, strict=True):
            optimizers[name].step(gradient, 0.5 * (1 + cos(pi * step / steps)))
    made = {name: value.detach().numpy().astype(batch[name].dtype) for name, value in free.items()}
    return {**batch, **made} if all(np.isfinite(array).all() for array in made.values()) else batch


class Adam:
    """Adam for one tensor (Kingma and Ba 2015, algorithm 1): torch's own takes seconds to import its compiler."""

    def __init__(self, value: Tensor, rate: float) -> None:
        self._value, self._rate, self._steps = value, rate, 0
        self._mean, self._square = torch.zeros_like(value), torch.zeros_like(value)

    def step(self, gradient: Tensor | None, factor: float) -> None:
        """Change the value in place at so much of the rate; what nothing depends on stays."""
        if gradient is None:
            return
        self._steps += 1
        with torch.no_grad():
            self._mean.lerp_(gradient, 1 - _MEANS)
            self._square.lerp_(gradient.square(), 1 - _SQUARES)
            mean = self._mean / (1 - _MEANS**self._steps)
            square = self._square / (1 - _SQUARES**self._steps)
            self._value -= self._rate * factor * mean / (square.sqrt() + _TINY)


def _statistics_loss(values: Mapping[str, Tensor], found: Statistics) -> Tensor | float:
    """How far the means are off in running deviations, squared, and the logarithms of the variances, squared."""
    losses = []
    for name, mean, variance in found:
        axes = [axis for axis in range(values[name].ndim) if axis != 1]
        ratio = values[name].var(axes, unbiased=False) / variance
        shift = (values[name].mean(axes) - mean).square() / variance
        losses.append((shift + ratio.clamp_min(1e-6).log().square()).mean())
    return torch.stack(losses).mean() if losses else 0.0


def _classes_loss(
    outputs: Sequence[str], values: Mapping[str, Tensor], classes: dict[str, Tensor], rng: np.random.Generator
) -> Tensor | float:
    """Cross-entropy with classes that are drawn once, for each output [samples, classes]."""
    total: Tensor | float = 0.0
    for name in outputs:
        output = values[name]
        if isinstance(output, Tensor) and output.is_floating_point() and output.ndim == 2 and output.shape[1] > 1:
            if name not in classes:
                drawn = rng.permutation(np.arange(len(output)) % output.shape[1])
                classes[name] = torch.from_numpy(drawn)
            likely = log_probabilities(output)
            total = total - likely.gather(1, classes[name][:, None]).mean()
    return total
