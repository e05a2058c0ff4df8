"""Seconds for a step of training: a file in the torch executor beside the network that it was exported from.

    python benchmarks/train_speed.py -o benchmarks/results/train_speed.md
    python benchmarks/train_speed.py --device cuda        # where there is one

Each step is forward, cross-entropy, backward and AdamW, of both in turn; the figure is the median of what each took by
the processor's clock (on a GPU by the wall's), and the ratio the median of the pairs' ratios.
"""

from __future__ import annotations

import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import click
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "models")]


class Block(nn.Module):
    """Two convolutions beside a shortcut that skips pixels and pads channels (option A of He et al., 2016)."""

    def __init__(self, before: int, after: int, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.stride, self.pad = after // before, (after - before) // 2
        self.conv1, self.norm1 = nn.Conv2d(before, after, 3, self.stride, 1), norm(after)
        self.conv2, self.norm2 = nn.Conv2d(after, after, 3, 1, 1), norm(after)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        if self.stride > 1:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.pad, self.pad))
        return F.relu(inner + x)


class CifarResNet(nn.Module):
    """ResNet-20 for images of 32x32."""

    def __init__(self, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 16, 3, 1, 1), norm(16)
        widths = [16, 16, 16, 16, 32, 32, 32, 64, 64, 64]
        self.blocks = nn.Sequential(*(Block(a, b, norm) for a, b in pairwise(widths)))
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(F.relu(self.norm1(self.conv1(x)))).mean((2, 3)))


class Inverted(nn.Module):
    """Expansion, depthwise convolution, projection (MobileNetV2)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up, self.depth = nn.Conv2d(width, 4 * width, 1), nn.Conv2d(4 * width, 4 * width, 3, 1, 1, groups=4 * width)
        self.down, self.norm = nn.Conv2d(4 * width, width, 1), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.norm(self.down(F.relu6(self.depth(F.relu6(self.up(x))))))


def networks() -> dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]]:
    """How each is made, and the shape of a batch."""
    from digits_networks import ResNet, RowLSTM, VisionTransformer

    return {
        "ResNet-20 with BatchNorm": (lambda: CifarResNet(nn.BatchNorm2d), (64, 3, 32, 32)),
        "ResNet-20, folded": (lambda: CifarResNet(lambda _: nn.Identity()), (64, 3, 32, 32)),
        "inverted bottlenecks": (
            lambda: nn.Sequential(
                nn.Conv2d(3, 16, 3, 2, 1), *(Inverted(16) for _ in range(4)), nn.Flatten(), nn.Linear(4096, 10)
            ),
            (32, 3, 32, 32),
        ),
        "digits ResNet": (ResNet, (64, 1, 8, 8)),
        "digits transformer": (VisionTransformer, (64, 1, 8, 8)),
        "digits LSTM": (RowLSTM, (64, 1, 8, 8)),
    }


def exported(network: nn.Module, shape: tuple[int, ...], folder: Path) -> Any:
    """The network as a model that was read from a file."""
    from onnxprune.model.file import open_model

    path = folder / "network.onnx"
    torch.onnx.export(
        network.eval(),
        (torch.randn(2, *shape[1:]),),
        path,
        dynamo=False,
        opset_version=17,
        input_names=["input"],
        output_names=["logits"],
        dynamic_axes={"input": {0: "batch"}, "logits": {0: "batch"}},
        training=torch.onnx.TrainingMode.PRESERVE,
    )
    return open_model(path)


def stepper(
    module: nn.Module, run: Callable[[Tensor], Tensor], shape: tuple[int, ...], device: str
) -> Callable[[], None]:
    """A function that makes one step."""
    x, labels = torch.randn(shape, device=device), torch.randint(0, 10, shape[:1], device=device)
    optimizer = torch.optim.AdamW(module.parameters(), 1e-4)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(run(x), labels).backward()
        optimizer.step()

    return step


def seconds(step: Callable[[], None], repeats: int, device: str) -> float:
    clock = time.perf_counter if device == "cuda" else time.process_time
    if device == "cuda":
        torch.cuda.synchronize()
    start = clock()
    for _ in range(repeats):
        step()
    if device == "cuda":
        torch.cuda.synchronize()
    return (clock() - start) / repeats


def compared(name: str, rounds: int, repeats: int, device: str) -> tuple[float, float, float]:
    """Milliseconds of a step in plain torch and in the executor, and the ratio."""
    from onnxprune.runtime.torch.module import TorchModel
    from onnxprune.steps.train.parameters import trainable

    make, shape = networks()[name]
    network = make()
    with tempfile.TemporaryDirectory() as place:
        model = exported(network, shape, Path(place))
        module, trained = TorchModel(model), trainable(model)
    for key, weight in module.weights.items():
        weight.requires_grad_(key in trained)
    network.to(device).train()
    module.to(device).train()
    plain = stepper(network, network, shape, device)
    ours = stepper(module, lambda x: module({"input": x})["logits"], shape, device)
    seconds(plain, 2, device), seconds(ours, 2, device)
    pairs = [(seconds(plain, repeats, device), seconds(ours, repeats, device)) for _ in range(rounds)]
    first, second = (median(pair[side] for pair in pairs) * 1e3 for side in (0, 1))
    return first, second, median(b / a for a, b in pairs)


@click.command()
@click.option("--only", default="", help="part of the names of networks")
@click.option("--rounds", default=15, show_default=True)
@click.option("--repeats", default=3, show_default=True, help="steps in a round")
@click.option("--device", default="cpu", show_default=True)
@click.option("-o", "--output", type=Path, help="where to write the table (default: the terminal)")
def main(only: str, rounds: int, repeats: int, device: str, output: Path | None) -> None:
    """Measure and write the table."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    lines = [
        "# Seconds for a step of training, beside plain torch",
        "",
        f"Written by `python benchmarks/train_speed.py`; torch {torch.__version__}, {device}, one thread. Forward, "
        "cross-entropy, backward and AdamW; both in turn, medians.",
        "",
        "| network | batch | plain torch, ms | the file in the executor, ms | ratio |",
        "|---|---|---|---|---|",
    ]
    for name, (_, shape) in networks().items():
        if only in name:
            plain, ours, ratio = compared(name, rounds, repeats, device)
            lines.append(f"| {name} | {shape[0]} | {plain:.1f} | {ours:.1f} | {ratio:.2f} |")
            print(lines[-1], file=sys.stderr, flush=True)
    text = "\n".join(lines) + "\n"
    print(text) if output is None else output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
