"""The bound of memory: how it is said, and that it is kept."""

from __future__ import annotations

import contextvars
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxprune.errors import UsageError
from onnxprune.support.memory import bytes_for, set_bound


@pytest.mark.parametrize("size", ["2", "much", "10MB", "-1GB", "5%"])
def test_what_is_no_size_or_too_little_is_refused(size: str) -> None:
    with pytest.raises(UsageError, match="memory"):
        set_bound(size)


def test_uses_get_a_share_of_the_bound() -> None:
    def shares(size: str) -> list[int]:
        set_bound(size)
        return [bytes_for(use) for use in ("values", "matrices")]

    small, large = (contextvars.copy_context().run(shares, size) for size in ("500MB", "2GB"))
    assert large == [4 * each for each in small]
    assert sum(large) <= 2_000_000_000


def _written(folder: Path, text: str, sizes: dict[str, tuple[int, ...]]) -> Path:
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> {text}')
    rng = np.random.default_rng(0)
    for name, shape in sizes.items():
        scale = np.sqrt(2 / np.prod(shape[1:]))
        model.graph.initializer.append(
            onnx.numpy_helper.from_array((scale * rng.standard_normal(shape)).astype(np.float32), name)
        )
    onnx.save(model, folder / "net.onnx")
    return folder / "net.onnx"


MAPS = """net (float[n, 3, 256, 256] x) => (float[n, 4, 256, 256] y) {
    h1 = Conv<pads = [1, 1, 1, 1]>(x, a)  r1 = Relu(h1)  h2 = Conv<pads = [1, 1, 1, 1]>(r1, b)  r2 = Relu(h2)
    y = Conv(r2, c) }"""
WIDE = "net (float[n, 64] x) => (float[n, 4] y) { h = MatMul(x, a)  r = Relu(h)  y = MatMul(r, b) }"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "sizes", "shape"),
    [
        (MAPS, {"a": (32, 3, 3, 3), "b": (32, 32, 3, 3), "c": (4, 32, 1, 1)}, (96, 3, 256, 256)),
        (WIDE, {"a": (64, 8000), "b": (8000, 4)}, (600, 64)),
    ],
    ids=["large maps", "8,000 features"],
)
def test_the_peak_stays_within_the_bound(
    text: str, sizes: dict[str, tuple[int, ...]], shape: tuple[int, ...], tmp_path: Path
) -> None:
    """Beyond what the program takes without data: 96 images give maps of 800 MB each in one batch."""
    path = _written(tmp_path, text, sizes)
    np.savez(tmp_path / "data.npz", x=np.random.default_rng(1).standard_normal(shape, np.float32))
    peak = (
        "import resource, runpy, sys\n"
        "try: runpy.run_module('onnxprune', run_name='__main__')\n"
        "except SystemExit as end: assert not end.code\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )

    def megabytes(*options: str) -> float:
        command = [sys.executable, "-c", peak, "compress", str(path), "-o", str(tmp_path / "out.onnx"), *options]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return int(said.split()[-1]) / 1000

    bare = megabytes("--ratio", "0.3", "--criterion", "l1", "--recover", "none")
    used = megabytes("--ratio", "0.3", "--data", str(tmp_path / "data.npz"), "--memory", "500MB")
    assert used - bare < 500
