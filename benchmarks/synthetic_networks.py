"""Networks of known sizes with random weights, for what depends on size alone, exported by torch."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn


class Bert(nn.Module):
    """BERT-base: twelve layers of 768 hidden units, 110 million parameters, two classes."""

    def __init__(self, layers: int = 12) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(30_522, 768), nn.Parameter(torch.randn(128, 768) * 0.02)
        self.encoder = encoder(layers)
        self.classify = nn.Linear(768, 2)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.classify(self.encoder(self.words(tokens) + self.places)[:, 0])


class Vit(nn.Module):
    """ViT-B/16 on images of 224 x 224, 86 million parameters, a thousand classes."""

    def __init__(self, layers: int = 12) -> None:
        super().__init__()
        self.patches, self.places = nn.Conv2d(3, 768, 16, 16), nn.Parameter(torch.randn(196, 768) * 0.02)
        self.encoder = encoder(layers)
        self.classify = nn.Linear(768, 1000)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.classify(self.encoder(self.patches(images).flatten(2).transpose(1, 2) + self.places).mean(1))


class Wide(nn.Sequential):
    """A dense layer that reads 8,192 features and one that makes them."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(8192, 512), nn.ReLU(), nn.Linear(512, 8192), nn.ReLU(), nn.Linear(8192, 100))


def encoder(layers: int) -> nn.TransformerEncoder:
    """Transformer layers with norms in front."""
    layer = nn.TransformerEncoderLayer(768, 12, 3072, activation="gelu", batch_first=True, norm_first=True)
    return nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)


def exported(net: nn.Module, example: torch.Tensor, name: str, path: Path) -> Path:
    """The file of a network, written where there is none yet; the first axis is dynamic."""
    if not path.exists():
        torch.backends.mha.set_fastpath_enabled(False)
        batch = torch.export.Dim("batch")
        torch.onnx.export(
            net.eval(), (example,), str(path), input_names=[name], dynamic_shapes=({0: batch},), dynamo=True
        )
    return path


def bert(folder: Path) -> Path:
    torch.manual_seed(0)
    return exported(Bert(), torch.zeros(2, 128, dtype=torch.int64), "tokens", folder / "bert.onnx")


def vit(folder: Path) -> Path:
    torch.manual_seed(0)
    return exported(Vit(), torch.zeros(2, 3, 224, 224), "input", folder / "vit.onnx")


def wide(folder: Path) -> Path:
    torch.manual_seed(0)
    return exported(Wide(), torch.zeros(2, 8192), "input", folder / "wide.onnx")
