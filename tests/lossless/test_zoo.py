"""Real architectures with planted dead units: a spread of them by default, all of them with `-m slow`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from onnxprune.pipeline.run import inspect
from onnxprune.runtime.session import Session
from tests.conftest import SHARED
from tests.lossless.harness import TOLERANCE, check_facts, check_lossless, noise, plant, removed

FAST = [
    "hf.bert.ts17fp16",  # half precision
    "hf.llama.ts17seq",  # grouped queries, rotary embedding
    "hf.vit.dy23",  # attention as one operator
    "hm.gru.dy",
    "hm.if_subgraph.dy",
    "hm.unet.ts17bn",  # BatchNormalization not folded, transposed convolutions
    "tv.mnasnet0_5.dy",  # depthwise
    "tv.shufflenet_v2_x0_5.ts17",
]
NAMES = sorted(json.loads((SHARED / "zoo" / "index.json").read_text())) if SHARED.is_dir() else []
UNSTABLE = {"tv.ssdlite320_mobilenet_v3_large.ts17"}  # orders near-equal boxes by chance


@pytest.fixture(autouse=True)
def tidy(tmp_path: Path) -> Iterator[None]:
    """pytest keeps the folders of three runs, and the zoo has gigabytes."""
    yield
    shutil.rmtree(tmp_path)


def prove(name: str, zoo: ModuleType, zoo_file: Callable[[str], Path], folder: Path, *, whole: bool) -> int:
    """What is said to be constant is, and what went made no difference; the number of planted units that stayed."""
    path = folder / "planted.onnx"
    planted = plant(inspect(zoo_file(name)), path, whole=whole)
    batch = 2 if zoo.info(name)["io"]["dynamic"] else None
    given = [zoo.inputs(name, seed, batch) for seed in (0, 1)]
    half, rounding = name.endswith("fp16"), noise(Session(path), given)
    check_facts(path, given, 5e-3 if half else max(1e-4, rounding))
    result = check_lossless(path, given, 5e-3 if half else max(TOLERANCE, rounding), again=False)
    gone = removed(result)
    return sum(len(units - set(gone.get(group, ()))) for group, units in planted.items())


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "produced"])
@pytest.mark.parametrize("name", FAST)
def test_some(name: str, whole: bool, zoo: ModuleType, zoo_file: Callable[[str], Path], tmp_path: Path) -> None:
    assert prove(name, zoo, zoo_file, tmp_path, whole=whole) == 0


@pytest.mark.slow
@pytest.mark.parametrize("whole", [True, False], ids=["whole", "produced"])
@pytest.mark.parametrize("name", [name for name in NAMES if name not in UNSTABLE])
def test_whole_zoo(name: str, whole: bool, zoo: ModuleType, zoo_file: Callable[[str], Path], tmp_path: Path) -> None:
    prove(name, zoo, zoo_file, tmp_path, whole=whole)
