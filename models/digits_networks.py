"""The three networks: plain torch, written so that each exports to the graph its family is known by.

Every one maps images [batch, 1, 8, 8] to logits [batch, 10].
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

CLASSES = 10


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, each with BatchNorm, and a shortcut around them (He et al. 2015)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            projection = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """[batch, in_channels, h, w] -> [batch, out_channels, h / stride, w / stride]."""
        residual = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(residual)) + self.shortcut(x))


class ResNet(nn.Module):
    """Three stages of two basic blocks; the later stages halve the image and project their shortcut."""

    def __init__(self, widths: tuple[int, ...] = (16, 32, 64), blocks: int = 2) -> None:
        super().__init__()
        channels = widths[0]
        convolution = nn.Conv2d(1, channels, 3, padding=1, bias=False)
        self.stem = nn.Sequential(convolution, nn.BatchNorm2d(channels), nn.ReLU())
        stages: list[nn.Module] = []
        for stage, width in enumerate(widths):
            for block in range(blocks):
                stages.append(BasicBlock(channels, width, stride=2 if stage > 0 and block == 0 else 1))
                channels = width
        self.stages = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(channels, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """[batch, 1, 8, 8] -> [batch, 10]."""
        features = self.pool(self.stages(self.stem(images)))
        logits: Tensor = self.head(torch.flatten(features, 1))
        return logits


class Attention(nn.Module):
    """Multi-head self-attention with one fused projection for queries, keys and values."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads, self.head_dim = heads, dim // heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.projection = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, tokens, dim] -> [batch, tokens, dim]."""
        batch, tokens, dim = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.heads, self.head_dim)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each [batch, heads, tokens, head_dim]
        weights = torch.softmax(q @ k.transpose(-2, -1) * self.head_dim**-0.5, dim=-1)
        attended = (weights @ v).transpose(1, 2).reshape(batch, tokens, dim)
        projected: Tensor = self.projection(attended)
        return projected


class EncoderLayer(nn.Module):
    """Pre-LayerNorm transformer layer: attention and a GELU feed-forward, each added to its input."""

    def __init__(self, dim: int, heads: int, mlp_dim: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attention = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, mlp_dim), nn.GELU(), nn.Linear(mlp_dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        """[batch, tokens, dim] -> [batch, tokens, dim]."""
        x = x + self.attention(self.norm1(x))
        output: Tensor = x + self.mlp(self.norm2(x))
        return output


class VisionTransformer(nn.Module):
    """ViT (Dosovitskiy et al. 2020) on 2x2 patches: 16 patch tokens and a class token, read by the head."""

    def __init__(self, dim: int = 64, depth: int = 3, heads: int = 4, mlp_dim: int = 256) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, dim, kernel_size=2, stride=2)
        self.class_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.positions = nn.Parameter(torch.randn(1, 17, dim) * 0.02)
        self.layers = nn.Sequential(*(EncoderLayer(dim, heads, mlp_dim) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """[batch, 1, 8, 8] -> [batch, 10]."""
        patches = self.patches(images).flatten(2).transpose(1, 2)  # [batch, 16, dim]
        class_token = self.class_token.expand(images.shape[0], -1, -1)
        tokens = torch.cat([class_token, patches], dim=1) + self.positions
        logits: Tensor = self.head(self.norm(self.layers(tokens))[:, 0])
        return logits


class RowLSTM(nn.Module):
    """Two bidirectional LSTM layers that read an image row by row; the outputs are averaged over the rows."""

    def __init__(self, hidden: int = 64, layers: int = 2) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, hidden, layers, batch_first=True, bidirectional=True, dropout=0.2)
        self.head = nn.Linear(2 * hidden, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """[batch, 1, 8, 8] -> [batch, 10]."""
        outputs, _ = self.lstm(images.squeeze(1))  # [batch, 8 rows, 2 * hidden]
        logits: Tensor = self.head(outputs.mean(dim=1))
        return logits
