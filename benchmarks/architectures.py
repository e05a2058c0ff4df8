"""Ten architectures as plain torch modules, for comparing tools: no torchvision, no timm, no transformers.

    from architectures import ARCHITECTURES
    network, inputs = ARCHITECTURES["vit_s"].make()

Sizes are those of the originals unless the description says otherwise; weights are random from a fixed seed. Attention
is written so that a tool that prunes torch modules has it easy: the numbers of heads and their width are attributes
that `Attention.resize` can be told afterwards, and nothing else in a forward pass remembers a width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

SEED = 0


@dataclass(frozen=True)
class Architecture:
    """How to make a network and example inputs for it."""

    description: str
    network: Callable[[], nn.Module]
    inputs: Callable[[], tuple[Tensor, ...]]

    def make(self) -> tuple[nn.Module, tuple[Tensor, ...]]:
        """The network in evaluation mode, its normalizations as unequal as after training, and its inputs."""
        torch.manual_seed(SEED)
        network = self.network().eval()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, std=0.1)
                nn.init.normal_(module.running_mean, std=0.1)
                nn.init.uniform_(module.running_var, 0.5, 1.5)
        return network, self.inputs()


def image(size: int = 224, batch: int = 1) -> tuple[Tensor, ...]:
    return (torch.randn(batch, 3, size, size),)


def tokens(vocabulary: int, length: int, batch: int = 1) -> tuple[Tensor, ...]:
    return (torch.randint(vocabulary, (batch, length)),)


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1, act: type | None = nn.ReLU):
    """Convolution, BatchNorm and maybe an activation."""
    parts = [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    return nn.Sequential(*parts, *([act()] if act else []))


class Pooled(nn.Module):
    """Global average pooling and a classifier behind some features."""

    def __init__(self, features: nn.Module, width: int, classes: int = 1000):
        super().__init__()
        self.features = features
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(functional.adaptive_avg_pool2d(self.features(x), 1).flatten(1))


# Convolutional networks


class Bottleneck(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__()
        outputs = 4 * width
        self.body = nn.Sequential(
            conv(inputs, width, 1), conv(width, width, 3, stride), conv(width, outputs, 1, act=None)
        )
        fits = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if fits else conv(inputs, outputs, 1, stride, act=None)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.body(x) + self.shortcut(x))


def resnet50() -> nn.Module:
    layers: list[nn.Module] = [conv(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1)]
    inputs = 64
    for stage, blocks in enumerate((3, 4, 6, 3)):
        width = 64 * 2**stage
        for block in range(blocks):
            layers.append(Bottleneck(inputs, width, 2 if stage and not block else 1))
            inputs = 4 * width
    return Pooled(nn.Sequential(*layers), inputs)


class InvertedResidual(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int):
        super().__init__()
        width = inputs * expansion
        expand = [conv(inputs, width, 1, act=nn.ReLU6)] if expansion > 1 else []
        depthwise = conv(width, width, 3, stride, groups=width, act=nn.ReLU6)
        self.body = nn.Sequential(*expand, depthwise, conv(width, outputs, 1, act=None))
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.residual else self.body(x)


def mobilenet_v2() -> nn.Module:
    layers: list[nn.Module] = [conv(3, 32, 3, 2, act=nn.ReLU6)]
    inputs = 32
    for expansion, outputs, blocks, stride in (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ):
        for block in range(blocks):
            layers.append(InvertedResidual(inputs, outputs, 1 if block else stride, expansion))
            inputs = outputs
    return Pooled(nn.Sequential(*layers, conv(inputs, 1280, 1, act=nn.ReLU6)), 1280)


class DenseLayer(nn.Module):
    def __init__(self, inputs: int, growth: int):
        super().__init__()
        self.body = nn.Sequential(
            *(nn.BatchNorm2d(inputs), nn.ReLU(), nn.Conv2d(inputs, 4 * growth, 1, bias=False)),
            *(nn.BatchNorm2d(4 * growth), nn.ReLU(), nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.body(x)], 1)


def densenet121() -> nn.Module:
    layers: list[nn.Module] = [conv(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1)]
    width, growth = 64, 32
    for stage, blocks in enumerate((6, 12, 24, 16)):
        if stage:
            layers += [nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, width // 2, 1, bias=False), nn.AvgPool2d(2)]
            width //= 2
        for _ in range(blocks):
            layers.append(DenseLayer(width, growth))
            width += growth
    return Pooled(nn.Sequential(*layers, nn.BatchNorm2d(width), nn.ReLU()), width)


class ShuffleUnit(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        half = outputs // 2
        self.stride = stride
        if stride > 1:
            self.short = nn.Sequential(conv(inputs, inputs, 3, stride, inputs, None), conv(inputs, half, 1))
        self.long = nn.Sequential(
            conv(inputs if stride > 1 else half, half, 1), conv(half, half, 3, stride, half, None), conv(half, half, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.stride > 1:
            x = torch.cat([self.short(x), self.long(x)], 1)
        else:
            kept, changed = x.chunk(2, 1)
            x = torch.cat([kept, self.long(changed)], 1)
        batch, channels, height, width = x.shape
        return x.reshape(batch, 2, channels // 2, height, width).transpose(1, 2).reshape(batch, -1, height, width)


def shufflenet_v2() -> nn.Module:
    layers: list[nn.Module] = [conv(3, 24, 3, 2), nn.MaxPool2d(3, 2, 1)]
    inputs = 24
    for outputs, blocks in ((116, 4), (232, 8), (464, 4)):
        for block in range(blocks):
            layers.append(ShuffleUnit(inputs, outputs, 1 if block else 2))
            inputs = outputs
    return Pooled(nn.Sequential(*layers, conv(inputs, 1024, 1)), 1024)


class UNet(nn.Module):
    """Four levels of 32 to 512 channels, transposed convolutions, the original's concatenations."""

    def __init__(self, widths: tuple[int, ...] = (32, 64, 128, 256, 512), classes: int = 4):
        super().__init__()
        pairs = list(zip((3, *widths), widths, strict=False))
        self.down = nn.ModuleList(nn.Sequential(conv(i, o), conv(o, o)) for i, o in pairs)
        steps = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.up = nn.ModuleList(nn.ConvTranspose2d(i, o, 2, 2) for i, o in steps)
        self.merge = nn.ModuleList(nn.Sequential(conv(2 * o, o), conv(o, o)) for _, o in steps)
        self.head = nn.Conv2d(widths[0], classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for level, block in enumerate(self.down):
            x = block(functional.max_pool2d(x, 2) if level else x)
            skips.append(x)
        for up, merge, skip in zip(self.up, self.merge, skips[-2::-1], strict=True):
            x = merge(torch.cat([skip, up(x)], 1))
        return self.head(x)


class SqueezeExcite(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.squeeze = nn.Conv2d(width, width // 16, 1)
        self.excite = nn.Conv2d(width // 16, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = functional.relu(self.squeeze(functional.adaptive_avg_pool2d(x, 1)))
        return x * torch.sigmoid(self.excite(gate))


class GatedBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.body = nn.Sequential(
            conv(inputs, outputs, 3, stride), conv(outputs, outputs, act=None), SqueezeExcite(outputs)
        )
        fits = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if fits else conv(inputs, outputs, 1, stride, act=None)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.body(x) + self.shortcut(x))


def se_resnet18() -> nn.Module:
    layers: list[nn.Module] = [conv(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1)]
    inputs = 64
    for stage in range(4):
        for block in range(2):
            layers.append(GatedBlock(inputs, 64 * 2**stage, 2 if stage and not block else 1))
            inputs = 64 * 2**stage
    return Pooled(nn.Sequential(*layers), inputs)


# Transformers


class Attention(nn.Module):
    """What the three attentions have in common: how heads are split, mixed and joined.

    `projections` names the layers whose outputs are divided into heads; after another tool has made those smaller,
    `resize` is told the number of query heads.
    """

    def __init__(self, width: int, heads: int, shared: int | None = None):
        super().__init__()
        self.heads, self.shared, self.size = heads, shared or heads, width // heads
        self.out = nn.Linear(width, width, bias=shared is None)

    def projections(self) -> dict[nn.Linear, int]:
        raise NotImplementedError

    def resize(self, heads: int, shared: int) -> None:
        self.heads, self.shared = heads, shared
        self.size = self.out.in_features // heads

    def split(self, x: Tensor, heads: int) -> Tensor:
        return x.reshape(x.shape[0], x.shape[1], heads, self.size).transpose(1, 2)

    def mix(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        scores = q @ k.transpose(-2, -1) * self.size**-0.5
        if mask is not None:
            scores = scores + mask
        y = (scores.softmax(-1) @ v).transpose(1, 2)
        return self.out(y.reshape(y.shape[0], y.shape[1], -1))


class FusedAttention(Attention):
    """One layer makes queries, keys and values, as in timm's ViT."""

    def __init__(self, width: int, heads: int):
        super().__init__(width, heads)
        self.qkv = nn.Linear(width, 3 * width)

    def projections(self) -> dict[nn.Linear, int]:
        return {self.qkv: self.heads}

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(x).reshape(x.shape[0], x.shape[1], 3, self.heads, self.size)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        return self.mix(q, k, v)


class SeparateAttention(Attention):
    """Three layers, as in BERT."""

    def __init__(self, width: int, heads: int):
        super().__init__(width, heads)
        self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))

    def projections(self) -> dict[nn.Linear, int]:
        return {self.q: self.heads, self.k: self.heads, self.v: self.heads}

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(*(self.split(layer(x), self.heads) for layer in (self.q, self.k, self.v)))


class GroupedAttention(Attention):
    """Fewer key and value heads than query heads, rotary positions and a causal mask, as in LLaMA."""

    def __init__(self, width: int, heads: int, shared: int):
        super().__init__(width, heads, shared)
        self.q = nn.Linear(width, width, bias=False)
        self.k, self.v = (nn.Linear(width, shared * self.size, bias=False) for _ in range(2))

    def projections(self) -> dict[nn.Linear, int]:
        return {self.q: self.heads, self.k: self.shared, self.v: self.shared}

    def repeat(self, x: Tensor) -> Tensor:
        batch, _, length, size = x.shape
        times = self.heads // self.shared
        return x[:, :, None].expand(batch, self.shared, times, length, size).reshape(batch, self.heads, length, size)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor) -> Tensor:
        q, k, v = (self.split(layer(x), heads) for layer, heads in self.projections().items())
        q, k = (part * cos + rotated(part) * sin for part in (q, k))
        return self.mix(q, self.repeat(k), self.repeat(v), mask)


def rotated(x: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    return torch.cat([-x[..., half:], x[..., :half]], -1)


class Mlp(nn.Sequential):
    def __init__(self, width: int, hidden: int):
        super().__init__(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))


class PreNormLayer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention, self.mlp = FusedAttention(width, heads), Mlp(width, 4 * width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    """ViT-S/16 at 224: patches, a class token, learned positions, twelve layers with fused qkv."""

    def __init__(self, width: int = 384, heads: int = 6, layers: int = 12, classes: int = 1000):
        super().__init__()
        self.patches = nn.Conv2d(3, width, 16, 16)
        self.token = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.positions = nn.Parameter(torch.randn(1, 197, width) * 0.02)
        self.layers = nn.Sequential(*(PreNormLayer(width, heads) for _ in range(layers)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.positions
        return self.head(self.norm(self.layers(x))[:, 0])


class PostNormLayer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention, self.mlp = SeparateAttention(width, heads), Mlp(width, 4 * width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(x + self.attention(x))
        return self.norm2(x + self.mlp(x))


class Bert(nn.Module):
    """BERT-base: twelve layers of 768, 30522 words, a pooler and two classes."""

    def __init__(self, width: int = 768, heads: int = 12, layers: int = 12, words: int = 30522):
        super().__init__()
        self.words, self.positions = nn.Embedding(words, width), nn.Embedding(512, width)
        self.norm = nn.LayerNorm(width)
        self.layers = nn.Sequential(*(PostNormLayer(width, heads) for _ in range(layers)))
        self.pooler, self.head = nn.Linear(width, width), nn.Linear(width, 2)

    def forward(self, ids: Tensor) -> Tensor:
        places = torch.arange(ids.shape[1], device=ids.device)[None]
        x = self.layers(self.norm(self.words(ids) + self.positions(places)))
        return self.head(torch.tanh(self.pooler(x[:, 0])))


class RmsNorm(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


class DecoderLayer(nn.Module):
    def __init__(self, width: int, heads: int, shared: int, hidden: int):
        super().__init__()
        self.norm1, self.norm2 = RmsNorm(width), RmsNorm(width)
        self.attention = GroupedAttention(width, heads, shared)
        self.gate, self.up = (nn.Linear(width, hidden, bias=False) for _ in range(2))
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x), cos, sin, mask)
        y = self.norm2(x)
        return x + self.down(functional.silu(self.gate(y)) * self.up(y))


class Llama(nn.Module):
    """A small LLaMA: eight layers of 512, eight query heads on two key heads, gated feed-forward, 8000 words."""

    def __init__(self, width: int = 512, heads: int = 8, shared: int = 2, layers: int = 8, words: int = 8000):
        super().__init__()
        self.words = nn.Embedding(words, width)
        self.layers = nn.ModuleList(DecoderLayer(width, heads, shared, 1408) for _ in range(layers))
        self.norm, self.head = RmsNorm(width), nn.Linear(width, words, bias=False)
        size = width // heads
        angles = torch.arange(64)[:, None] * 10000 ** (-torch.arange(0, size, 2) / size)
        self.register_buffer("cos", torch.cat([angles, angles], -1).cos())
        self.register_buffer("sin", torch.cat([angles, angles], -1).sin())
        self.register_buffer("mask", torch.full((64, 64), -1e4).triu(1))

    def forward(self, ids: Tensor) -> Tensor:
        x, length = self.words(ids), ids.shape[1]
        for layer in self.layers:
            x = layer(x, self.cos[:length], self.sin[:length], self.mask[:length, :length])
        return self.head(self.norm(x))


# Recurrent


class Tagger(nn.Module):
    """Words, two layers of bidirectional LSTM, a tag for each word."""

    def __init__(self, words: int = 20000, width: int = 128, hidden: int = 256, tags: int = 50):
        super().__init__()
        self.words = nn.Embedding(words, width)
        self.lstm = nn.LSTM(width, hidden, 2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * hidden, tags)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.lstm(self.words(ids))[0])


ARCHITECTURES = {
    "resnet50": Architecture("ResNet-50", resnet50, image),
    "mobilenet_v2": Architecture("MobileNetV2", mobilenet_v2, image),
    "densenet121": Architecture("DenseNet-121", densenet121, image),
    "shufflenet_v2": Architecture("ShuffleNetV2 (channel shuffle)", shufflenet_v2, image),
    "unet": Architecture("U-Net, 32 to 512 channels", UNet, lambda: image(128)),
    "se_resnet18": Architecture("SE-ResNet-18 (squeeze-excite)", se_resnet18, image),
    "vit_s": Architecture("ViT-S/16, fused qkv", ViT, image),
    "bert_base": Architecture("BERT-base", Bert, lambda: tokens(30522, 64)),
    "llama": Architecture("small LLaMA: grouped queries, rotary", Llama, lambda: tokens(8000, 32)),
    "lstm_tagger": Architecture("LSTM tagger, bidirectional", Tagger, lambda: tokens(20000, 32, 2)),
}
