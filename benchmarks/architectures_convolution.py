"""The convolutional networks of `architectures.py`."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


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
