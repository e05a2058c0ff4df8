"""The rows of `recovery.py`, and how they become its table."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator, Sequence
from statistics import mean

from recovery_common import IMAGES, Row

RATIOS = (1.5, 2.11, 2.57)
SEEDS = (0, 1, 2, 3, 4)
OURS = {
    "none": "onnxprune, `--recover none`",
    "batchnorm": "onnxprune, `--recover batchnorm`",
    "default": "onnxprune, default: `obs`, `reconstruct`",
}
PEERS = {
    f"torch-pruning {where} {share}{after}": f"torch-pruning, {share} L2, {words}{', + BatchNorm' * bool(after)}"
    for where, words in (("all", "all channels"), ("inner", "inside blocks"))
    for share in ("local", "global")
    for after in ("", " bn")
} | {
    f"onnxsim {share}{after}": f"onnxsim, {share} L2{', ridge regression' * bool(after)}"
    for share in ("local", "global")
    for after in ("", " ridge")
}
METHODS = ("dense", *OURS, *PEERS, "compress")
TRANSFORMERS = {
    "digits_transformer": "`models/digits_transformer.onnx`, test digits",
    "timm.vit_tiny_patch16_224.dy": "ViT-tiny of the zoo, random weights, made-up inputs",
}
# Model, ratio, images: cost by samples, and by layers.
TIMED = (("resnet20", 2.11, 125), ("resnet20", 2.11, 250), ("resnet20", 2.11, 500), ("resnet56", 2.11, 500))
# Model, ratio, accuracy in percent, or (where negative) points that may be lost.
AIMS = (("resnet20", 2.11, 78.0), ("resnet20", 1.5, -3.0), ("resnet56", 2.11, -6.0), ("resnet56", 2.57, 78.0))
PACKAGES = ("onnxprune", "onnxruntime", "torch-pruning", "onnxsim", "torch")


def to_markdown(rows: Sequence[Row]) -> str:
    """The file."""
    parts = [
        ["# Accuracy won back without training", ""],
        [
            f"`python benchmarks/recovery.py`; {', '.join(versions())}. {IMAGES} unlabeled images, no gradient steps.",
            "",
        ],
        aims(rows),
        resnets(rows),
        transformers(rows),
        seconds(rows),
        notes(),
    ]
    return "\n".join(line for part in parts for line in part) + "\n"


def versions() -> Iterator[str]:
    for package in PACKAGES:
        try:
            yield f"{package} {importlib.metadata.version(package)}"
        except importlib.metadata.PackageNotFoundError:
            yield f"{package} not installed"


def some(rows: Sequence[Row], model: str, method: str, ratio: float) -> list[Row]:
    chosen = [row for row in rows if (row.model, row.method, row.ratio) == (model, method, ratio)]
    return sorted(chosen, key=lambda row: row.seed)


def dense(rows: Sequence[Row], model: str) -> float | None:
    return next((row.value for row in some(rows, model, "dense", 1.0)), None)


def aims(rows: Sequence[Row]) -> Iterator[str]:
    for model, ratio, aim in AIMS:
        found, whole = [row.value for row in some(rows, model, "default", ratio)], dense(rows, model)
        if not found or whole is None:
            continue
        due = aim if aim > 0 else whole + aim
        words = f"at least {due:.1f}%" + (f" ({-aim:.0f} points below dense)" if aim < 0 else "")
        verdict = "reached" if min(found) >= due else "reached on average" if mean(found) >= due else "MISSED"
        yield f"- {model} at {ratio}x fewer MACs, aim {words}: {verdict}, {cell(some(rows, model, 'default', ratio))}"
    yield ""


def resnets(rows: Sequence[Row]) -> Iterator[str]:
    for model in ("resnet20", "resnet56"):
        whole = dense(rows, model)
        yield f"## {model}, accuracy on 10,000 test images, %" + (f" (dense {whole:.2f})" if whole else "")
        yield ""
        yield "Mean over calibration sets; in brackets their least, and how many. `@` where a cut comes out deeper."
        yield ""
        yield from header("", *(f"{ratio}x fewer MACs" for ratio in RATIOS))
        for method, words in (*OURS.items(), *PEERS.items()):
            cells = [cell(some(rows, model, method, ratio)) for ratio in RATIOS]
            if any(cells):
                yield line(words, *cells)
        yield ""


def cell(rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    values = [row.value for row in rows]
    text = f"{mean(values):.1f}" + (f" ({min(values):.1f}, {len(values)})" if rows[0].images else "")
    reached = mean(row.reached for row in rows)
    return text + (f" @{reached:.2f}x" if reached > rows[0].ratio * 1.03 else "")


def transformers(rows: Sequence[Row]) -> Iterator[str]:
    yield "## Transformers: SNR of the outputs in dB, heads and neurons at 2x fewer MACs"
    yield ""
    yield from header("", "as cut", "recovered", "gain", "least gain", "seeds")
    for model, words in TRANSFORMERS.items():
        before, after = (some(rows, model, method, 2.0) for method in ("none", "default"))
        pairs = [(one.value, two.value) for one in before for two in after if one.seed == two.seed]
        if pairs:
            gains = [two - one for one, two in pairs]
            means = [f"{mean(values):.1f}" for values in (*zip(*pairs, strict=True), gains)]
            yield line(words, *means, f"{min(gains):.1f}", str(len(gains)))
    yield ""


def seconds(rows: Sequence[Row]) -> Iterator[str]:
    yield "## Seconds of `compress` at 2.11x, score to recovered model, one thread"
    yield ""
    yield from header("", "images", "CPU", "by the clock", "accuracy, %")
    for model, ratio, images in TIMED:
        for row in some(rows, model, "compress", ratio):
            if row.images == images:
                yield line(model, str(images), f"{row.cpu:.1f}", f"{row.wall:.1f}", f"{row.value:.1f}")
    yield ""


def notes() -> Iterator[str]:
    yield "- MACs of torch-pruning's cuts are counted without the shortcut convolutions that it needs."
    yield "- Seconds by the clock were taken while other programs ran on the same two cores; those of the CPU count."
    yield "- torch-pruning's and onnxsim's cuts look at weights alone, so all seeds cut the same."
    yield "- `+ BatchNorm`: running statistics re-estimated on the calibration set, layer after layer."
    yield "- onnxsim's ridge regression (`apply_pruning_finetune`) fits MatMul and Gemm only: in these networks the"
    yield "  last layer, whose inputs its cuts leave alone; so its weights stay as they were."


def header(*cells: str) -> tuple[str, str]:
    return line(*cells), "|---" * len(cells) + "|"


def line(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"
