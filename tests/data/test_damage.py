"""Files with bytes flipped or missing: read, or refused with one line; never anything else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxprune.errors import DataError
from tests.data.harness import ROWS, gathered, load

X = np.random.default_rng(0).standard_normal((20, 3)).astype(np.float32)


def _parquet(path: Path) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed; it comes with the extra 'data'")
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"x": X.tolist()}), path)


def _arrow(path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed; it comes with the extra 'data'")
    table = pyarrow.table({"x": X.tolist()})
    with pyarrow.ipc.new_stream(str(path), table.schema) as writer:
        writer.write_table(table)


WRITERS: dict[str, Callable[[Path], Any]] = {
    "data.npy": lambda path: np.save(path, X),
    "data.npz": lambda path: np.savez(path, x=X),
    "packed.npz": lambda path: np.savez_compressed(path, x=X),
    "data.parquet": _parquet,
    "data.arrow": _arrow,
}


@pytest.mark.parametrize("name", WRITERS)
def test_damaged_files(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    WRITERS[name](path)
    assert np.allclose(gathered(load(path, ROWS)), X)
    content, rng = path.read_bytes(), np.random.default_rng(0)
    refusals = []
    for round_ in range(150):
        damaged = bytearray(content)
        for place in rng.integers(0, len(content), rng.integers(1, 4)):
            damaged[place] ^= rng.integers(1, 256)
        path.write_bytes(damaged if round_ % 3 else damaged[: rng.integers(0, len(content))])
        try:
            list(load(path, ROWS).batches())
        except DataError as error:
            refusals.append(str(error))
    assert len(refusals) > 30
    assert not any("\n" in said for said in refusals)
