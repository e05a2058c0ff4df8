"""Real architectures from real exporters: a spread of them by default, all of them with `-m slow`.

Each is compressed to half, written and checked, and each has to agree with the dead-unit oracle.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import onnx
import onnxruntime
import pytest

from onnxprune.pipeline.run import compress, inspect
from tests.conftest import SHARED
from tests.oracle import every_other_unit, judge

FAST = [
    "hf.bert.ts17fp16",  # half precision
    "hf.convnextv2.ts17",  # depthwise, global response normalization
    "hf.gpt_neox.ts17",  # rotary over a part of the head
    "hf.layoutlm.dy",  # batch * heads on one dynamic axis
    "hf.llama.ts17seq",  # grouped queries, dynamic sequence
    "hf.vit.dy23",  # attention as one operator
    "hf.whisper_encoder.ts17",
    "hm.concat_features_fc.ts17",
    "hm.einsum_attention.dy",
    "hm.gru.dy",
    "hm.groupnorm.ts17",
    "hm.if_subgraph.dy",  # branches with weights of their own
    "hm.lstm.ts17",
    "hm.pixel_unshuffle.dy",
    "hm.unet.ts17bn",  # BatchNormalization not folded
    "tv.mnasnet0_5.dy",
    "tv.shufflenet_v2_x0_5.ts17",
]
NAMES = sorted(json.loads((SHARED / "zoo" / "index.json").read_text())) if SHARED.is_dir() else []

# NonMaxSuppression orders near-equal boxes by chance: what it is given is compared.
INNER_VALUES = {
    "tv.ssdlite320_mobilenet_v3_large.ts17": [
        "/m/head/classification_head/Concat_12_output_0",
        "/m/head/regression_head/Concat_12_output_0",
    ]
}


@dataclass(frozen=True)
class Sample:
    """A model of the zoo and an input."""

    name: str
    path: Path
    feed: dict[str, Any]

    @property
    def tolerance(self) -> float:
        return 5e-3 if self.name.endswith("fp16") else 1e-4


@pytest.fixture(autouse=True)
def tidy(tmp_path: Path) -> Iterator[None]:
    """pytest keeps the folders of three runs, and the zoo has gigabytes."""
    yield
    shutil.rmtree(tmp_path)


@pytest.fixture
def sample(request: pytest.FixtureRequest, zoo: ModuleType, zoo_file: Callable[[str], Path]) -> Sample:
    batch = 2 if zoo.info(request.param)["io"]["dynamic"] else None
    return Sample(request.param, zoo_file(request.param), zoo.inputs(request.param, 0, batch))


def interface(path: Path) -> list[tuple[Any, ...]]:
    """Name, type and shape of every input and output, as ONNX Runtime sees them; None for a dynamic axis."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    ports = (*session.get_inputs(), *session.get_outputs())
    return [(port.name, port.type, *(axis if isinstance(axis, int) else None for axis in port.shape)) for port in ports]


def assert_half_is_valid(sample: Sample, folder: Path) -> None:
    """A smaller file that passes the checker, loads, and looks the same from outside."""
    result = compress(sample.path, ratio=0.5, recover="none")
    report = result.save(folder / "half.onnx")
    onnx.checker.check_model(folder / "half.onnx", full_check=True)
    assert interface(folder / "half.onnx") == interface(sample.path)
    assert report.after.parameters < report.before.parameters
    assert report.after.macs < report.before.macs
    assert report.file_bytes[1] < report.file_bytes[0]


def assert_exact(sample: Sample, folder: Path) -> None:
    """The dead-unit oracle, on a random half of every group."""
    plan = every_other_unit(inspect(sample.path))
    verdict = judge(sample.path, plan, sample.feed, folder, INNER_VALUES.get(sample.name, ()))
    assert verdict.difference < sample.tolerance
    assert verdict.effect > 1e-3, "the units make no difference, which proves nothing"


@pytest.mark.parametrize("sample", FAST, indirect=True)
def test_half_is_valid(sample: Sample, tmp_path: Path) -> None:
    assert_half_is_valid(sample, tmp_path)


@pytest.mark.parametrize("sample", FAST, indirect=True)
def test_pruned_equals_switched_off(sample: Sample, tmp_path: Path) -> None:
    assert_exact(sample, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("sample", NAMES, indirect=True)
def test_whole_zoo(sample: Sample, tmp_path: Path) -> None:
    assert_half_is_valid(sample, tmp_path)
    assert_exact(sample, tmp_path)
