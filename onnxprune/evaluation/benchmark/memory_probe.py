"""Run as a file in a process of its own: what one model adds to the memory of a program that uses ONNX Runtime.

    python -P memory_probe.py MODEL PROVIDER THREADS INPUTS.npz

Prints resident bytes before the model is loaded and their peak after three runs. Imports nothing of this package, whose
own memory would count.
"""

import contextlib
import os
import sys
from pathlib import Path

import numpy as np
import onnxruntime

RUNS = 3


def resident() -> tuple[int, int]:
    """Bytes now (where the system tells, else at most so far) and at most so far."""
    if sys.platform == "linux":
        lines = Path("/proc/self/status").read_text().splitlines()
        fields = dict(line.split(":", 1) for line in lines if ":" in line)
        return int(fields["VmRSS"].split()[0]) * 1024, int(fields["VmHWM"].split()[0]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return peak, peak


def main() -> None:
    """Load, run, print."""
    model, provider, threads, inputs = sys.argv[1:]
    with np.load(inputs, allow_pickle=False) as arrays:
        feed = {name: arrays[name] for name in arrays.files}
    with contextlib.suppress(OSError):  # start the peak anew; importing had one of its own
        Path("/proc/self/clear_refs").write_text("5")
    before, _ = resident()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = int(threads)
    for library in filter(None, os.environ.get("ONNXPRUNE_CUSTOM_OPS", "").split(os.pathsep)):
        options.register_custom_ops_library(library)
    providers = list(dict.fromkeys([provider, "CPUExecutionProvider"]))
    session = onnxruntime.InferenceSession(model, options, providers=providers)
    for _ in range(RUNS):
        session.run(None, feed)
    print(before, resident()[1])


if __name__ == "__main__":
    main()
