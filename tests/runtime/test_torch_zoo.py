"""The torch executor beside ONNX Runtime, on real architectures: 1e-4 of the largest entry of each output."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import onnxruntime
import pytest
import torch

from onnxprune.runtime.torch import TorchModel

# Both exporters, old and new opsets, convolutions, attention, recurrence, windows, bodies, half precision.
SPREAD = [
    "hf.llama.dy23",
    "hf.longformer.ts17",
    "hf.vit.dy23",
    "hm.conv3d_ae.ts17",
    "hm.if_subgraph.dy",
    "hm.lstm.dy",
    "hm.shared_linear_twice.ts17",
    "timm.ghostnet_050.ts17",
    "tv.resnet18.ts17fp16",
    "tv.ssdlite320_mobilenet_v3_large.ts17",
]
TOLERANCE = 1e-4


def difference(model: Any, feed: dict[str, npt.NDArray[Any]]) -> float:
    """The largest difference of any output, relative to its largest entry.

