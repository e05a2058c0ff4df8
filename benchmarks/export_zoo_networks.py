"""The hand-made families of the zoo, written in torch as their graphs read: same layers, same sizes.

Each function of `NETWORKS` returns a module and example inputs, as in export_networks.py.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from export_networks import Chain, Head, Made, conv
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812


class ConcatFeatures(nn.Module):
    """Two branches side by side, then mean and maximum side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = conv(3, 16), conv(3, 24, 5), conv(40, 32)
        self.f, self.o = nn.Linear(64, 48), nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        y = self.c(torch.cat([self.a(x), self.b(x)], 1))
        return self.o(torch.relu(self.f(torch.cat([y.mean((2, 3)), y.amax((2, 3))], 1))))


class UnevenSplit(nn.Module):
    """Channels of one convolution go three ways."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 56, 3, padding=1), nn.Conv2d(16, 16, 1), nn.Conv2d(24, 16, 1)
        self.d, self.o = nn.Conv2d(16, 16, 1), nn.Conv2d(32, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        first, second, third = self.a(x).split([16, 24, 16], 1)
        gated = self.b(first) * torch.sigmoid(self.c(second))
        return self.o(torch.cat([gated, self.d(F.hardswish(third))], 1))


class EinsumAttention(nn.Module):
    """Attention whose products are einsums."""

    def __init__(self) -> None:
        super().__init__()
        self.i, self.o, self.fc = nn.Linear(16, 48), nn.Linear(64, 48), nn.Linear(48, 6)
        self.q, self.k, self.v = nn.Linear(48, 64), nn.Linear(48, 64), nn.Linear(48, 64)

    def forward(self, x: Tensor) -> Tensor:
        x = self.i(x)
        n, t, _ = x.shape
        q, k, v = (part(x).view(n, t, 4, 16) for part in (self.q, self.k, self.v))
        weights = (torch.einsum("bqhd,bkhd->bhqk", q, k) * 0.25).softmax(-1)
        return self.fc(x + self.o(torch.einsum("bhqk,bkhd->bqhd", weights, v).reshape(n, t, 64)))


class Gcn(nn.Module):
    """Two steps over a dense graph, added, the maximum over its nodes."""

    def __init__(self) -> None:
        super().__init__()
        self.l1, self.l2, self.o = nn.Linear(8, 32), nn.Linear(32, 32), nn.Linear(32, 4)

    def forward(self, x: Tensor, adj: Tensor) -> Tensor:
        first = torch.relu(adj @ self.l1(x))
        return self.o((first + torch.relu(adj @ self.l2(first))).amax(1))


class Gated(nn.Module):
    """A residual block whose gate is a half of the channels: GLU, or SwiGLU with its halves by chunk."""

    def __init__(self, *, swish: bool) -> None:
        super().__init__()
        self.i, self.a, self.b = nn.Linear(16, 48), nn.Linear(48, 128), nn.Linear(64, 48)
        self.o, self.fc, self.swish = nn.Linear(48, 48), nn.Linear(48, 6), swish

    def forward(self, x: Tensor) -> Tensor:
        x = self.i(x)
        wide = self.a(x)
        first, second = wide.chunk(2, -1)
        gated = F.silu(first) * second if self.swish else F.glu(wide, -1)
        return self.fc(torch.relu(self.o(x + self.b(gated))))


class Grouped(nn.Module):
    """Convolutions of four groups with a shortcut around the second."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = conv(3, 32), conv(32, 64, groups=4), conv(64, 64, groups=8)
        self.d, self.fc = conv(64, 48, 1), nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        y = self.b(self.a(x))
        return self.fc(self.d(y + self.c(y)).mean((2, 3)))


class GroupNorms(nn.Module):
    """Group norms in a residual network."""

    def __init__(self) -> None:
        super().__init__()
        widths = ((3, 32), (32, 32), (32, 32), (32, 64))
        self.a, self.b, self.c, self.d = (
            Chain(nn.Conv2d(before, after, 3, padding=1), nn.GroupNorm(8, after), nn.SiLU()) for before, after in widths
        )
        self.o = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        return self.o(self.d(y + self.c(self.b(y))).mean((2, 3)))


class Words(nn.Module):
    """An embedding, a recurrent layer, its last step."""

    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__()
        self.emb, self.rnn = nn.Embedding(200, 32), kind(32, 48, batch_first=True)
        self.fc1, self.fc = nn.Linear(48, 64), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.relu(self.fc1(self.rnn(self.emb(x))[0][:, -1])))


class Branches(nn.Module):
    """The data decides which layer is run."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.o = nn.Linear(12, 32), nn.Linear(32, 32), nn.Linear(32, 32), nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.a(x))
        return self.o(torch.cond(h.sum() > 100.0, lambda y: self.b(y), lambda y: self.c(y), (h,)))


class MultiAxisNorm(nn.Module):
    """Patches as tokens, norms over the channels and over channels and columns together."""

    def __init__(self) -> None:
        super().__init__()
        self.c, self.n1 = nn.Conv2d(3, 32, 4, 4), nn.LayerNorm(32)
        self.f1, self.f2 = nn.Linear(32, 96), nn.Linear(96, 32)
        self.n2, self.o = nn.LayerNorm((32, 4)), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        y = self.c(x).flatten(2).transpose(1, 2)
        y = y + self.f2(F.gelu(self.f1(self.n1(y))))
        return self.o(self.n2(y.transpose(1, 2).unflatten(2, (4, 4)).mean(2)).mean(2))


class ManyOutputs(nn.Module):
    """Outputs of several depths."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.h1 = conv(3, 16), conv(16, 32), nn.Conv2d(32, 5, 1)
        self.h2 = Chain(conv(32, 16), nn.Conv2d(16, 4, 1), nn.Sigmoid())
        self.h3 = nn.Linear(32, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        y = self.b(self.a(x))
        return self.h1(y), self.h2(y), self.h3(y.mean((2, 3))), y


class Unshuffled(nn.Module):
    """Pixels become channels, twice."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.fc = nn.Conv2d(12, 32, 3, padding=1), nn.Conv2d(128, 64, 1), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.a(F.pixel_unshuffle(x, 2)))
        return self.fc(torch.relu(self.b(F.pixel_unshuffle(y, 2))).amax((2, 3)))


class SharedTwice(nn.Module):
    """One layer, used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.i, self.s, self.o = nn.Linear(12, 32), nn.Linear(32, 32), nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.i(x))
        return self.o(torch.relu(self.s(torch.relu(self.s(x)))))


class Excited(nn.Module):
    """A residual block with squeeze and excitation."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = conv(3, 32), conv(32, 32), conv(32, 32), conv(32, 64)
        self.r, self.e, self.fc = nn.Conv2d(32, 8, 1), nn.Conv2d(8, 32, 1), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        y = self.c(self.b(x))
        gate = F.hardsigmoid(self.e(torch.relu(self.r(F.adaptive_avg_pool2d(y, 1)))))
        return self.fc(self.d(x + y * gate).mean((2, 3)))


class Temporal(nn.Module):
    """Causal dilated convolutions with shortcuts (Bai et al., 2018)."""

    def __init__(self) -> None:
        super().__init__()
        self.inp, self.out = nn.Conv1d(4, 32, 1), nn.Linear(32, 6)
        self.c = nn.ModuleList(nn.Conv1d(32, 32, 3, dilation=2**i) for i in range(4))
        self.p = nn.ModuleList(nn.Conv1d(32, 32, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        x = self.inp(x)
        for i, (causal, point) in enumerate(zip(self.c, self.p, strict=True)):
            x = x + point(torch.relu(causal(F.pad(x, (2 * 2**i, 0)))))
        return self.out(x[:, :, -1])


class Tied(nn.Module):
    """The table of the tokens is the matrix of the logits, too."""

    def __init__(self) -> None:
        super().__init__()
        self.e, self.f1, self.f2, self.n = nn.Embedding(120, 48), nn.Linear(48, 96), nn.Linear(96, 48), nn.LayerNorm(48)

    def forward(self, x: Tensor) -> Tensor:
        y = self.e(x)
        return self.n(y + self.f2(F.gelu(self.f1(y)))) @ self.e.weight.T


class DeepUnet(nn.Module):
    """Three steps down and three up."""

    def __init__(self) -> None:
        super().__init__()
        widths = (16, 32, 64)
        self.d = nn.ModuleList(Chain(conv(b, w), conv(w, w)) for b, w in zip((3, *widths), widths, strict=False))
        self.m = Chain(conv(64, 128), conv(128, 128))
        self.u = nn.ModuleList(nn.ConvTranspose2d(2 * w, w, 2, 2) for w in reversed(widths))
        self.e = nn.ModuleList(Chain(conv(2 * w, w), conv(w, w)) for w in reversed(widths))
        self.out = nn.Conv2d(16, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        across = []
        for down in self.d:
            x = down(x)
            across.append(x)
            x = F.max_pool2d(x, 2)
        x = self.m(x)
        for up, end in zip(self.u, self.e, strict=True):
            x = end(torch.cat([up(x), across.pop()], 1))
        return self.out(x)


def conv3d() -> nn.Module:
    """An autoencoder of videos."""
    first = Chain(nn.Conv3d(2, 16, 3, padding=1, bias=False), nn.BatchNorm3d(16), nn.ReLU(), nn.MaxPool3d(2))
    second = Chain(nn.Conv3d(16, 32, (1, 3, 3), padding=(0, 1, 1)), nn.ReLU(), nn.ConvTranspose3d(32, 16, 2, 2))
    return Chain(first, second, nn.Conv3d(16, 3, 1))


def separable() -> nn.Module:
    """Depthwise and pointwise in turn (Howard et al., 2017)."""
    pairs = [Chain(conv(b, b, groups=b), conv(b, a, 1)) for b, a in ((16, 32), (32, 64), (64, 64))]
    return Chain(conv(3, 16), *pairs, Head(64))


def mlp() -> nn.Module:
    layers = (nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 64), nn.BatchNorm1d(64), nn.GELU())
    return Chain(*layers, nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10))


def flattened() -> nn.Module:
    """A classifier that reads every pixel of every channel."""
    first = (nn.Conv2d(3, 24, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
    second = (nn.Conv2d(24, 32, 3, padding=1), nn.LeakyReLU(0.1), nn.MaxPool2d(2))
    return Chain(*first, *second, nn.Flatten(), nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 10))


def dilated() -> nn.Module:
    """Unusual activations, dilated windows, padding by reflection."""
    first = (nn.Conv2d(3, 24, 3, padding=1), nn.PReLU(24))
    second = (nn.Conv2d(24, 32, 3, padding=2, dilation=2, padding_mode="reflect"), nn.PReLU())
    third = (nn.Conv2d(32, 32, 3, padding=1), nn.Mish(), nn.Conv2d(32, 32, 3, padding=1), nn.SELU())
    return Chain(*first, *second, *third, Head(32))


def images(size: int = 16) -> Tensor:
    return torch.randn(2, 3, size, size)


def words(length: int = 12) -> Tensor:
    return torch.randint(0, 120, (2, length))


NETWORKS: dict[str, Callable[[], Made]] = {
    "hm.concat_features_fc": lambda: (ConcatFeatures(), images()),
    "hm.conv3d_ae": lambda: (conv3d(), torch.randn(2, 2, 4, 12, 12)),
    "hm.conv_split_uneven": lambda: (UnevenSplit(), images(12)),
    "hm.dwsep": lambda: (separable(), images(32)),
    "hm.einsum_attention": lambda: (EinsumAttention(), torch.randn(2, 9, 16)),
    "hm.flatten_chw_fc": lambda: (flattened(), images()),
    "hm.gcn_dense": lambda: (Gcn(), (torch.randn(2, 10, 8), torch.rand(2, 10, 10))),
    "hm.glu": lambda: (Gated(swish=False), torch.randn(2, 7, 16)),
    "hm.grouped_conv": lambda: (Grouped(), images(24)),
    "hm.groupnorm": lambda: (GroupNorms(), images()),
    "hm.gru": lambda: (Words(nn.GRU), words()),
    "hm.if_subgraph": lambda: (Branches(), torch.randn(2, 12)),
    "hm.layernorm_multi_axis": lambda: (MultiAxisNorm(), images()),
    "hm.lstm": lambda: (Words(nn.LSTM), words()),
    "hm.mlp": lambda: (mlp(), torch.randn(2, 20)),
    "hm.multi_output": lambda: (ManyOutputs(), images()),
    "hm.pixel_unshuffle": lambda: (Unshuffled(), images(32)),
    "hm.prelu_dilation": lambda: (dilated(), images()),
    "hm.rnn_tanh": lambda: (Words(nn.RNN), words()),
    "hm.shared_linear_twice": lambda: (SharedTwice(), torch.randn(2, 12)),
    "hm.squeeze_excite": lambda: (Excited(), images()),
    "hm.swiglu_chunk": lambda: (Gated(swish=True), torch.randn(2, 7, 16)),
    "hm.tcn": lambda: (Temporal(), torch.randn(2, 4, 40)),
    "hm.tied_embedding": lambda: (Tied(), words(10)),
    "hm.unet": lambda: (DeepUnet(), images(32)),
}
