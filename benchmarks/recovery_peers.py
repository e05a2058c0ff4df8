"""The other side of `recovery.py`: torch-pruning with BatchNorm re-estimation, and onnxsim with its ridge regression.

The CIFAR ResNets are ONNX files with BatchNorm folded into the convolutions. torch-pruning needs a torch module, so it
is built here with the file's weights. Behind every convolution a BatchNorm is put back that changes nothing: its
running statistics are those of training images, its weight and bias undo them. So they can be re-estimated after a cut.

The shortcut between stages (every second row and column, channels padded with zeros) stops torch-pruning 1.6.1 with an
IndexError, sliced or pooled, padded or concatenated; so here it is a fixed 1x1 convolution with ones and zeros, whose
multiplications are not counted.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from recovery_common import CIFAR, IMAGES, Cache, Row, calibration, loader, test_set
from recovery_common import accuracy as accuracy_of_file
from torch import Tensor, nn
from torch.nn.functional import relu

BATCH = 100


class Block(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        stride = after // before
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1)
        self.norm1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1)
        self.norm2 = nn.BatchNorm2d(after)
        self.shortcut: nn.Module = nn.Identity()
        if after > before:
            self.shortcut = nn.Conv2d(before, after, 1, stride, bias=False)
            weight = torch.zeros(after, before, 1, 1)
            channels = torch.arange(before)
            weight[channels + (after - before) // 2, channels] = 1.0
            self.shortcut.weight = nn.Parameter(weight)

    def forward(self, x: Tensor) -> Tensor:
        inner = relu(self.norm1(self.conv1(x)))
        return relu(self.norm2(self.conv2(inner)) + self.shortcut(x))


class CifarResNet(nn.Module):
    """The network of the file, with its weights; `images` give the BatchNorms their statistics."""

    def __init__(self, path: Path, images: Any) -> None:
        super().__init__()
        weights = [numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer]
        kernels = [array for array in weights if array.ndim == 4]
        blocks = (len(kernels) - 1) // 6
        self.conv1, self.norm1 = nn.Conv2d(3, 16, 3, 1, 1), nn.BatchNorm2d(16)
        widths = [16] + [width for width in (16, 32, 64) for _ in range(blocks)]
        self.blocks = nn.Sequential(*(Block(before, after) for before, after in pairwise(widths)))
        self.head = nn.Linear(64, 10)
        self._load(weights)
        self.eval()
        _measure(self, images, undo)

    def _load(self, weights: Sequence[Any]) -> None:
        """The initializers of the file: the linear layer's two, then weight and bias of every convolution in order."""
        layers: list[Any] = [self.head, *self.convolutions()]
        for layer, weight, bias in zip(layers, weights[::2], weights[1::2], strict=True):
            for parameter, array in ((layer.weight, weight), (layer.bias, bias)):
                assert tuple(parameter.shape) == array.shape
                parameter.data = torch.from_numpy(array.copy())

    def convolutions(self) -> list[nn.Conv2d]:
        """All of them but shortcuts, in order."""
        return [self.conv1, *(conv for block in self.blocks for conv in (block.conv1, block.conv2))]

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(relu(self.norm1(self.conv1(x))))
        return self.head(x.mean((2, 3)))

    def macs(self) -> int:
        """Multiplications for one image, shortcuts not counted."""
        sizes: list[int] = []
        hooks = [
            layer.register_forward_hook(lambda layer, _, y: sizes.append(layer.weight.numel() * y[0, 0].numel()))
            for layer in (*self.convolutions(), self.head)
        ]
        with torch.no_grad():
            self(torch.zeros(1, 3, 32, 32))
        for hook in hooks:
            hook.remove()
        return sum(sizes)


def undo(norm: nn.BatchNorm2d) -> None:
    """Weight and bias that make a BatchNorm with its statistics change nothing."""
    norm.weight.data = torch.sqrt(norm.running_var + norm.eps)
    norm.bias.data = norm.running_mean.clone()


def re_estimate(network: CifarResNet, images: Any) -> None:
    """Running statistics of every BatchNorm anew: those of all `images`, layer after layer."""
    _measure(network, images)


@torch.no_grad()
def _measure(network: CifarResNet, images: Any, settle: Callable[[nn.BatchNorm2d], None] | None = None) -> None:
    """Each BatchNorm takes the statistics of what it gets, is settled, and then passes it on."""

    def normed(conv: nn.Module, norm: nn.BatchNorm2d, value: Tensor) -> Tensor:
        value = in_parts(conv, value)
        norm.running_var, norm.running_mean = torch.var_mean(value, (0, 2, 3), correction=0)
        if settle:
            settle(norm)
        return norm(value)

    x = relu(normed(network.conv1, network.norm1, torch.from_numpy(images)))
    for block in network.blocks:
        inner = relu(normed(block.conv1, block.norm1, x))
        x = relu(normed(block.conv2, block.norm2, inner) + in_parts(block.shortcut, x))


def in_parts(step: Callable[[Tensor], Tensor], value: Tensor) -> Tensor:
    return torch.cat([step(part) for part in value.split(BATCH)])


@torch.no_grad()
def accuracy(network: nn.Module, images: Any, labels: Any) -> float:
    """Percent."""
    found = in_parts(network, torch.from_numpy(images)).argmax(1).numpy()
    return float(np.mean(found == labels) * 100)


def smallest_cut(cut: Callable[[float], tuple[Any, int]], due: float) -> Any:
    """The result of `cut(share)` with the least share whose multiplications are at most `due`, to 1/2048 of a share."""
    low, high = 0.0, 0.95
    best, _ = cut(high)
    while high - low > 1 / 2048:
        middle = (low + high) / 2
        found, macs = cut(middle)
        if macs <= due:
            high, best = middle, found
        else:
            low = middle
    return best


def torch_pruning_cut(network: CifarResNet, due: float, *, everywhere: bool, across: bool) -> CifarResNet:
    """Magnitude pruning by L2 in one step, down to `due` multiplications.

    Args:
        network: it is not changed.
        due: multiplications for one image.
        everywhere: the residual stream too, else inside blocks only.
        across: the share is of all layers together ("global" there), else of every layer.
    """
    import torch_pruning as tp

    def cut(share: float) -> tuple[CifarResNet, int]:
        pruned = copy.deepcopy(network)
        stream = [pruned.conv1, *(block.conv2 for block in pruned.blocks)]
        stream += [block.shortcut for block in pruned.blocks if isinstance(block.shortcut, nn.Conv2d)]
        pruner = tp.pruner.MagnitudePruner(
            pruned,
            torch.zeros(1, 3, 32, 32),
            importance=tp.importance.MagnitudeImportance(p=2),
            global_pruning=across,
            pruning_ratio=share,
            ignored_layers=[pruned.head, *([] if everywhere else stream)],
        )
        pruner.step()
        return pruned, pruned.macs()

    found: CifarResNet = smallest_cut(cut, due)
    return found


def onnxsim_cut(path: Path, macs_of: Callable[[onnx.ModelProto], int], due: float, *, across: bool) -> Any:
    """onnxsim's structured pruning by L2, down to `due` multiplications; `across` is its `global_sparsity`."""
    import onnxsim

    simplified, _ = onnxsim.simplify(onnx.load(path))

    def cut(share: float) -> tuple[onnx.ModelProto, int]:
        model = onnxsim.apply_structured_pruning(simplified, sparsity=share, global_sparsity=across)
        return model, macs_of(model)

    return smallest_cut(cut, due)


def onnxsim_ridge(path: Path, pruned: onnx.ModelProto, images: Any) -> tuple[onnx.ModelProto, list[str]]:
    """onnxsim's ridge regression of a pruned model on the original's activations, and which weights it changed."""
    import onnxsim

    original, _ = onnxsim.simplify(onnx.load(path))
    batches = [{"input": part} for part in np.split(images, range(BATCH, len(images), BATCH))]
    tuned = onnxsim.apply_pruning_finetune(original, pruned, calibration_data=batches)
    before = {tensor.name: numpy_helper.to_array(tensor) for tensor in pruned.graph.initializer}
    after = {tensor.name: numpy_helper.to_array(tensor) for tensor in tuned.graph.initializer}
    changed = [name for name in after if name not in before or not np.array_equal(before[name], after[name])]
    return tuned, changed


def measure_peers(
    model: str, ratios: Sequence[float], seeds: Sequence[int], wanted: Sequence[str], cache: Cache, folder: Path
) -> None:
    """All that is missing of the peers' rows on one model."""
    tasks = [(ratio, share) for ratio in ratios for share in ("local", "global")]
    torch.set_num_threads(1)
    network: CifarResNet | None = None
    for ratio, share in tasks:
        for where in ("all", "inner"):
            due = missing(model, f"torch-pruning {where} {share}", "bn", ratio, seeds, wanted, cache)
            if due:
                network = network or checked_network(model, cache)
                cut = torch_pruning_cut(
                    network, network.macs() / ratio, everywhere=where == "all", across=share == "global"
                )
                measure_torch(due, network, cut, cache)
        due = missing(model, f"onnxsim {share}", "ridge", ratio, seeds[:1], wanted, cache)
        if due:
            measure_onnxsim(due, share, folder, cache)


Key = tuple[str, str, float, int, int]


def missing(
    model: str,
    method: str,
    after: str,
    ratio: float,
    seeds: Sequence[int],
    wanted: Sequence[str],
    cache: Cache,
) -> list[Key]:
    """Of a cut as it is, which is the same for all seeds, and of what the tool then does with images."""
    keys = [(model, method, ratio, 0, 0), *((model, f"{method} {after}", ratio, seed, IMAGES) for seed in seeds)]
    return [key for key in keys if key[1] in wanted and not cache.has(*key)]


def checked_network(model: str, cache: Cache) -> CifarResNet:
    """The torch module; its accuracy has to be the file's."""
    network = CifarResNet(CIFAR / f"{model}.onnx", loader()["tensors"]("train", 2000)[0])
    if not cache.has(model, "dense torch", 1.0, 0, 0):
        cache.add(Row(model, "dense torch", 1.0, 0, 0, accuracy(network, *test_set()), 1.0))
    return network


def measure_torch(due: Sequence[Key], network: CifarResNet, cut: CifarResNet, cache: Cache) -> None:
    """Accuracy of a cut, as it is and with its BatchNorms re-estimated."""
    for model, method, ratio, seed, count in due:
        if count:
            re_estimate(cut, calibration(seed, count))
        value = accuracy(cut, *test_set())
        cache.add(Row(model, method, ratio, seed, count, value, network.macs() / cut.macs()))


def measure_onnxsim(due: Sequence[Key], share: str, folder: Path, cache: Cache) -> None:
    """Accuracy of a cut, as it is and after onnxsim's ridge regression."""
    from onnxprune.analysis import cost
    from onnxprune.pipeline import run as pipeline

    model, _, ratio, _, _ = due[0]
    path, file = CIFAR / f"{model}.onnx", folder / "onnxsim.onnx"

    def macs_of(proto: onnx.ModelProto) -> int:
        onnx.save(proto, file)
        return cost.before(pipeline.inspect(file)).macs

    whole = cost.before(pipeline.inspect(path)).macs
    cut = onnxsim_cut(path, macs_of, whole / ratio, across=share == "global")
    for _, method, _, seed, count in due:
        found, changed = onnxsim_ridge(path, cut, calibration(seed, count)) if count else (cut, [])
        note = f"changes {', '.join(changed) or 'no weight'}" if count else ""
        reached = whole / macs_of(found)
        cache.add(Row(model, method, ratio, seed, count, accuracy_of_file(file), reached, note=note))
