"""What is chosen for which processor."""

from __future__ import annotations

import pytest

from onnxprune.runtime.providers import CPU
from onnxprune.steps.quantize.processor import find_processor


@pytest.mark.parametrize(
    ("machine", "flags", "unsigned", "reduced"),
    [
        ("x86_64", {"avx2"}, True, True),
        ("AMD64", {"avx2", "avx512_vnni"}, True, False),
        ("x86_64", {"avx_vnni"}, True, False),
        ("aarch64", set(), False, False),
        ("arm64", set(), False, False),
    ],
)
def test_of_the_processor(machine: str, flags: set[str], unsigned: bool, reduced: bool) -> None:
    found = find_processor([CPU], machine, flags)
    assert (found.unsigned, found.reduced) == (unsigned, reduced)


def test_a_device_takes_symmetric_integers() -> None:
    found = find_processor(["CUDAExecutionProvider", CPU], "x86_64", {"avx2"})
    assert (found.name, found.unsigned, found.reduced) == ("CUDA", False, False)
