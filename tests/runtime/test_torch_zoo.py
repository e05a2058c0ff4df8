"""The torch executor beside ONNX Runtime, on real architectures: 1e-4 of the largest entry of each output."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch

from onnxprune.model.signature import synthetic_feed
from onnxprune.runtime.session import Session
from onnxprune.runtime.torch.module import TorchModel

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
# With the zoo's random weights rounding alone makes more of a difference than that: compared in double precision.
SENSITIVE = {"timm.nextvit_small.ts17"}


def difference(
    model: Any, before: dict[str, npt.NDArray[Any]], feed: dict[str, npt.NDArray[Any]], precision: str = "float32"
) -> float:
    """The largest difference of any output, relative to its largest entry, after a run with other inputs."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    with torch.no_grad():
        module = TorchModel(ir.from_proto(model), precision)
        module(before)
        found = module(feed)
    worst = 0.0
    for output, wanted in zip(session.get_outputs(), session.run(None, feed), strict=True):
        exact = found[output.name].double().numpy()
        assert exact.shape == wanted.shape
        if wanted.size:
            scale = max(float(np.abs(wanted.astype(np.float64)).max()), 1e-9)
            worst = max(worst, float(np.abs(exact - wanted.astype(np.float64)).max()) / scale)
    return worst


def tolerance(name: str) -> float:
    """ONNX Runtime rounds half precision at every step, torch computes it in float32."""
    return 2e-3 if name.endswith("fp16") else TOLERANCE


@pytest.mark.parametrize("name", SPREAD)
def test_a_spread_of_the_zoo_agrees(name: str, zoo: ModuleType) -> None:
    model = zoo.load(name)
    assert difference(model, zoo.inputs(model, seed=1), zoo.inputs(model, seed=0)) < tolerance(name)


@pytest.mark.parametrize("name", ["real/rfb320", "real/mnist_cntk", "data/cifar10/resnet20.dynamo"])
def test_trained_files_agree(name: str, shared: Path) -> None:
    model = onnx.load(shared / f"{name}.onnx")
    ports = Session(shared / f"{name}.onnx").inputs
    assert difference(model, synthetic_feed(ports, {}, seed=1), synthetic_feed(ports, {})) < TOLERANCE


@pytest.mark.slow
def test_the_whole_zoo_agrees(zoo: ModuleType) -> None:
    wrong = {}
    for name in zoo.names():
        model = zoo.load(name)
        precision = "float64" if name in SENSITIVE else "float32"
        found = difference(model, zoo.inputs(model, seed=1), zoo.inputs(model, seed=0), precision)
        if not found < tolerance(name):
            wrong[name] = found
    assert not wrong
