"""The handwritten digits that the models beside this file are trained and measured on.

The images are scikit-learn's ``load_digits``: 1797 scans of 8x8 pixels, values 0 to 16. Every array handed
out here is a model's ``input`` as it is: float32 [n, 1, 8, 8], ``(pixels / 16 - MEAN) / STD``.

    python models/digits.py models/digits_resnet.onnx      # accuracy on the test split, parameters, bytes

Measuring reads ``digits_test.npz`` and needs numpy, onnx and onnxruntime; only ``load_split`` needs scikit-learn.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

Images = npt.NDArray[np.float32]  # [n, 1, 8, 8]
Labels = npt.NDArray[np.int64]  # [n]

HERE = Path(__file__).resolve().parent
TEST, CALIBRATION = HERE / "digits_test.npz", HERE / "digits_calibration.npz"
PIXEL_MAX = 16.0
# Mean and standard deviation of the training split's pixels after division by PIXEL_MAX, rounded: constants,
# so that whoever prepares an image of their own needs no data set for it.
MEAN, STD = 0.305, 0.376
SPLIT_SEED = 0
TEST_IMAGES = 450
CALIBRATION_IMAGES = 512


@dataclass(frozen=True)
class Split:
    """The two disjoint parts of the data set; each holds every digit in the same proportion."""

    train: Images
    train_labels: Labels
    test: Images
    test_labels: Labels


def normalize(pixels: npt.NDArray[np.float64]) -> Images:
    """Pixels [n, 8, 8] in 0..16 -> a model's input [n, 1, 8, 8]."""
    return ((pixels[:, None] / PIXEL_MAX - MEAN) / STD).astype(np.float32)


def load_split() -> Split:
    """1347 training and 450 test images, stratified by digit, the same ones every time."""
    from sklearn.datasets import load_digits  # type: ignore[import-untyped]
    from sklearn.model_selection import train_test_split  # type: ignore[import-untyped]

    digits = load_digits()
    train, test, train_labels, test_labels = train_test_split(
        normalize(digits.images),
        digits.target.astype(np.int64),
        test_size=TEST_IMAGES,
        stratify=digits.target,
        random_state=SPLIT_SEED,
    )
    return Split(train, train_labels, test, test_labels)


def write_archives() -> None:
    """Write the test split and a stratified part of the training split, ready for --data."""
    from sklearn.model_selection import train_test_split

    split = load_split()
    calibration, _, calibration_labels, _ = train_test_split(
        split.train,
        split.train_labels,
        train_size=CALIBRATION_IMAGES,
        stratify=split.train_labels,
        random_state=SPLIT_SEED,
    )
    np.savez_compressed(CALIBRATION, input=calibration, labels=calibration_labels)
    np.savez_compressed(TEST, input=split.test, labels=split.test_labels)


def correct(path: str | Path) -> tuple[int, int]:
    """How many test images the model at ``path`` classifies correctly in ONNX Runtime, out of how many."""
    import onnxruntime

    with np.load(TEST) as archive:
        images, labels = archive["input"], archive["labels"]
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"input": images})
    return int((np.asarray(logits).argmax(axis=1) == labels).sum()), len(labels)


def accuracy(path: str | Path) -> float:
    """The fraction of the test split that the model at ``path`` classifies correctly in ONNX Runtime."""
    hits, total = correct(path)
    return hits / total


def parameters(path: str | Path) -> int:
    """Weights in the file: elements of its float initializers, BatchNorm's running statistics included."""
    import onnx

    initializers = onnx.load(path).graph.initializer
    return sum(int(np.prod(t.dims)) for t in initializers if t.dims and t.data_type == onnx.TensorProto.FLOAT)


def describe(path: str | Path) -> str:
    """One line with every figure of the table in README.md."""
    hits, total = correct(path)
    size = Path(path).stat().st_size
    return f"{path}: {hits / total:.2%} ({hits}/{total}), {parameters(path):,} parameters, {size:,} bytes"


def main() -> None:
    """Print the figures of each model named on the command line."""
    parser = argparse.ArgumentParser(description="Measure models on the held-out digits, in ONNX Runtime.")
    parser.add_argument("model", type=Path, nargs="+", help="an .onnx file with `input` and `logits`")
    for path in parser.parse_args().model:
        print(describe(path))


if __name__ == "__main__":
    main()
