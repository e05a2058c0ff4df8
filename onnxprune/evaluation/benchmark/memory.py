"""The memory that loading and running a model adds of a process."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onnxprune.model.file import on_disk
from onnxprune.model.signature import Feed
from onnxprune.runtime.latency import Setting
from onnxprune.runtime.session import Runnable

_PROBE = Path(__file__).with_name("memory_probe.py")


@dataclass(frozen=True)
class PeakMemory:
    """Resident bytes of a fresh process at their peak, and how many of them came with the model.

    Memory on a GPU is not in it.
    """

    peak: int
    added: int


def peak_memory(model: Runnable, setting: Setting, feed: Feed) -> PeakMemory | None:
    """Load and run a model in a process of its own; None where that cannot be measured (inputs of text, Windows)."""
    if any(array.dtype == object for array in feed.values()) or sys.platform == "win32":
        return None
    with tempfile.TemporaryDirectory() as folder, on_disk(model) as path:
        inputs = Path(folder) / "inputs.npz"
        np.savez(inputs, **feed)  # type: ignore[arg-type]
        command = [sys.executable, "-P", _PROBE, path, setting.provider, setting.threads, inputs]
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode:
        return None
    before, peak = map(int, done.stdout.split()[-2:])
    return PeakMemory(peak, peak - before)
