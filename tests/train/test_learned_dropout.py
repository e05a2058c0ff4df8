"""Dropout, variational dropout, hard concrete gates, masks and agents, each beside its paper's closed form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from onnxprune.analysis import cost
from onnxprune.analysis.inspect import inspect
from onnxprune.model.file import open_model
from onnxprune.passes.remove_units import RemoveUnits
from onnxprune.runtime.torch.module import TorchModel
from onnxprune.steps.train.loop import train_model
from onnxprune.steps.train.method import PENALTIES, TRAINING_METHODS, Effect, Moment, Scene, chosen_methods
from onnxprune.steps.train.methods.l0 import chance_not_zero, drawn_gates, final_gates
from onnxprune.steps.train.methods.learned_masks import straight_through
from onnxprune.steps.train.methods.variational_dropout import negative_kl
from onnxprune.steps.train.methods.variational_units import Truncated
from onnxprune.steps.train.parameters import trainable
from onnxprune.steps.train.spending import Spending
from tests.conftest import ROOT, Build
from tests.train.harness import CONVOLUTIONS, LINEAR, data_of, normal, options, pictures, weights

HALF = Moment(0.5, 0.01, 7)


def started(path: Path, method: str = "", penalty: str = "") -> tuple[Effect, TorchModel]:
    module = TorchModel(open_model(path))
    roles = {key: slot.role for key, slot in trainable(open_model(path)).items()}
    (chosen,) = chosen_methods([method] if method else [], [penalty] if penalty else [])
    return chosen.start(Scene(module.weights, roles, inspect(path), samples=50)), module


def test_dropout_leaves_out_its_share_and_keeps_the_mean(build: Build) -> None:
    path = build(CONVOLUTIONS)
    torch.manual_seed(0)
    effect, module = started(path, "dropout:0.3,level=weight,curriculum=10")
    share = 0.3 * (1 - np.exp(-10 * 0.5))  # Morerio et al. 2017, with theta = 1 - share
    drawn = [effect.weights(module.weights, HALF, training=True)["w2"] for _ in range(60)]
    ratio = torch.stack(drawn).detach() / module.weights["w2"].detach()
    assert abs(float((ratio == 0).float().mean()) - share) < 0.01
    assert torch.allclose(ratio[ratio != 0], torch.tensor(1 / (1 - share)).float())
    units, module = started(path, "dropout:0.3")
    ratio = units.weights(module.weights, HALF, training=True)["w3"].detach() / module.weights["w3"].detach()
    each = ratio.movedim(1, 0).flatten(1)
    assert torch.allclose(each, each[:, :1].expand_as(each))
    dropped = each[:, 0] == 0
    np.testing.assert_allclose(each[~dropped, 0], 1 / 0.7, rtol=1e-5)


def test_random_removal_follows_the_cubic_schedule_and_ends_at_its_share(build: Build) -> None:
    effect, module = started(build(CONVOLUTIONS), "random-removal:0.8,until=1")
    for done in (0.0, 0.25, 0.5, 1.0):
        seen = effect.weights(module.weights, Moment(done), training=True)["w2"]
        due = 0.8 * (1 - (1 - done) ** 3)  # Zhu and Gupta, equation 1, from zero
        assert abs(float((seen == 0).float().mean()) - due) <= 1 / seen.numel()
    trained = train_model(
        open_model(build(CONVOLUTIONS)),
        pictures(labelled=True),
        options(updates=4, training_method="random-removal:0.5"),
    )
    assert abs((weights(trained.model)["w2"] == 0).mean() - 0.5) < 0.01
    assert (trained.zeros["w2"] == (weights(trained.model)["w2"] != 0)).all()


def test_targeted_dropout_drops_of_the_smallest_only(build: Build) -> None:
    torch.manual_seed(0)
    effect, module = started(build(CONVOLUTIONS), "targeted-dropout:0.4,rate=0.5,ramp=0.5")
    sizes = module.weights["w2"].detach().abs().flatten()
    smallest = sizes.argsort()[: int(0.4 * len(sizes))]
    drawn = [effect.weights(module.weights, HALF, training=True)["w2"].detach().flatten() == 0 for _ in range(100)]
    share = torch.stack(drawn).float().mean(0)
    others = torch.ones(len(sizes), dtype=torch.bool)
    others[smallest] = False
    assert (share[others] == 0).all()
    assert abs(float(share[smallest].mean()) - 0.5) < 0.02
    at_the_end = effect.weights(module.weights, Moment(1.0), training=False)["w2"].detach().flatten() == 0
    assert torch.equal(at_the_end, ~others)


def test_the_divergence_of_variational_dropout_is_that_of_an_integral() -> None:
    """KL(N(1, alpha) | log-uniform) up to a constant, by quadrature; equation 14 fits it, and falls to 0 with alpha."""
    log_alpha = torch.tensor([-6.0, -3.0, -1.0, 0.0, 1.0, 3.0, 8.0], dtype=torch.float64)
    due = []
    for alpha in np.exp(log_alpha.numpy()):
        # -KL = 1/2 log alpha - E log|1 + sqrt(alpha) e| + C, and C = (log 2 + Euler's) / 2 makes it 0 for large alpha
        grid = np.linspace(-12, 12, 400_001) + 1e-7
        density = np.exp(-(grid**2) / 2) / np.sqrt(2 * np.pi)
        due.append(
            0.5 * np.log(alpha)
            - np.trapezoid(density * np.log(np.abs(1 + np.sqrt(alpha) * grid)), grid)
            - 0.5 * (np.log(2) + 0.5772156649)
        )
    np.testing.assert_allclose(negative_kl(log_alpha), due, atol=0.01)


def test_variational_dropout_draws_its_noise_and_weighs_the_divergence(build: Build) -> None:
    torch.manual_seed(0)
    effect, module = started(
        build(LINEAR, w=normal(4, 8), v=normal(8, 3)), "variational-dropout:2,warmup=1,start_at=-2"
    )
    seen = torch.stack([effect.weights(module.weights, HALF, training=True)["w"].detach() for _ in range(4000)])
    np.testing.assert_allclose(seen.mean(0), module.weights["w"].detach(), atol=0.03)
    np.testing.assert_allclose(seen.std(0), np.exp(-1.0), rtol=0.06)
    total = sum(negative_kl(-2 - torch.log(module.weights[name].square())).sum() for name in ("w", "v"))
    term = effect.term(module.weights, HALF)
    np.testing.assert_allclose(float(term), float(-2 * 0.5 / 50 * total), rtol=1e-5)
    # log alpha = -2 - log w^2 is above 3 where |w| < exp(-2.5)
    kept = effect.weights(module.weights, HALF, training=False)["w"] != 0
    assert torch.equal(kept, module.weights["w"].abs() >= np.exp(-2.5))


@pytest.mark.parametrize(("mu", "sigma"), [(0.0, 0.3), (-2.0, 1.0), (-8.0, 4.0), (1.0, 2.0)])
def test_the_noise_on_units_has_the_divergence_and_the_moments_of_its_density(mu: float, sigma: float) -> None:
    z = np.linspace(-20, 0, 2_000_001)
    density = np.exp(-((z - mu) ** 2) / (2 * sigma**2))
    density /= np.trapezoid(density, z)
    logs = np.log(np.maximum(density, 1e-300))
    due = np.trapezoid(density * (logs + np.log(20)), z)
    mean, square = np.trapezoid(density * np.exp(z), z), np.trapezoid(density * np.exp(2 * z), z)
    noise = Truncated(torch.tensor([mu]), torch.tensor([np.log(sigma)]))
    np.testing.assert_allclose(noise.kl(), [due], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(noise.moment(1), [mean], rtol=1e-4)
    np.testing.assert_allclose(noise.snr(), [mean / np.sqrt(square - mean**2)], rtol=1e-3)
    torch.manual_seed(0)
    many = Truncated(torch.full((40_000,), mu), torch.full((40_000,), float(np.log(sigma))))
    np.testing.assert_allclose(many.drawn().mean(), mean, rtol=0.03)


def test_hard_concrete_gates_are_open_as_often_as_the_closed_form_says() -> None:
    torch.manual_seed(0)
    for log_alpha in (-3.0, 0.0, 2.0):
        drawn = drawn_gates(torch.full((200_000,), log_alpha))
        # s > -gamma / (zeta - gamma) = 1/12: u > sigmoid(beta logit(1/12) - log alpha)
        due = 1 / (1 + np.exp(2 / 3 * np.log((1 / 12) / (11 / 12)) - log_alpha))
        assert abs(float((drawn != 0).float().mean()) - due) < 0.005
        assert abs(float(chance_not_zero(torch.tensor(log_alpha))) - due) < 1e-5
    expected = np.clip(1.2 / (1 + np.exp(-np.array([-3.0, 0.0, 3.0]))) - 0.1, 0, 1)
    np.testing.assert_allclose(final_gates(torch.tensor([-3.0, 0.0, 3.0])), expected, rtol=1e-5)


def test_the_price_of_gates_counts_the_weights_of_a_unit(build: Build) -> None:
    effect, module = started(build(LINEAR), "l0:3,level=unit,open=0.9")
    log_alpha = np.log(9)
    due = 3 / (1 + np.exp(2 / 3 * np.log(1 / 11) - log_alpha))
    np.testing.assert_allclose(float(effect.term(module.weights, HALF)), due, rtol=1e-5)
    (name,) = effect.parameters
    with torch.no_grad():
        effect.parameters[name][0] = -9
    seen = effect.weights(module.weights, HALF, training=False)["v"]
    assert (seen[0] == 0).all()
    assert (seen[1:] != 0).all()


def test_a_straight_through_mask_is_binary_with_the_gradient_of_a_sigmoid() -> None:
    logits = torch.tensor([-2.0, -0.1, 0.3, 4.0], requires_grad=True)
    mask = straight_through(logits)
    np.testing.assert_allclose(mask.detach(), [0, 0, 1, 1], atol=1e-6)
    (gradient,) = torch.autograd.grad(mask.sum(), logits)
    s = 1 / (1 + np.exp(-logits.detach().numpy()))
    np.testing.assert_allclose(gradient, s * (1 - s), rtol=1e-5)


@pytest.mark.parametrize("network", ["digits_resnet", "digits_transformer", "digits_lstm"])
def test_the_cost_of_masks_is_that_of_the_cut_model(network: str) -> None:
    path = ROOT / "models" / f"{network}.onnx"
    whole, cut = inspect(path), inspect(path)
    rng = np.random.default_rng(0)
    keep = {group.id: np.arange(group.units) < rng.integers(1, group.units + 1) for group in whole.groups}
    counts = {name: torch.tensor(float(mask.sum()), requires_grad=True) for name, mask in keep.items()}
    share = Spending(whole)(counts)
    RemoveUnits(cut, {group.atom: keep[group.id] for group in cut.groups})(cut.model)
    due = cost.before(inspect(cut.model)).macs / cost.before(whole).macs
    np.testing.assert_allclose(float(share), due, rtol=1e-5)
    share.backward()
    assert all(float(count.grad) > 0 for count in counts.values())


def test_the_penalty_of_masks_is_the_logarithm_of_the_cost_over_the_target(build: Build) -> None:
    effect, module = started(build(CONVOLUTIONS), "learned-masks:0.5,strength=2")
    assert np.isclose(float(effect.term(module.weights, HALF)), 2 * np.log(2))  # all are open at the start
    soft, module = started(build(CONVOLUTIONS), "learned-masks:0.5,kind=sigmoid,sharpest=100")
    name, logits = next(iter(soft.parameters.items()))
    masks = soft._masks(Moment(0.5), training=True)  # type: ignore[attr-defined]
    np.testing.assert_allclose(masks[name].detach(), 1 / (1 + np.exp(-10 * logits.detach().numpy())), rtol=1e-5)
    below, module = started(build(CONVOLUTIONS), "learned-masks:1.0")
    assert float(below.term(module.weights, HALF)) == 0


def test_agents_are_squeeze_and_excitation_of_the_sizes_of_units(build: Build) -> None:
    effect, module = started(build(LINEAR, w=normal(4, 8), b=normal(8), v=normal(8, 3)), "attention-agents:0.5")
    (group,) = effect.groups  # type: ignore[attr-defined]
    own = {name: weight.detach().numpy() for name, weight in module.weights.items()}
    sizes = np.log(((own["w"] ** 2).sum(0) + own["b"] ** 2 + (own["v"] ** 2).sum(1)) / 8)
    x = (sizes - sizes.mean()) / sizes.std()
    parts = {name.rpartition(":")[2]: each.detach().numpy() for name, each in effect.parameters.items()}
    due = 1 / (1 + np.exp(-(parts["excite"] @ np.maximum(parts["squeeze"] @ x, 0) + parts["open"])))
    np.testing.assert_allclose(effect.attention(group, module.weights).detach(), due, rtol=1e-4)  # type: ignore[attr-defined]
    seen = effect.weights(module.weights, HALF, training=False)["v"].detach()
    np.testing.assert_allclose(seen, own["v"] * (due * (due >= 0.5))[:, None], rtol=1e-4)


# A regression on sequences: what is trained is not a classifier, and no image.
SEQUENCES = """
    net (float[batch, 3, 12] x) => (float[batch, 2] y)
    <float[8, 3, 3] a, float[8] b, float[8, 8, 3] c, float[8] d, float[8, 2] v, float[2] e>
    {
        h = Conv<pads = [1, 1]>(x, a, b)  r = Relu(h)  k = Conv<pads = [1, 1]>(r, c, d)  s = Tanh(k)
        p = GlobalAveragePool(s)  f = Flatten(p)  y = Gemm(f, v, e)
    }
"""
EVERY = [(name, "") for name in TRAINING_METHODS] + [("", name) for name in PENALTIES if name != "bn-scale"]


@pytest.mark.parametrize(("method", "penalty"), EVERY, ids=[method or penalty for method, penalty in EVERY])
def test_a_regression_on_sequences_trains_with_each(method: str, penalty: str, build: Build) -> None:
    x = normal(32, 3, 12)
    data = data_of({"x": x}, x[:, :2, :].mean(2))
    given: dict[str, Any] = {"training_method": method or (), "penalty": penalty or (), "updates": 3}
    trained = train_model(open_model(build(SEQUENCES)), data, options(**given))
    assert np.isfinite(trained.best.loss)
    names = {name for name, _ in open_model(build(SEQUENCES)).graph.initializers.items()}
    assert weights(trained.model).keys() == names


@pytest.mark.parametrize("network", ["digits_lstm", "digits_transformer"])
@pytest.mark.parametrize(("method", "penalty"), EVERY, ids=[method or penalty for method, penalty in EVERY])
def test_each_works_on_recurrent_networks_and_on_attention(method: str, penalty: str, network: str) -> None:
    """A loss on what the method lets the network see has finite gradients, and a step leaves finite weights."""
    effect, module = started(ROOT / "models" / f"{network}.onnx", method, penalty)
    x = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    module.substitutes = effect.weights(module.weights, HALF, training=True)
    loss = module({"input": x})["logits"].square().mean()
    term = effect.term(module.weights, HALF)
    (loss if term is None else loss + term).backward()
    every = [*module.weights.values(), *effect.parameters.values()]
    assert all(bool(torch.isfinite(each.grad).all()) for each in every if each.grad is not None)
    assert all(bool((each.grad != 0).any()) for each in effect.parameters.values() if each.grad is not None)
    with torch.no_grad():
        effect.before_step(module.weights, HALF)
        effect.after_step(module.weights, HALF)
        effect.finish(module.weights, Moment(1.0))
        module.substitutes = effect.weights(module.weights, Moment(1.0), training=False)
        assert bool(torch.isfinite(module({"input": x})["logits"]).all())
