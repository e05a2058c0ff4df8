"""The other side of `train.py`: torch-pruning's cut of the same network, trained by the same loop in plain torch.

Cuts as in `recovery_peers.py`: L2, inside blocks, the same share of every layer, which is torch-pruning's best there
once its BatchNorms are re-estimated. Then the same steps: AdamW with the same rates, crop and flip, the same order of
samples, the whole network or the labels to learn from.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Sequence
from fnmatch import fnmatch
from typing import Any

import numpy as np
import torch
from recovery_common import CIFAR, IMAGES, Cache, Row, calibration, loader, test_set, train_pixels
from recovery_peers import CifarResNet, checked_network, re_estimate, torch_pruning_cut
from recovery_peers import accuracy as accuracy_of
from torch.nn import functional as F  # noqa: N812

from onnxprune.steps.train.augment import Part, make_augmentation
from onnxprune.steps.train.options import TrainOptions
from onnxprune.steps.train.schedules import rate_factor

BATCH, RATE, DECAY, HEAT = 128, 3e-3, 0.01, 4.0
WAYS = ("distilled", "labels")


def measure_peers(seeds: Sequence[int], wanted: Sequence[str], cache: Cache) -> None:
    """ResNet-20 at 2.11x, one epoch, from the original or from labels."""
    model, ratio = "resnet20", 2.11
    network: CifarResNet | None = None
    for way in WAYS:
        for seed in seeds:
            method = f"torch-pruning, {way}, 1 epoch"
            due = not wanted or any(fnmatch(f"{model} {method}", pattern) for pattern in wanted)
            if not due or cache.has(model, method, ratio, seed, 50_000):
                continue
            network = network or checked_network(model, cache)
            cut = torch_pruning_cut(network, network.macs() / ratio, everywhere=False, across=False)
            re_estimate(cut, calibration(seed, IMAGES))
            before = accuracy_of(cut, *test_set())
            wall, cpu = time.perf_counter(), time.process_time()
            train(cut, network if way == "distilled" else None, seed)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            found = accuracy_of(cut.eval(), *test_set())
            reached, note = network.macs() / cut.macs(), f"{before:.2f} before"
            cache.add(Row(model, method, ratio, seed, 50_000, found, reached, wall, cpu, note))


def train(network: Any, teacher: Any, seed: int) -> None:
    """One epoch in plain torch."""
    pixels, normalise = train_pixels(), loader()["normalise"]
    labels = torch.from_numpy(np.load(CIFAR / "train.npz")["labels"].astype(np.int64))
    options = TrainOptions()
    teacher = copy.deepcopy(teacher).eval() if teacher is not None else None
    network.train().to(memory_format=torch.channels_last)
    matrices = [weight for weight in network.parameters() if weight.ndim > 1]
    others = [weight for weight in network.parameters() if weight.ndim < 2]
    groups = [{"params": matrices, "weight_decay": DECAY}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, RATE)
    order = np.random.default_rng([seed, 0]).permutation(len(pixels))
    steps = math.floor(len(order) * 0.98) // BATCH  # as many as there, where one in fifty is kept apart
    for step in range(steps):
        chosen = order[step * BATCH : (step + 1) * BATCH]
        x = torch.from_numpy(normalise(pixels[chosen]))
        generator = torch.Generator().manual_seed(hash((seed, step)))
        x = make_augmentation(("crop", "flip"), [x], per_sample=True)({"x": x}, generator, Part(0, BATCH, BATCH)).feed[
            "x"
        ]
        x = x.contiguous(memory_format=torch.channels_last)
        for group in optimizer.param_groups:
            group["lr"] = RATE * rate_factor(options, (step + 1) / (steps + 1))
        found = network(x)
        if teacher is None:
            loss = F.cross_entropy(found, labels[chosen])
        else:
            with torch.no_grad():
                said = teacher(x)
            ours, theirs = ((value / HEAT).log_softmax(-1) for value in (found, said))
            loss = F.kl_div(ours, theirs, reduction="batchmean", log_target=True) * HEAT**2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
