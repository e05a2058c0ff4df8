"""Ten architectures written in torch, and their ONNX files with the weights under the names that torch has."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

CLASSES = 5


class Residual(nn.Module):
    """Two convolutions with BatchNorm beside a shortcut, then a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.conv1, self.norm1 = nn.Conv2d(8, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.norm2 = nn.Conv2d(8, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(x)))
        x = F.relu(x + self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x))))))
        return self.head(x.mean((2, 3)))


class Plain(nn.Sequential):
    """Convolutions with biases and pools, no norm."""

    def __init__(self) -> None:
        first = [nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        second = [nn.Conv2d(6, 8, 3), nn.LeakyReLU(), nn.AvgPool2d(2)]
        super().__init__(*first, *second, nn.Flatten(), nn.Linear(8, CLASSES))


class Depthwise(nn.Module):
    """Depthwise and pointwise convolutions, a gate by squeeze and excitation, hard activations."""

    def __init__(self) -> None:
        super().__init__()
        self.depth, self.point = nn.Conv2d(3, 6, 3, 2, 1, groups=3), nn.Conv2d(6, 8, 1)
        self.squeeze, self.excite = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.hardswish(self.point(self.depth(x)))
        gate = F.hardsigmoid(self.excite(F.relu(self.squeeze(F.adaptive_avg_pool2d(x, 1)))))
        return self.head((x * gate).mean((2, 3)))


class Hourglass(nn.Module):
    """Down by a stride, up by a transposed convolution, joined with what was before."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, 6, 3, 2, 1)
        self.up = nn.ConvTranspose2d(6, 4, 2, 2)
        self.norm = nn.GroupNorm(2, 4)
        self.last = nn.Conv2d(7, CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        inner = F.silu(self.norm(self.up(F.relu(self.down(x)))))
        return self.last(torch.cat([x, inner], 1)).mean((2, 3))


class Perceptron(nn.Sequential):
    """Layers with BatchNorm1d, tanh and a PReLU."""

    def __init__(self) -> None:
        super().__init__(
            nn.Flatten(), nn.Linear(192, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Linear(16, 12), nn.PReLU(12),
            nn.Linear(12, CLASSES),
        )  # fmt: skip


class Waves(nn.Module):
    """One-dimensional dilated convolutions with gates, as on audio."""

    def __init__(self) -> None:
        super().__init__()
        self.filter, self.gate = nn.Conv1d(3, 8, 3, padding=2, dilation=2), nn.Conv1d(3, 8, 3, padding=2, dilation=2)
        self.norm = nn.InstanceNorm1d(8, affine=True)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(2)
        return self.head(self.norm(torch.tanh(self.filter(x)) * torch.sigmoid(self.gate(x))).amax(2))


class Recurrent(nn.Module):
    """A recurrent layer in both directions, mean over time."""

    def __init__(self, kind: type[nn.RNNBase], layers: int) -> None:
        super().__init__()
        self.layer = kind(24, 6, layers, batch_first=True, bidirectional=True)
        self.head = nn.Linear(12, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.layer(x.permute(0, 2, 1, 3).flatten(2))
        return self.head(states.mean(1))


class Encoder(nn.Module):
    """Patches with positions and a class token, attention with fused weights, LayerNorm in front, GELU."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 12, 4, 4)
        self.token, self.positions = nn.Parameter(torch.randn(1, 1, 12)), nn.Parameter(torch.randn(1, 5, 12) * 0.1)
        self.norm1, self.norm2 = nn.LayerNorm(12), nn.LayerNorm(12)
        self.qkv, self.out = nn.Linear(12, 36), nn.Linear(12, 12)
        self.up, self.down = nn.Linear(12, 24), nn.Linear(24, 12)
        self.head = nn.Linear(12, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], 1, 12), x], 1) + self.positions
        q, k, v = self.qkv(self.norm1(x)).reshape(x.shape[0], 5, 3, 3, 4).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-1, -2) * 0.5).softmax(-1)
        x = x + self.out((weights @ v).transpose(1, 2).reshape(x.shape[0], 5, 12))
        x = x + self.down(F.gelu(self.up(self.norm2(x))))
        return self.head(x[:, 0])


class Words(nn.Module):
    """Embedded words, a root-mean-square norm with a scale, a gated layer; the head shares the table's weights."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(CLASSES, 8)
        self.scale = nn.Parameter(torch.rand(8) + 0.5)
        self.gate, self.up, self.down = nn.Linear(8, 16, False), nn.Linear(8, 16, False), nn.Linear(16, 8, False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.table((x.flatten(1)[:, :7].abs() * 10).long() % CLASSES)
        y = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * self.scale
        x = x + self.down(F.silu(self.gate(y)) * self.up(y))
        return x.mean(1) @ self.table.weight.T


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "residual": Residual,
    "plain": Plain,
    "depthwise": Depthwise,
    "hourglass": Hourglass,
    "perceptron": Perceptron,
    "waves": Waves,
    "lstm": lambda: Recurrent(nn.LSTM, 1),
    "gru": lambda: Recurrent(nn.GRU, 2),
    "encoder": Encoder,
    "words": Words,
}


def images(count: int = 16, seed: int = 0) -> Tensor:
    """[count, 3, 8, 8]"""
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def classes(count: int = 16, seed: int = 1) -> Tensor:
    return torch.randint(0, CLASSES, (count,), generator=torch.Generator().manual_seed(seed))


def made(name: str, seed: int = 0) -> nn.Module:
    """The network with weights from a seed, its norms away from 1 and 0."""
    torch.manual_seed(seed)
    network = NETWORKS[name]()
    for module in network.modules():
        for part in ("weight", "bias"):
            parameter = getattr(module, part, None)
            if "Norm" in type(module).__name__ and isinstance(parameter, nn.Parameter):
                parameter.data += 0.2 * torch.randn_like(parameter)
        if isinstance(module, nn.modules.batchnorm._BatchNorm):  # the exporter stores equal tensors once
            module.running_mean.data += 0.2 * torch.randn_like(module.running_mean)  # type: ignore[union-attr,arg-type]
            module.running_var.data += torch.rand_like(module.running_var)  # type: ignore[union-attr,arg-type]
    return network


def exported(network: nn.Module, path: Path, *, training: bool = True) -> Path:
    """The network as a file; weights under torch's names, BatchNorm as a node of its own unless not `training`."""
    mode = torch.onnx.TrainingMode.PRESERVE if training else torch.onnx.TrainingMode.EVAL
    was = network.training
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network.eval(), (images(2),), path, dynamo=False, opset_version=17, input_names=["input"],
            output_names=["logits"], dynamic_axes={"input": {0: "batch"}, "logits": {0: "batch"}}, training=mode,
            do_constant_folding=not training, keep_initializers_as_inputs=False,
        )  # fmt: skip
    network.train(was)
    return path
