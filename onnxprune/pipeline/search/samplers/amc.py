"""AMC: an agent that decides one number after the other, and learns from what came of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from onnxprune.pipeline.search.samplers.base import AT_RANDOM, number_by_number, sampler

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

# Trials at random, before the agent decides; updates of the networks per trial; of the noise, its start and decay.
_FIRST, _UPDATES, _NOISE, _DECAY = 10, 300, 0.5, 0.97
_HIDDEN, _BATCH, _RATE = 32, 64, 1e-2


@sampler("amc")
def amc(seed: int, trials: int) -> BaseSampler:  # noqa: ARG001
    """An actor and a critic (DDPG) that go through the numbers in order (AMC, He et al. 2018); needs torch.

    The episode is a trial, its actions are the numbers of the space as shares of their ranges, and the state is which
    number is due, those that were chosen, and how the objectives weigh, drawn anew for every trial: one agent learns
    the whole front. The reward comes at the end and is not discounted, as in AMC: the weighted sum of the objectives,
    each on the scale of the trials so far. The agent is trained from the storage, so it goes on where another worker
    stopped. In AMC the state also describes the layer; here a number may be any option, so its place in the list does.
    """
    from onnxprune.support.extras import check_torch

    check_torch()
    return number_by_number(_Agent(seed), seed)


@dataclass
class _Agent:
    """Numbers as the agent has decided them, as shares of their ranges."""

    seed: int
    chosen: dict[str, float] = field(default_factory=dict)

    def begin(self, study: Any) -> None:
        """Let the agent decide all numbers of the trial."""
        self.chosen = {}
        known = _known(study)
        if known is not None and len(known.costs) >= _FIRST:
            self.chosen = dict(zip(known.names, _decided(known, self.seed), strict=True))

    def value(self, name: str, distribution: Any) -> object:
        """The number that the agent has decided."""
        if name not in self.chosen:
            return AT_RANDOM
        share = self.chosen[name]
        if hasattr(distribution, "choices"):
            return distribution.choices[min(int(share * len(distribution.choices)), len(distribution.choices) - 1)]
        return _value(share, distribution)


@dataclass(frozen=True)
class _Known:
    """The trials so far as arrays: the names of the numbers, their values as shares [trials, numbers], and the costs of
    the objectives [trials, objectives], each from 0 to 1.
    """

    names: list[str]
    actions: Any
    costs: Any


def _known(study: Any) -> _Known | None:
    """The trials that chose the same numbers as the last one; None where there are none."""
    import numpy as np
    from optuna.trial import TrialState

    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    done = [trial for trial in done if trial.params.keys() == done[-1].params.keys()]
    if not done:
        return None
    names = sorted(done[-1].params)
    actions = np.array([[_share(trial.params[name], trial.distributions[name]) for name in names] for trial in done])
    signs = np.array([-1.0 if direction.name == "MAXIMIZE" else 1.0 for direction in study.directions])
    costs = np.array([trial.values for trial in done]) * signs
    low, high = costs.min(axis=0), costs.max(axis=0)
    return _Known(names, actions, (costs - low) / np.maximum(high - low, 1e-12))


def _share(value: Any, distribution: Any) -> float:
    """A value as a share of its range; of a choice, the middle of its part."""
    from math import log

    if hasattr(distribution, "choices"):
        middle: float = (distribution.choices.index(value) + 0.5) / len(distribution.choices)
        return middle
    at, low, high = (log(each) if distribution.log else each for each in (value, distribution.low, distribution.high))
    share: float = (at - low) / (high - low)
    return share


def _value(share: float, distribution: Any) -> Any:
    """The value at a share of a range."""
    low, high = distribution.low, distribution.high
    value = low * (high / low) ** share if distribution.log else low + share * (high - low)
    if distribution.step:
        value = low + distribution.step * round((value - low) / distribution.step)
    return round(value) if isinstance(low, int) else min(max(value, low), high)


def _decided(known: _Known, seed: int) -> list[float]:
    """Train the agent on the trials so far; then one episode of it, with noise that falls from trial to trial."""
    import torch
    from torch import nn

    numbers, objectives = known.actions.shape[1], known.costs.shape[1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        state_size = 2 * numbers + objectives
        actor = nn.Sequential(nn.Linear(state_size, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, 1), nn.Sigmoid())
        critic = nn.Sequential(nn.Linear(state_size + 1, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, 1))
        actions, costs = (torch.tensor(each, dtype=torch.float32) for each in (known.actions, known.costs))
        learning = [torch.optim.Adam(each.parameters(), lr=_RATE) for each in (actor, critic)]
        for _ in range(_UPDATES):
            at, due = torch.randint(len(actions), (_BATCH,)), torch.randint(numbers, (_BATCH,))
            weights = _weights(torch.rand(_BATCH, objectives))
            states = _states(actions[at], due, weights)
            reward = -(weights * costs[at]).sum(dim=1, keepdim=True)
            taken = actions[at].gather(1, due[:, None])
            _descend(learning[1], (critic(torch.cat([states, taken], dim=1)) - reward).square().mean())
            _descend(learning[0], -critic(torch.cat([states, actor(states)], dim=1)).mean())
        weights, chosen = _weights(torch.rand(1, objectives)), torch.zeros(1, numbers)
        noise = _NOISE * _DECAY ** len(actions)
        with torch.no_grad():
            for number in range(numbers):
                action = actor(_states(chosen, torch.tensor([number]), weights))
                chosen[0, number] = (action + noise * torch.randn(1, 1)).clamp(0, 1).squeeze()
    return [float(each) for each in chosen[0]]


def _descend(learning: Any, loss: Any) -> None:
    learning.zero_grad()
    loss.backward()
    learning.step()


def _weights(drawn: Any) -> Any:
    return drawn / drawn.sum(dim=1, keepdim=True)


def _states(actions: Any, due: Any, weights: Any) -> Any:
    """Which number is due, those before it, and the weights: float32, shape [batch, 2 * numbers + objectives]."""
    import torch

    numbers = actions.shape[1]
    is_due = torch.nn.functional.one_hot(due, numbers).float()
    before = torch.arange(numbers)[None, :] < due[:, None]
    return torch.cat([is_due, actions * before, weights], dim=1)
