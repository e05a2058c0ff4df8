"""Train the digit networks and export them to ONNX, each with the exporter named in its recipe.

    python models/train_digits.py resnet|transformer|lstm|data|all

A run is repeatable: one thread, one seed, deterministic kernels. ``data`` writes the two .npz files. The test split
plays no part in training; a recipe is judged on images held out from the training split (``--validate``).
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import digits
import numpy as np
import onnx
import onnxruntime
import torch
from digits_networks import ResNet, RowLSTM, VisionTransformer
from torch import Tensor, nn

FOLDER = Path(__file__).resolve().parent
SEED = 0
BATCH = 64
WARMUP = 0.1  # fraction of the steps
LABEL_SMOOTHING = 0.1


@dataclass(frozen=True)
class Recipe:
    """How one network is built, trained and exported."""

    build: Callable[[], nn.Module]
    epochs: int
    learning_rate: float
    weight_decay: float
    dynamo: bool
    opset: int


RECIPES = {
    "resnet": Recipe(ResNet, 40, 2e-3, 0.05, dynamo=False, opset=17),
    "transformer": Recipe(VisionTransformer, 150, 1e-3, 0.05, dynamo=True, opset=20),
    "lstm": Recipe(RowLSTM, 120, 3e-3, 0.01, dynamo=False, opset=17),
}


def random_shift(images: Tensor, generator: torch.Generator) -> Tensor:
    """Move each image [n, 1, 8, 8] by -1, 0 or 1 pixel along either axis; what enters is background."""
    count, _, height, width = images.shape
    background = -digits.MEAN / digits.STD  # a pixel of 0, normalized
    padded = nn.functional.pad(images, (1, 1, 1, 1), value=background)
    top, left = torch.randint(0, 3, (2, count, 1), generator=generator)
    rows, columns = torch.arange(height) + top, torch.arange(width) + left
    return padded[torch.arange(count)[:, None, None], 0, rows[:, :, None], columns[:, None, :]].unsqueeze(1)


def warmup_cosine(step: int, steps: int) -> float:
    """The factor on the learning rate: a linear rise, then half a cosine down to zero."""
    progress = step / steps
    if progress < WARMUP:
        return progress / WARMUP
    return 0.5 * (1 + math.cos(math.pi * (progress - WARMUP) / (1 - WARMUP)))


def train(recipe: Recipe, images: Tensor, labels: Tensor) -> nn.Module:
    """Train a fresh network on images [n, 1, 8, 8] and labels [n]; it comes back in evaluation mode."""
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED)
    model = recipe.build().train()
    optimizer = torch.optim.AdamW(model.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay)
    steps = recipe.epochs * (len(images) // BATCH)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: warmup_cosine(step + 1, steps + 1))
    for _ in range(recipe.epochs):
        order = torch.randperm(len(images), generator=generator)
        for chosen in order[: len(order) // BATCH * BATCH].view(-1, BATCH):  # equal batches, for BatchNorm
            logits = model(random_shift(images[chosen], generator))
            loss = nn.functional.cross_entropy(logits, labels[chosen], label_smoothing=LABEL_SMOOTHING)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            scheduler.step()
    return model.eval()


def export(model: nn.Module, recipe: Recipe, path: Path) -> None:
    """Write the model to ``path``: weights inside the file, the batch size its one symbolic dimension."""
    example = torch.zeros(2, 1, 8, 8)  # a batch of 1 would let the exporter take the batch for a constant
    export_onnx = partial(torch.onnx.export, input_names=["input"], output_names=["logits"])
    if recipe.dynamo:
        shapes = ({0: torch.export.Dim("batch")},)
        export_onnx(
            model,
            (example,),
            path,
            dynamo=True,
            dynamic_shapes=shapes,
            external_data=False,
            opset_version=recipe.opset,
        )
    else:
        export_onnx(
            model,
            (example,),
            path,
            dynamo=False,
            opset_version=recipe.opset,
            dynamic_axes={"input": {0: "batch"}, "logits": {0: "batch"}},
            # The default, EVAL, fuses each BatchNorm into its convolution. The model is in evaluation mode.
            training=torch.onnx.TrainingMode.PRESERVE,
        )
    scrub(path)


def scrub(path: Path) -> None:
    """Drop documentation strings and metadata: the exporters put stack traces with local paths there."""
    model = onnx.load(path)
    graph = model.graph
    parts = [model, graph, *graph.node, *graph.initializer, *graph.value_info, *graph.input, *graph.output]
    for part in parts:
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def verify(model: nn.Module, path: Path, images: Tensor) -> None:
    """Fail unless the file at ``path`` and the model give the same logits for images [n, 1, 8, 8]."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"input": images.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(logits, model(images).numpy(), rtol=1e-4, atol=1e-4)


def validate(name: str) -> None:
    """Print the accuracy on a fifth of the training split after training on the rest."""
    split = digits.load_split()
    images, labels = torch.from_numpy(split.train), torch.from_numpy(split.train_labels)
    held_out = torch.from_numpy(np.arange(len(images)) % 5 == 0)
    model = train(RECIPES[name], images[~held_out], labels[~held_out])
    with torch.no_grad():
        hits = model(images[held_out]).argmax(dim=1) == labels[held_out]
    print(f"{name}: {hits.float().mean():.2%} of {len(hits)} validation images")


def train_and_export(name: str) -> None:
    """Train on the whole training split, export, and print the figures of the table in README.md."""
    split = digits.load_split()
    images, labels = torch.from_numpy(split.train), torch.from_numpy(split.train_labels)
    model = train(RECIPES[name], images, labels)
    path = FOLDER / f"digits_{name}.onnx"
    export(model, RECIPES[name], path)
    verify(model, path, images)
    print(digits.describe(path))


def main() -> None:
    """Parse the command line and train what it names."""
    parser = argparse.ArgumentParser(description="Train the digit networks and export them to ONNX.")
    parser.add_argument("target", choices=[*RECIPES, "data", "all"])
    validate_help = "train on four fifths of the training split, measure on the rest, write nothing"
    parser.add_argument("--validate", action="store_true", help=validate_help)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    if arguments.target in ("data", "all") and not arguments.validate:
        digits.write_archives()
    for name in RECIPES:
        if arguments.target in (name, "all"):
            (validate if arguments.validate else train_and_export)(name)


if __name__ == "__main__":
    main()
