"""int8 of this project beside ONNX Runtime's own quantizer: accuracy, SNR, bytes and time, on the same samples.

    python benchmarks/quantize.py --write                          # all rows, to benchmarks/results/quantize.md
    python benchmarks/quantize.py resnet20 --test 1000 --write     # one model, on so many test images: its part alone

Everything is fitted to the same 500 unlabeled images (the calibration file for the digits models, half of the
photographs for the face detector). Times are medians of processor time of one thread, float and quantized in turns, as
a ratio: above 1 is faster than float. Of the face detector the first column is the F1 score of the boxes above 0.7,
beside those of the float model.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType, quantize_static
from real import faces
from row_tables import arguments, zipped

import onnxprune as op
from onnxprune.runtime.providers import CPU
from onnxprune.steps.quantize.processor import find_processor

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("ONNXPRUNE_SHARED") or ROOT.parent / "shared")
RESULTS = ROOT / "benchmarks" / "results" / "quantize.md"
MODELS = ("resnet20", "resnet56", "digits_resnet", "digits_transformer", "digits_lstm", "rfb320")
CALIBRATION = 500
# A face is where the second of two scores is above this.
FACE = 0.7
Samples = tuple[np.ndarray, np.ndarray, np.ndarray]
Make = Callable[[Path, Path, np.ndarray], None]


def samples(model: str, test: int) -> tuple[Path, Samples]:
    """The file, images to calibrate on, test images and their labels."""
    if model == "rfb320":
        with tempfile.TemporaryDirectory() as folder:
            fitted, tested = (np.load(each)["input"] for each in faces(Path(folder)))
        return SHARED / "real" / "rfb320.onnx", (fitted, tested, np.zeros(0))
    if model.startswith("digits"):
        fitted, tested = (np.load(ROOT / "models" / f"digits_{part}.npz") for part in ("calibration", "test"))
        name = next(key for key in tested.files if tested[key].ndim > 1)
        labels = next(tested[key] for key in tested.files if tested[key].ndim == 1)
        return ROOT / "models" / f"{model}.onnx", (fitted[fitted.files[0]], tested[name], labels)
    folder = SHARED / "data" / "cifar10"
    sys.path.insert(0, str(folder))
    from load import tensors  # type: ignore[import-not-found]

    return folder / f"{model}.onnx", (tensors("train", n=CALIBRATION)[0], *tensors("test", n=test))


def ours(**options: object) -> Make:
    """Quantized by this project."""

    def make(path: Path, target: Path, images: np.ndarray) -> None:
        steps = op.Recipe([op.Quantize(**options), op.Clean()])  # type: ignore[arg-type]
        steps(path, data=images, allow_damage=True).save(target)

    return make


class Reader(CalibrationDataReader):
    """Batches for ONNX Runtime's calibration."""

    def __init__(self, path: Path, images: np.ndarray) -> None:
        name = session(path).get_inputs()[0].name
        self._batches = iter([{name: images[at : at + 50]} for at in range(0, len(images), 50)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next batch."""
        return next(self._batches, None)


def theirs(**options: object) -> Make:
    """Quantized by onnxruntime.quantization.quantize_static."""

    def make(path: Path, target: Path, images: np.ndarray) -> None:
        quantize_static(path, target, Reader(path, images), **options)

    return make


def cut(share: float) -> Make:
    """Pruned to a share of its MACs, recovered and quantized."""

    def make(path: Path, target: Path, images: np.ndarray) -> None:
        steps = op.Recipe([op.Prune(target=(f"macs={share}",)), op.Recover(), op.Quantize("int8"), op.Clean()])
        steps(path, data=images, allow_damage=True).save(target)

    return make


_BEST = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8, "per_channel": True}
ROWS: dict[str, Make] = {
    "onnxruntime, default": theirs(),
    "onnxruntime, U8S8 per channel": theirs(**_BEST),
    "onnxruntime, U8S8 per channel, 7 bits": theirs(**_BEST, reduce_range=True),
    "onnxruntime, the same, entropy": theirs(**_BEST, reduce_range=True, calibrate_method=CalibrationMethod.Entropy),
    "onnxprune, int8": ours(type="int8"),
    "onnxprune, int8, W4": ours(type="int8", weight_bits=4),
    "onnxprune, int8, W4, nearest": ours(type="int8", weight_bits=4, rounding="nearest"),
    "onnxprune, macs=0.6, recover, int8": cut(0.6),
    "onnxprune, int8, W3": ours(type="int8", weight_bits=3),
    "onnxprune, int8, W3, nearest": ours(type="int8", weight_bits=3, rounding="nearest"),
}


def session(path: Path) -> onnxruntime.InferenceSession:
    """As deployed, one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    return onnxruntime.InferenceSession(str(path), options, providers=[CPU])


def outputs(path: Path, images: np.ndarray) -> np.ndarray:
    """The first output for all images."""
    model = session(path)
    name = model.get_inputs()[0].name
    most = 100 if isinstance(model.get_inputs()[0].shape[0], str) else 1
    return np.concatenate([model.run(None, {name: images[at : at + most]})[0] for at in range(0, len(images), most)])


def quality(found: np.ndarray, exact: np.ndarray, labels: np.ndarray) -> float:
    """Share of right answers; without labels the F1 score of faces beside those of the float model."""
    if len(labels):
        return float((found.argmax(1) == labels).mean())
    seen, due = found[..., 1] > FACE, exact[..., 1] > FACE
    return 2 * float((seen & due).sum()) / max(float(seen.sum() + due.sum()), 1.0)


def ratio(path: Path, target: Path, images: np.ndarray) -> float:
    """Time of the float file over that of the other."""
    pair = [session(each) for each in (path, target)]
    name, times = pair[0].get_inputs()[0].name, ([], [])  # type: tuple[str, tuple[list[float], list[float]]]
    for _ in range(25):
        for model, found in zip(pair, times, strict=True):
            start = time.thread_time()
            model.run(None, {name: images})
            found.append(time.thread_time() - start)
    return float(np.median(times[0]) / np.median(times[1]))


def measure(model: str, test: int, wanted: list[str]) -> Iterator[str]:
    """A row of the table for each way."""
    path, (images, tested, labels) = samples(model, test)
    exact = outputs(path, tested)
    right = quality(exact, exact, labels)
    yield f"| {model} | float | {right:.2%} | | | {path.stat().st_size:,} | {zipped(path):,} | | | |"
    with tempfile.TemporaryDirectory() as folder:
        for name, make in ROWS.items():
            if wanted and name not in wanted:
                continue
            target = Path(folder) / "quantized.onnx"
            start = time.process_time()
            try:
                make(path, target, images)
            except Exception as error:  # a row of the table, whatever a library raises
                yield f"| {model} | {name} | {type(error).__name__} | | | | | | | |"
                continue
            seconds, found = time.process_time() - start, outputs(target, tested)
            top1 = quality(found, exact, labels)
            noise = 10 * np.log10(np.square(exact).sum() / np.square(exact - found).sum())
            sizes = (1, 16) if isinstance(session(path).get_inputs()[0].shape[0], str) else (1, 1)
            times = [ratio(path, target, tested[:batch]) for batch in sizes]
            yield (
                f"| {model} | {name} | {top1:.2%} | {100 * (top1 - right):+.2f} | {noise:.1f} dB | "
                f"{target.stat().st_size:,} | {zipped(target):,} | {times[0]:.2f}x | {times[1]:.2f}x | "
                f"{seconds:.0f} s |"
            )


HEAD = [
    "| model | how | top-1 | points | SNR | bytes | zipped | batch 1 | batch 16 | CPU |",
    "|---|---|---|---|---|---|---|---|---|---|",
]


def write(model: str, rows: list[str]) -> None:
    """Put the part of a model in place of what was there; the parts of others stay."""
    revision = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout
    command = " ".join(["python benchmarks/quantize.py", *sys.argv[1:]])
    said = f"Written by `{command}` on {find_processor([CPU]).name}, revision {revision.strip()}."
    before = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else ""
    parts = {part.partition("\n")[0]: part for part in before.split("\n## ")[1:]}
    parts[model] = "\n".join([model, "", said, "", *HEAD, *rows]) + "\n"
    ordered = [parts[name].rstrip("\n") + "\n" for name in MODELS if name in parts]
    about = (__doc__ or "").partition("\n\n")[2].rstrip()
    text = "\n".join(["# Quantization", "", about, "", *(f"## {part}" for part in ordered)])
    RESULTS.write_text(text, encoding="utf-8")


def main() -> None:
    """Print the tables, and write each where that was asked for."""
    given = arguments(__doc__ or "", MODELS, RESULTS)
    logging.getLogger().setLevel(logging.ERROR)
    print("\n".join(HEAD), flush=True)
    for model in given.models:
        rows = []
        for row in measure(model, given.test, given.only):
            print(row, flush=True)
            rows.append(row)
        if given.write:
            write(model, rows)


if __name__ == "__main__":
    main()
