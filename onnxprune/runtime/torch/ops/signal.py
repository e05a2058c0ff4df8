"""Fourier transforms; complex numbers are pairs on the last axis."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from onnxprune.runtime.torch.ops.base import TorchNode, torch_op


@torch_op("DFT", numbers=(1, 2))
def fourier_transform(op: TorchNode, x: Tensor, length: Any = None, axis: Any = None) -> Tensor:
    """The discrete Fourier transform along an axis, or its inverse."""
    along = _scalar(axis) if axis is not None else op.attr("axis", 1 if op.version < 20 else -2)
    along = along % x.ndim
    size = None if length is None else _scalar(length)
    signal = _as_complex(x)
    if op.attr("inverse", 0) and op.attr("onesided", 0):
        count = size if size is not None else 2 * (x.shape[along] - 1)
        real: Tensor = torch.fft.irfft(signal, count, along)
        return real.unsqueeze(-1)
    if op.attr("inverse", 0):
        return torch.view_as_real(torch.fft.ifft(signal, size, along))
    if op.attr("onesided", 0):
        return torch.view_as_real(torch.fft.rfft(signal.real if signal.is_complex() else signal, size, along))
    return torch.view_as_real(torch.fft.fft(signal, size, along))


@torch_op("STFT", numbers=(1, 3))
def short_time_fourier_transform(
    op: TorchNode, x: Tensor, step: Any, window: Tensor | None = None, length: Any = None
) -> Tensor:
    """The transform of every windowed frame: [batch, frames, bins, 2]."""
    signal = _as_complex(x if x.ndim == 3 else x.unsqueeze(-1))
    size = _scalar(length) if length is not None else signal.shape[1] if window is None else window.shape[0]
    frames = signal.unfold(1, size, _scalar(step))
    frames = frames if window is None else frames * window
    onesided = op.attr("onesided", 1) and not signal.is_complex()
    return torch.view_as_real(torch.fft.rfft(frames) if onesided else torch.fft.fft(frames))


@torch_op("MelWeightMatrix", numbers=(0, 1, 2, 3, 4))
def mel_weight_matrix(op: TorchNode, bins: Any, length: Any, rate: Any, low: Any, high: Any) -> Tensor:
    """[spectrum, bins]: triangles that are evenly spaced on the mel scale."""
    count, spectrum = _scalar(bins), _scalar(length) // 2 + 1
    edges = torch.tensor([_scalar(low), _scalar(high)], dtype=torch.float64)
    mels = 2595 * torch.log10(1 + edges / 700)
    step = (mels[1] - mels[0]) / (count + 2)
    hertz = 700 * (10 ** ((mels[0] + step * torch.arange(count + 2)) / 2595) - 1)
    at = torch.floor((_scalar(length) + 1) * hertz / _scalar(rate)).unsqueeze(0)
    bin_ = torch.arange(spectrum).unsqueeze(1)
    lower, centre, upper = at[:, :-2], at[:, 1:-1], at[:, 2:]
    rising = torch.where(centre == lower, (bin_ == centre).double(), (bin_ - lower) / (centre - lower))
    falling = (upper - bin_) / (upper - centre)
    inside = torch.where(bin_ <= centre, rising * (bin_ >= lower), falling * (bin_ < upper))
    return torch.nan_to_num(inside).to(op.dtype(op.attr("output_datatype", 1)))


def _as_complex(x: Tensor) -> Tensor:
    """[..., 2] as complex numbers, [..., 1] as the real ones that they are."""
    return torch.view_as_complex(x.contiguous()) if x.shape[-1] == 2 else x.squeeze(-1)


def _scalar(value: Any) -> Any:
    return value[0] if isinstance(value, list) else value
