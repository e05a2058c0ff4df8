"""Losses with labels and without, against closed forms."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from onnxprune.errors import UsageError
from onnxprune.runtime.torch.losses import LOSSES, choose_loss, make_loss


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", LOSSES)
def test_sample(name: str) -> None:
    """Every loss brings a case: a scalar of known value with a gradient; its sum is its mean times the samples."""
    sample = LOSSES[name].sample
    output = torch.tensor(sample.output, requires_grad=True)
    labels = None if sample.labels is None else torch.tensor(sample.labels)
    mean, total = (make_loss(name, ["y"], 3, reduction)({"y": output}, labels) for reduction in ("mean", "sum"))
    assert mean.shape == total.shape == ()
    torch.testing.assert_close(total, mean * len(output))
    (gradient,) = torch.autograd.grad(mean, output)
    assert gradient.isfinite().all()
    assert gradient.any()
    if sample.value is not None:
        assert mean.item() == pytest.approx(sample.value, rel=1e-5)
    assert LOSSES[name].labels == (labels is not None)


@pytest.mark.parametrize("name", LOSSES)
def test_says_what_it_is_in_one_line(name: str) -> None:
    assert 3 <= len(LOSSES[name].summary.split()) <= 25


def test_cross_entropy_is_minus_the_logarithm_of_the_share() -> None:
    logits, labels = normal(5, 4), torch.tensor([0, 3, 1, 1, 2])
    shares = logits.exp() / logits.exp().sum(1, keepdim=True)
    each = -shares[torch.arange(5), labels].log()
    torch.testing.assert_close(make_loss("cross-entropy", ["y"])({"y": logits}, labels), each.mean())
    torch.testing.assert_close(make_loss("cross-entropy", ["y"], reduction="sum")({"y": logits}, labels), each.sum())


def test_a_model_that_ends_in_softmax_is_not_given_another() -> None:
    logits, labels = normal(5, 4), torch.tensor([0, 3, 1, 1, 2])
    loss = make_loss("cross-entropy", ["y"])
    torch.testing.assert_close(loss({"y": logits.softmax(1)}, labels), loss({"y": logits}, labels))


def test_classes_of_positions_and_of_pixels() -> None:
    tokens, words = normal(2, 5, 4), torch.tensor([[0, 1, 2, 3, -100], [1, 1, -100, 2, 0]])
    loss = make_loss("cross-entropy", ["y"])
    expected = torch.nn.functional.cross_entropy(tokens.flatten(0, 1), words.flatten())
    torch.testing.assert_close(loss({"y": tokens}, words), expected)
    pixels, classes = normal(2, 4, 3, 6), torch.randint(0, 4, (2, 3, 6), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(loss({"y": pixels}, classes), torch.nn.functional.cross_entropy(pixels, classes))


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_smoothed_labels(reduction: str) -> None:
    logits, labels = normal(5, 4), torch.tensor([0, 3, -100, 1, 2])
    found = make_loss("cross-entropy", ["y"], reduction=reduction, smoothing=0.1)({"y": logits}, labels)
    due = torch.nn.functional.cross_entropy(logits, labels, reduction=reduction, label_smoothing=0.1)
    torch.testing.assert_close(found, due)


def test_mean_squares() -> None:
    found, wanted = normal(3, 2), normal(3, 2, seed=1)
    each = (found - wanted).square().mean(1)
    torch.testing.assert_close(make_loss("mse", ["y"])({"y": found}, wanted), each.mean())
    torch.testing.assert_close(make_loss("mse", ["y"], reduction="sum")({"y": found}, wanted.flatten()), each.sum())


def test_sampled_labels_give_the_fisher_information() -> None:
    """Over many draws, the mean square of the gradient at logits z is p (1 - p), the diagonal of the Fisher matrix."""
    logits = torch.tensor([1.0, 0.0, -1.0])
    rows = logits.repeat(20000, 1).requires_grad_()
    loss = make_loss("sampled", ["y"], seed=3, reduction="sum")
    (gradient,) = torch.autograd.grad(loss({"y": rows}, None), rows)
    shares = logits.softmax(0)
    torch.testing.assert_close(gradient.mean(0), torch.zeros(3), atol=0.02, rtol=0)
    torch.testing.assert_close(gradient.square().mean(0), shares * (1 - shares), atol=0.02, rtol=0)


def test_reconstruction_gives_the_fisher_information_of_a_gaussian() -> None:
    """Its Fisher matrix at the output is the identity, whatever the output is."""
    rows = (normal(20000, 3) * 7 + 4).requires_grad_()
    (gradient,) = torch.autograd.grad(make_loss("reconstruction", ["y"], reduction="sum")({"y": rows}, None), rows)
    torch.testing.assert_close(gradient.T @ gradient / 20000, torch.eye(3), atol=0.05, rtol=0)


def test_reconstruction_takes_all_outputs_that_are_floats() -> None:
    outputs = {"a": normal(2, 3).requires_grad_(), "n": torch.tensor([1, 2]), "b": normal(2, 1, 4).requires_grad_()}
    make_loss("reconstruction", list(outputs))(outputs, None).backward()
    assert outputs["a"].grad is not None
    assert outputs["b"].grad is not None


@pytest.mark.parametrize("name", ["sampled", "reconstruction"])
def test_the_same_seed_draws_the_same_and_every_call_something_new(name: str) -> None:
    outputs = {"y": normal(6, 5)}
    first, same, other = (make_loss(name, ["y"], seed=seed) for seed in (1, 1, 2))
    values = [float(first(outputs, None)) for _ in range(3)]
    assert values == [float(same(outputs, None)) for _ in range(3)]
    assert len(set(values)) == 3
    assert values != [float(other(outputs, None)) for _ in range(3)]


@pytest.mark.parametrize(
    ("shape", "labels", "chosen"),
    [
        ((4, 10), torch.zeros(4, dtype=torch.int64), "cross-entropy"),
        ((4, 7, 10), torch.zeros(4, 7, dtype=torch.int64), "cross-entropy"),
        ((4, 10), torch.zeros(4, 10), "mse"),
        ((4, 1), torch.zeros(4, dtype=torch.int64), "mse"),
        ((4, 10), None, "sampled"),
        ((4, 7, 10), None, "sampled"),
        ((4, 1), None, "reconstruction"),
        ((4, 3, 8, 8), None, "reconstruction"),
    ],
)
def test_the_loss_that_fits(shape: tuple[int, ...], labels: Tensor | None, chosen: str) -> None:
    assert choose_loss(torch.zeros(shape), labels) == chosen
    assert make_loss("auto", ["y"])({"y": torch.zeros(shape)}, labels).ndim == 0


def test_a_function_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_losses.py").write_text(
        "def largest(outputs, labels):\n    return outputs['y'].max() + (0 if labels is None else labels.sum())\n"
        "def odd(outputs, labels):\n    return outputs['y']\n"
        "def broken(outputs, labels):\n    return outputs['z']\n"
    )
    monkeypatch.chdir(tmp_path)
    outputs = {"y": torch.tensor([[1.0, 3.0]])}
    assert float(make_loss("my_losses:largest", ["y"])(outputs, torch.tensor([2.0]))) == 5
    with pytest.raises(UsageError, match=r"has to return one float as a tensor, not a tensor of shape \(1, 2\)"):
        make_loss("my_losses:odd", ["y"])(outputs, None)
    with pytest.raises(UsageError, match="the loss 'my_losses:broken' failed: KeyError: 'z'"):
        make_loss("my_losses:broken", ["y"])(outputs, None)
    with pytest.raises(UsageError, match="has no function 'larges'; did you mean 'largest'"):
        make_loss("my_losses:larges", ["y"])


@pytest.mark.parametrize(
    ("name", "labels", "said"),
    [
        ("cross-entropy", None, "the loss 'cross-entropy' needs labels; without them take 'sampled'"),
        ("cross-entropy", torch.tensor([0, 9]), "labels from 0 to 9 where the model has 3 classes"),
        ("cross-entropy", torch.tensor([0, 1, 2]), r"labels of shape \(3,\) do not fit a prediction of shape \(2, 3\)"),
        ("cross-entropy", torch.tensor([0.5, 1.0]), "these labels are fractions; take 'mse'"),
        ("mse", torch.zeros(2, 4), r"labels of shape \(2, 4\) do not fit a prediction of shape \(2, 3\)"),
    ],
)
def test_labels_that_do_not_fit(name: str, labels: Tensor | None, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        make_loss(name, ["y"])({"y": normal(2, 3)}, labels)


def test_requests_that_do_not_fit() -> None:
    with pytest.raises(UsageError, match=r"unknown loss 'mze'; did you mean 'mse'.*; module:function names your own"):
        make_loss("mze", ["y"])
    with pytest.raises(UsageError, match="unknown reduction 'total'"):
        make_loss("mse", ["y"], reduction="total")
    with pytest.raises(UsageError, match="the model has no output"):
        make_loss("mse", [])
    with pytest.raises(UsageError, match="output 'y' is not a tensor of floats"):
        make_loss("mse", ["y"])({"y": torch.tensor([1, 2])}, torch.tensor([1.0, 2.0]))
