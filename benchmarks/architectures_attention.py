"""The transformers of `architectures.py`; heads and their width are attributes that can be set anew."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Attention(nn.Module):
    """The common part of the three attentions: how heads are split, mixed and joined.

    `projections` names the layers whose outputs are divided into heads; after another tool has made those smaller,
    `resize` gets the number of query heads.
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
