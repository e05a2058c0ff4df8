"""The quality that real trained files keep: `--target macs=0.75 --data`, everything else at its default.

python benchmarks/real.py -o benchmarks/results/real.md
python benchmarks/real.py dtln_2 attacut-c --options "--no-guard"
python benchmarks/real.py dtln_2 -o benchmarks/results/real.md      # its row alone: the others stay

The files are those of ../shared/real/trained, judged by their own measures on evaluation samples that no run has seen
(agreement and accuracy where there are labels, else the SNR of the first output), the trained networks of models/, and
RFB-320 of ../shared/real on photographs. Scores are taken by this script, not by onnxprune. One thread a run.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from defaults import TRAINED, Arrays, outputs, read
from recovery_common import ROOT, SHARED
from row_tables import asked_of, put

TARGET = "--target macs=0.75"
FILES = {
    "dtln_2": "dtln_2",
    "attacut-c": "attacut-c",
    "deepcut": "deepcut",
    "pulsevad_2.1k": "pulsevad",
    "pulsevad_2.1k_int8": "pulsevad",
}
DIGITS = ("digits_resnet", "digits_transformer", "digits_lstm")


@dataclass(frozen=True)
class Case:
    """A trained file, samples to fit to, and samples to judge by; `labels` among these where there are some."""

    model: Path
    calibration: Path
    evaluation: Path


def cases(folder: Path) -> Iterator[tuple[str, Case]]:
    """Every file by its name; `folder` takes samples that are made here."""
    for name, samples in FILES.items():
        calibration, evaluation = (TRAINED / f"{samples}.{part}.npz" for part in ("calibration", "evaluation"))
        yield name, Case(TRAINED / f"{name}.onnx", calibration, evaluation)
    for name in DIGITS:
        models = ROOT / "models"
        yield name, Case(models / f"{name}.onnx", models / "digits_calibration.npz", models / "digits_test.npz")
    yield "rfb320", Case(SHARED / "real" / "rfb320.onnx", *faces(folder))


def faces(folder: Path) -> tuple[Path, Path]:
    """Photographs as RFB-320 wants them, each whole and its four quarters: half to fit to, half to judge by."""
    from PIL import Image

    pictures = []
    for path in sorted((SHARED / "real" / "faces").glob("*.jpg")):
        picture = Image.open(path).convert("RGB")
        wide, high = picture.size
        boxes = [
            (0, 0, wide, high),
            *((x, y, x + wide // 2, y + high // 2) for x in (0, wide // 2) for y in (0, high // 2)),
        ]
        for box in boxes:
            array = np.asarray(picture.crop(box).resize((320, 240)), np.float32)
            pictures.append(((array - 127) / 128).transpose(2, 0, 1))
    parts = np.stack(pictures).reshape(-1, 5, 3, 240, 320)
    for name, part in (("calibration", parts[::2]), ("evaluation", parts[1::2])):
        np.savez(folder / f"faces.{name}.npz", input=part.reshape(-1, 3, 240, 320))
    return folder / "faces.calibration.npz", folder / "faces.evaluation.npz"


def chosen(given: np.ndarray) -> np.ndarray:
    """The class of each sample: the largest output, or whether the only one is above a half."""
    return given.argmax(1) if given.shape[1] > 1 else given[:, 0] > 0.5


def judged(model: Path, original: Path, samples: Arrays) -> str:
    """Agreement with the original and accuracy before and after, or SNR in dB, in words."""
    due, given = (outputs(each, samples) for each in (original, model))
    noise, power = (float(np.square(each, dtype=np.float64).sum()) for each in (given - due, due))
    ratio = f"{10 * np.log10(power / noise):.1f} dB" if noise else "exact"
    if "labels" not in samples:
        return ratio
    before, after, agreed = chosen(due), chosen(given), float(np.mean(chosen(due) == chosen(given)))
    labels = samples["labels"]
    return (
        f"agreement {agreed:.3f}, accuracy {np.mean(before == labels):.3f} -> {np.mean(after == labels):.3f}, {ratio}"
    )


def row(name: str, case: Case, options: str, out: Path) -> str:
    """One run and what came of it: measures, share of the MACs left, seconds of the processor, peak memory."""
    command = [sys.executable, "-m", "onnxprune", "compress", str(case.model), "--data", str(case.calibration)]
    command += [*shlex.split(f"{TARGET} {options}"), "-o", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, env=environment, stdout=said, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(process.pid, 0)
        said.seek(0)
        text = said.read()
    if status:
        return f"| {name} | - | refused: {text.strip().splitlines()[-1]} | - | - | {revision()} |"
    left = re.search(r"^MACs .* ([\d.]+)%", text, re.MULTILINE)
    cells = [name, f"{left.group(1)}%" if left else "-", judged(out, case.model, read(case.evaluation))]
    cells += [f"{used.ru_utime + used.ru_stime:.0f}", f"{used.ru_maxrss / 1024:.0f}", revision()]
    return f"| {' | '.join(cells)} |"


def revision() -> str:
    """Of the code that runs, with a + where it was changed since."""
    run = ["git", "-C", str(ROOT)]
    name = subprocess.run([*run, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout
    changed = subprocess.run([*run, "diff", "--quiet", "HEAD", "--", "onnxprune", "passes"], check=False).returncode
    return name.strip() + ("+" if changed else "")


def kept_rows(written: Path | None) -> dict[str, str]:
    """The rows of a table that was written before, by the first cell."""
    lines = written.read_text(encoding="utf-8").splitlines() if written and written.exists() else []
    rows = {line.split(" | ")[0].removeprefix("| "): line for line in lines if line.startswith("| ")}
    return {name: line for name, line in rows.items() if name != "file"}


def main() -> None:
    asked = asked_of(__doc__, "names")
    lines = [
        "# What real trained files keep",
        "",
        "Written by `python benchmarks/real.py -o benchmarks/results/real.md`: "
        f"`onnxprune compress MODEL --data CALIBRATION {TARGET}{' ' if asked.options else ''}{asked.options}`. The "
        "measures are of evaluation samples that the run has not seen; agreement and SNR are with the original.",
        "",
        "| file | MACs left | kept | seconds of the processor | peak MB | revision |",
        "|---|---|---|---|---|---|",
    ]
    rows = kept_rows(asked.output)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        for name, case in cases(folder):
            if not asked.names or name in asked.names:
                rows[name] = row(name, case, asked.options, folder / "out.onnx")
                print(rows[name], file=sys.stderr, flush=True)
    put([*lines, *rows.values()], asked.output)


if __name__ == "__main__":
    main()
