"""Networks of torch that tests export."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Block(nn.Module):
    """Convolution, norm, ReLU."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(after)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.bn(self.conv(x)))


class Net(nn.Module):
    """Two outputs by name, any size of picture."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.fc = Block(3, 8), Block(8, 16), nn.Linear(16, 10)
        generator = torch.Generator().manual_seed(0)
        for part in self.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.running_mean = torch.randn(part.num_features, generator=generator)
                part.running_var = torch.rand(part.num_features, generator=generator) + 0.5

    def forward(self, images: Tensor, scale: float = 2.0) -> dict[str, Tensor]:
        y = self.second(self.first(images))
        return {"logits": self.fc(y.mean((2, 3))) * scale, "features": y}


class Padded(nn.Module):
    """A batch of one size only, and sizes baked in: what exporters and checks have to notice."""

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(2, 3).cumsum(1)


class Branching(nn.Module):
    """Python decides by the batch, which no trace sees: TorchScript keeps the branch of the example."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if len(x) == 2 else x * 3


class Drawing(nn.Module):
    """Other numbers each time."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.randn_like(x)


def make() -> tuple[nn.Module, Tensor]:
    """For `module:function`; a batch of one."""
    return Net(), torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def fails() -> nn.Module:
    raise RuntimeError("no such luck")


def tokens() -> nn.Module:
    """Whole numbers in."""
    return nn.Sequential(nn.Embedding(5, 8), nn.Linear(8, 3))
