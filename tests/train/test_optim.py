"""Optimizers, rates per layer, what decays, schedules, moving averages, and the options themselves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields

import pytest
import torch

from onnxprune.errors import UsageError
from onnxprune.steps.train.optim import MovingAverage, make_optimizer, optimizer_defaults, set_rate
from onnxprune.steps.train.options import TrainOptions
from onnxprune.steps.train.rate import RATE_SCHEDULES, rate_factor
from onnxprune.support.options import options_of

ROLES = {"conv.weight": "weight", "conv.bias": "bias", "norm.weight": "scale", "rnn.hh": "recurrent", "words": "table"}


def weights() -> dict[str, torch.nn.Parameter]:
    return {name: torch.nn.Parameter(torch.ones(2, 2)) for name in ROLES}


def groups(**given: object) -> dict[str, dict[str, float]]:
    """Decay and factor by name."""
    own = weights()
    optimizer = make_optimizer(TrainOptions(**given), own, ROLES)  # type: ignore[arg-type]
    set_rate(optimizer, 2.0)
    return {
        name: {"decay": group["weight_decay"], "rate": group["lr"]}
        for name, weight in own.items()
        for group in optimizer.param_groups
        if any(weight is each for each in group["params"])
    }


def test_matrices_and_kernels_decay_and_nothing_else() -> None:
    found = groups(weight_decay=0.3)
    assert {name for name, group in found.items() if group["decay"] == 0.3} == {"conv.weight", "rnn.hh"}
    assert {group["decay"] for name, group in found.items() if name not in ("conv.weight", "rnn.hh")} == {0.0}


def test_rates_of_some_weights_differ() -> None:
    found = groups(rates=(("conv.*", 10.0), ("conv.bias", 0.5)))
    assert found["conv.weight"]["rate"] == 20.0
    assert found["conv.bias"]["rate"] == 1.0
    assert found["words"]["rate"] == 2.0
    with pytest.raises(UsageError, match=r"no trained weight is called 'convv.weight'; did you mean 'conv.weight'"):
        groups(rates=(("convv.weight", 10.0),))
    with pytest.raises(UsageError, match="is outside 0 or more"):
        groups(rates=(("conv.*", -1.0),))


def test_optimizers_of_torch_by_their_names() -> None:
    for name, kind in (("adamw", torch.optim.AdamW), ("SGD", torch.optim.SGD), ("RMSprop", torch.optim.RMSprop)):
        assert type(make_optimizer(TrainOptions(optimizer=name), weights(), ROLES)) is kind
    momentum = make_optimizer(TrainOptions(optimizer="sgd", momentum=0.8), weights(), ROLES).param_groups[0]
    assert momentum["momentum"] == 0.8
    assert momentum["nesterov"]
    assert not make_optimizer(TrainOptions(optimizer="sgd", momentum=0.0), weights(), ROLES).param_groups[0]["nesterov"]
    with pytest.raises(UsageError, match="unknown optimizer 'adamv'; did you mean 'adam'"):
        make_optimizer(TrainOptions(optimizer="adamv"), weights(), ROLES)


def test_rate_and_decay_by_default() -> None:
    assert (
        optimizer_defaults(TrainOptions(), normalized=True)[0]
        >= optimizer_defaults(TrainOptions(), normalized=False)[0]
    )
    assert (
        optimizer_defaults(TrainOptions(), normalized=False, rounded=True)[0]
        < optimizer_defaults(TrainOptions(), normalized=False)[0]
    )
    assert optimizer_defaults(TrainOptions(learning_rate=0.5, weight_decay=0.25), normalized=True) == (0.5, 0.25)


def test_the_average_follows_closely_while_it_is_young() -> None:
    weight = {"w": torch.zeros(1)}
    average = MovingAverage(weight, 0.99)
    weight["w"] += 1
    average.update(weight)
    assert float(average.values["w"]) == pytest.approx(1 - 1 / 11)
    for _ in range(2000):
        average.update(weight)
    before = float(average.values["w"])
    weight["w"] += 1
    average.update(weight)
    assert float(average.values["w"]) - before == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("schedule", RATE_SCHEDULES.names())
def test_schedules_rise_and_then_fall_or_stay(schedule: str) -> None:
    options = TrainOptions(rate_schedule=schedule, rate_warmup=0.2)
    rates = [rate_factor(options, done / 100) for done in range(101)]
    assert rates[0] == 0
    assert rates[:21] == sorted(rates[:21])
    assert rates[20] == pytest.approx(1.0)
    assert rates[20:] == sorted(rates[20:], reverse=True)
    assert 0 <= rates[100] <= 1


def test_schedules_end_where_they_should() -> None:
    ends = {"one-cycle": 0.0, "cosine": 0.0, "linear": 0.0, "step": 0.01, "constant": 1.0}
    for schedule, end in ends.items():
        assert rate_factor(TrainOptions(rate_schedule=schedule), 1.0) == pytest.approx(end, abs=1e-9)


@pytest.mark.parametrize(
    ("schedule", "due"),
    [
        ("cosine", lambda done: 0.5 * (1 + torch.cos(torch.tensor(torch.pi * done)).item())),
        ("linear", lambda done: 1 - done),
        ("constant", lambda done: 1.0),
        ("step", lambda done: 1.0 if done < 0.5 else 0.1 if done < 0.75 else 0.01),
    ],
)
def test_without_warm_up_a_schedule_is_its_formula(schedule: str, due: Callable[[float], float]) -> None:
    options = TrainOptions(rate_schedule=schedule, rate_warmup=0.0)
    for done in (0.0, 0.1, 0.4999, 0.51, 0.76, 0.99):
        assert rate_factor(options, done) == pytest.approx(due(done), abs=1e-6)


def test_a_rewound_schedule_repeats_its_end() -> None:
    whole = TrainOptions(rate_schedule="cosine", rate_warmup=0.0)
    rewound = TrainOptions(rate_schedule="cosine", rate_warmup=0.0, rate_rewind=0.75)
    for done in (0.0, 0.3, 0.9):
        assert rate_factor(rewound, done) == pytest.approx(rate_factor(whole, 0.75 + 0.25 * done))
    stepped = TrainOptions(rate_schedule="step", rate_warmup=0.0, rate_rewind=0.6)
    assert rate_factor(stepped, 0.0) == pytest.approx(0.1)
    assert rate_factor(stepped, 0.5) == pytest.approx(0.01)


def test_every_option_says_what_it_is() -> None:
    assert set(options_of(TrainOptions)) == {each.name for each in fields(TrainOptions)}
    for each in options_of(TrainOptions).values():
        assert each.declared.help.endswith(".")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"epochs": -1.0}, "epochs -1 is outside 0 or more"),
        ({"momentum": 1.5}, "momentum 1.5 is outside \\[0, 1\\)"),
        ({"batch_size": 0}, "batch-size 0 is outside 1 or more"),
        ({"rate_schedule": "cosin"}, "unknown rate-schedule 'cosin'; did you mean 'cosine'"),
        ({"keep": "first"}, "unknown keep 'first'"),
        ({"milestones": (0.5, 2.0)}, "milestones 2 is outside \\[0, 1\\]"),
        ({"temperature": 0.0}, "temperature must be above 0"),
        ({"epochs": float("nan")}, "epochs nan is outside 0 or more"),
    ],
)
def test_values_out_of_range_are_refused(given: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        TrainOptions(**given)  # type: ignore[arg-type]
