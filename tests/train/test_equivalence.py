"""A step of training equals the same step of the same network written in torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from onnxprune.data.base import Batch, Data
from onnxprune.model.file import open_model
from onnxprune.steps.train.loop import train_model
from onnxprune.steps.train.options import TrainOptions
from onnxprune.steps.train.trained import Trained
from tests.train.networks import NETWORKS, classes, exported, images, made

PLAIN: dict[str, Any] = {
    "updates": 1, "batch_size": 16, "rate_warmup": 0.0, "rate_schedule": "constant", "normalization": "none",
    "augment": ("none",), "holdout": 0.0, "keep": "last",
}  # fmt: skip


def data() -> Data:
    batch = Batch({"input": images().numpy()}, classes().numpy())
    return Data("images", True, lambda: iter([batch]))


def step_in_torch(network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    network.train()
    loss = F.cross_entropy(network(images()), classes())
    loss.backward()
    optimizer.step()


def difference(network: nn.Module, trained: Trained) -> dict[str, float]:
    """Per weight and running statistic the largest difference between torch and the file."""
    state = {name: tensor for name, tensor in network.state_dict().items() if tensor.is_floating_point()}
    initializers = trained.model.graph.initializers
    assert set(state) <= set(initializers)
    return {
        name: float(np.abs(initializers[name].const_value.numpy() - tensor.numpy()).max())  # type: ignore[union-attr]
        for name, tensor in state.items()
    }


@pytest.mark.parametrize("name", NETWORKS)
def test_a_step_of_sgd_is_that_of_torch(name: str, tmp_path: Path) -> None:
    network = made(name)
    path = exported(network, tmp_path / "model.onnx")
    before = {key: value.clone() for key, value in network.state_dict().items()}
    trained = train_model(
        open_model(path), data(), TrainOptions(**PLAIN, optimizer="sgd", learning_rate=0.05, momentum=0.9)
    )
    step_in_torch(network, torch.optim.SGD(network.parameters(), 0.05, 0.9, weight_decay=0, nesterov=True))
    _decay(network, before, 0.05)
    found = difference(network, trained)
    assert max(found.values()) < 1e-6, found
    assert trained.trained == sum(1 for _ in network.parameters())


def _decay(network: nn.Module, before: dict[str, torch.Tensor], rate: float) -> None:
    """The decay of matrices and kernels in a first step with Nesterov momentum, as sgd has it by default."""
    for name, parameter in network.named_parameters():
        if _decays(network, name, parameter):
            parameter.data -= rate * 1.9 * 5e-4 * before[name]


def _decays(network: nn.Module, name: str, parameter: nn.Parameter) -> bool:
    owner = network.get_submodule(name.rpartition(".")[0])
    return parameter.ndim > 1 and not isinstance(owner, nn.Embedding) and name not in ("token", "positions")


@pytest.mark.parametrize("name", ["residual", "waves", "lstm"])
def test_a_step_of_adamw_is_that_of_torch(name: str, tmp_path: Path) -> None:
    network = made(name)
    path = exported(network, tmp_path / "model.onnx")
    groups = [
        {"params": [p for n, p in network.named_parameters() if _decays(network, n, p) is due], "weight_decay": decay}
        for due, decay in ((True, 0.1), (False, 0.0))
    ]
    trained = train_model(open_model(path), data(), TrainOptions(**PLAIN, learning_rate=1e-3, weight_decay=0.1))
    step_in_torch(network, torch.optim.AdamW(groups, 1e-3, (0.9, 0.999)))
    assert max(difference(network, trained).values()) < 2e-6
