"""Networks of torch, small and written by hand: one of every family that the benchmark of exports asks for.

Each function returns a module and example inputs, as `onnxprune export benchmarks.export_networks:cnn` takes them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

Made = tuple[nn.Module, Any]


class Chain(nn.Sequential):
    """Modules one after the other."""


def conv(before: int, after: int, size: int = 3, stride: int = 1, groups: int = 1) -> Chain:
    layer = nn.Conv2d(before, after, size, stride, size // 2, groups=groups, bias=False)
    return Chain(layer, nn.BatchNorm2d(after), nn.ReLU())


class Residual(nn.Module):
    """x + f(x), or a projection of x."""

    def __init__(self, inner: nn.Module, shortcut: nn.Module | None = None) -> None:
        super().__init__()
        self.inner, self.shortcut = inner, shortcut or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.inner(x)


class Dense(nn.Module):
    """The features so far, and new ones behind them."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.inner(x)], 1)


class SqueezeExcite(nn.Module):
    """Channels times gates that follow from their means (Hu et al., 2018)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(width, width // 4, 1), nn.Conv2d(width // 4, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.up(torch.relu(self.down(x.mean((2, 3), keepdim=True)))))


class Shuffle(nn.Module):
    """Channels of groups in turn (Zhang et al., 2018)."""

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


class Head(nn.Module):
    """Mean over the picture, and a classifier."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.mean((2, 3)))


class Attention(nn.Module):
    """Of several heads, with rotary positions and fewer heads of keys where that is asked for."""

    def __init__(self, width: int, heads: int, kv_heads: int | None = None, *, rotary: bool = False) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.size, self.rotary = heads, kv_heads or heads, width // heads, rotary
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * self.kv_heads * self.size)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        q = self.q(x).view(n, t, self.heads, self.size).transpose(1, 2)
        k, v = self.kv(x).view(n, t, 2, self.kv_heads, self.size).permute(2, 0, 3, 1, 4)
        if self.rotary:
            q, k = rotated(q), rotated(k)
        k, v = (part.repeat_interleave(self.heads // self.kv_heads, 1) for part in (k, v))
        scores = q @ k.transpose(-1, -2) / math.sqrt(self.size)
        if self.rotary:
            scores = scores + torch.full((t, t), float("-inf")).triu(1)
        return self.out((scores.softmax(-1) @ v).transpose(1, 2).reshape(n, t, -1))


def rotated(x: Tensor) -> Tensor:
    """Rotary positions (Su et al., 2021)."""
    half = x.shape[-1] // 2
    rates = 1.0 / 10000 ** (torch.arange(half) / half)
    angles = torch.arange(x.shape[2])[:, None] * rates
    first, second = x[..., :half], x[..., half:]
    cosine, sine = angles.cos(), angles.sin()
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], -1)


class Layer(nn.Module):
    """A layer of a transformer, norms in front."""

    def __init__(self, width: int, **attention: Any) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, 4, **attention)
        self.mlp = Chain(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Vit(nn.Module):
    """Patches, positions, layers, the mean."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.positions = nn.Conv2d(3, 32, 4, 4), nn.Parameter(torch.randn(1, 16, 32) * 0.02)
        self.layers, self.norm, self.head = Chain(Layer(32), Layer(32)), nn.LayerNorm(32), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2) + self.positions
        return self.head(self.norm(self.layers(x)).mean(1))


class Language(nn.Module):
    """Tokens, layers, logits."""

    def __init__(self, **attention: Any) -> None:
        super().__init__()
        self.embed, self.layers = nn.Embedding(50, 32), Chain(Layer(32, **attention), Layer(32, **attention))
        self.head = nn.Linear(32, 50)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.layers(self.embed(ids)))


class Recurrent(nn.Module):
    """A recurrent layer and a classifier of its last step."""

    def __init__(self, kind: type[nn.Module], **options: Any) -> None:
        super().__init__()
        self.rnn = kind(8, 24, batch_first=True, **options)
        self.head = nn.Linear(48 if options.get("bidirectional") else 24, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[0][:, -1])


class Unet(nn.Module):
    """Down, up, and the way across."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.middle, self.up = conv(3, 16), conv(16, 32), nn.ConvTranspose2d(32, 16, 2, 2)
        self.end = Chain(conv(32, 16), nn.Conv2d(16, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        across = self.down(x)
        return self.end(torch.cat([self.up(self.middle(F.max_pool2d(across, 2))), across], 1))


class Vae(nn.Module):
    """Mean and spread of a code, and the picture that the mean gives."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Chain(nn.Flatten(), nn.Linear(64, 32), nn.ReLU())
        self.mean, self.spread = nn.Linear(32, 8), nn.Linear(32, 8)
        self.decoder = Chain(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 64), nn.Sigmoid())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        hidden = self.encoder(x)
        mean = self.mean(hidden)
        return self.decoder(mean).view_as(x), mean, self.spread(hidden)


class Mixer(nn.Module):
    """Perceptrons over tokens and over channels in turn (Tolstikhin et al., 2021)."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(32), nn.LayerNorm(32)
        self.tokens = Chain(nn.Linear(16, 24), nn.GELU(), nn.Linear(24, 16))
        self.channels = Chain(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.channels(self.norm2(x))


class Graph(nn.Module):
    """Features of nodes times an adjacency matrix (Kipf & Welling, 2017), dense."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 32), nn.Linear(32, 4)

    def forward(self, features: Tensor, adjacency: Tensor) -> Tensor:
        return self.second(adjacency @ torch.relu(self.first(adjacency @ features)))


class EncoderDecoder(nn.Module):
    """nn.Transformer as it comes."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Transformer(32, 4, 1, 1, 64, batch_first=True)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        return self.net(source, target)


class Siamese(nn.Module):
    """Two inputs, one encoder."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Chain(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 8))

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return F.cosine_similarity(self.encoder(left), self.encoder(right))


def picture(size: int = 16) -> Tensor:
    return torch.randn(2, 3, size, size)


def bottleneck(width: int) -> nn.Module:
    """MobileNet's: wide, depthwise, narrow (Sandler et al., 2018)."""
    narrow = Chain(nn.Conv2d(4 * width, width, 1, bias=False), nn.BatchNorm2d(width))
    return Residual(Chain(conv(width, 4 * width, 1), conv(4 * width, 4 * width, groups=4 * width), narrow))


def resnet() -> nn.Module:
    shortcut = nn.Conv2d(16, 32, 1, 2)
    return Chain(conv(3, 16), Residual(conv(16, 16)), Residual(conv(16, 32, stride=2), shortcut), Head(32))


def generator() -> nn.Module:
    """Of a GAN (Radford et al., 2016)."""
    first = Chain(nn.ConvTranspose2d(16, 32, 4), nn.BatchNorm2d(32), nn.ReLU())
    return Chain(
        first, nn.ConvTranspose2d(32, 16, 4, 2, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 3, 1), nn.Tanh()
    )


def temporal() -> nn.Module:
    """Dilated convolutions over time."""
    layers = [
        Residual(Chain(nn.Conv1d(8, 24, 3, padding=d, dilation=d), nn.ReLU(), nn.Conv1d(24, 8, 1))) for d in (1, 2)
    ]
    return Chain(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(8, 3))


NETWORKS: dict[str, Callable[[], Made]] = {
    "mlp": lambda: (Chain(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4)), torch.randn(2, 8)),
    "cnn": lambda: (Chain(conv(3, 16), nn.MaxPool2d(2), conv(16, 32), nn.Flatten(), nn.Linear(2048, 10)), picture()),
    "vgg": lambda: (Chain(conv(3, 16), conv(16, 16), nn.MaxPool2d(2), conv(16, 32), conv(32, 32), Head(32)), picture()),
    "resnet": lambda: (resnet(), picture()),
    "densenet": lambda: (
        Chain(conv(3, 16), Dense(conv(16, 8)), Dense(conv(24, 8)), conv(32, 16, 1), Head(16)),
        picture(),
    ),
    "mobilenet": lambda: (Chain(conv(3, 16), bottleneck(16), bottleneck(16), Head(16)), picture()),
    "squeeze-excite": lambda: (
        Chain(conv(3, 16), SqueezeExcite(16), conv(16, 32), SqueezeExcite(32), Head(32)),
        picture(),
    ),
    "shuffle": lambda: (
        Chain(conv(3, 16), conv(16, 16, groups=2), Shuffle(), conv(16, 16, groups=2), Head(16)),
        picture(),
    ),
    "grouped": lambda: (Chain(conv(3, 16), Residual(conv(16, 16, groups=4)), Head(16)), picture()),
    "unet": lambda: (Unet(), picture()),
    "generator": lambda: (generator(), torch.randn(2, 16, 1, 1)),
    "autoencoder": lambda: (Vae(), torch.randn(2, 1, 8, 8)),
    "vit": lambda: (Vit(), picture()),
    "encoder": lambda: (Language(), torch.randint(0, 50, (2, 12))),
    "decoder-rotary": lambda: (Language(kv_heads=2, rotary=True), torch.randint(0, 50, (2, 12))),
    "nn.TransformerEncoder": lambda: (
        nn.TransformerEncoder(nn.TransformerEncoderLayer(32, 4, 64, batch_first=True), 2),
        torch.randn(2, 10, 32),
    ),
    "nn.Transformer": lambda: (EncoderDecoder(), (torch.randn(2, 10, 32), torch.randn(2, 6, 32))),
    "lstm": lambda: (Recurrent(nn.LSTM), torch.randn(2, 12, 8)),
    "lstm-bidirectional": lambda: (Recurrent(nn.LSTM, bidirectional=True), torch.randn(2, 12, 8)),
    "gru": lambda: (Recurrent(nn.GRU, num_layers=2), torch.randn(2, 12, 8)),
    "temporal": lambda: (temporal(), torch.randn(2, 8, 20)),
    "mixer": lambda: (Chain(Mixer(), Mixer()), torch.randn(2, 16, 32)),
    "graph": lambda: (Graph(), (torch.randn(2, 9, 8), torch.rand(2, 9, 9))),
    "siamese": lambda: (Siamese(), (torch.randn(2, 16), torch.randn(2, 16))),
}
