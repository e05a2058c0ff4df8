"""Augmentation: what each does to an image, that parts of a batch see the same draws, and what is left alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from onnxprune.errors import UsageError
from onnxprune.steps.train.augment import Augmentation, Mixed, Part, make_augmentation

COUNT = 64


def pictures(channels: int = 3) -> Tensor:
    """Every pixel has a number of its own: sample, channel, row and column can be read from it."""
    shape = (COUNT, channels, 16, 16)
    return torch.arange(COUNT * channels * 256, dtype=torch.float32).reshape(shape)


def applied(wanted: tuple[str, ...], x: Tensor, seed: int = 0, part: Part | None = None) -> Mixed:
    augmentation = make_augmentation(wanted, [x], per_sample=True)
    generator = torch.Generator().manual_seed(seed)
    return augmentation({"x": x}, generator, part or Part(0, len(x), len(x)))


def test_crop_moves_each_image_and_repeats_its_edges() -> None:
    x = pictures()
    y = applied(("crop=2",), x).feed["x"]
    moves = set()
    for before, after in zip(x, y, strict=True):
        fitting = [
            (down, right)
            for down in range(-2, 3)
            for right in range(-2, 3)
            if torch.equal(after, before[:, _moved(down)][:, :, _moved(right)])
        ]
        assert len(fitting) == 1
        moves.update(fitting)
    assert len(moves) > 15  # of 25


def _moved(by: int) -> Tensor:
    return (torch.arange(16) + by).clamp(0, 15)


def test_crop_is_an_eighth_of_the_image_by_default() -> None:
    assert not torch.equal(applied(("crop",), pictures()).feed["x"], pictures())
    assert torch.equal(applied(("crop",), pictures()).feed["x"], applied(("crop=2",), pictures()).feed["x"])


def test_flip_mirrors_half_of_the_images() -> None:
    x = pictures()
    y = applied(("flip",), x).feed["x"]
    mirrored = [torch.equal(after, before.flip(-1)) for before, after in zip(x, y, strict=True)]
    kept = [torch.equal(after, before) for before, after in zip(x, y, strict=True)]
    assert all(one != other for one, other in zip(mirrored, kept, strict=True))
    assert 16 < sum(mirrored) < 48


def test_channels_may_come_last() -> None:
    x = pictures()
    expected = applied(("crop=2", "flip", "colour"), x).feed["x"]
    found = applied(("crop=2", "flip", "colour"), x.movedim(1, -1)).feed["x"]
    torch.testing.assert_close(found, expected.movedim(1, -1))


def test_colour_scales_and_shifts_every_channel_by_itself() -> None:
    x = torch.randn(COUNT, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    y = applied(("colour=0.3",), x).feed["x"]
    flat, changed = x.flatten(2), y.flatten(2)
    gain = changed.std(-1) / flat.std(-1)
    assert 0.69 < float(gain.min()) < 0.8
    assert 1.2 < float(gain.max()) < 1.31
    shift = changed.mean(-1) - gain * flat.mean(-1)
    assert 0.2 < float(shift.abs().max()) < 0.35
    assert len(gain.flatten().unique()) == COUNT * 3


@pytest.mark.parametrize(("name", "axis"), [("time-mask=0.5", -1), ("frequency-mask=0.5", -2)])
def test_masks_cover_one_stretch_of_an_axis_with_the_mean(name: str, axis: int) -> None:
    x = torch.randn(COUNT, 10, 20, generator=torch.Generator().manual_seed(1))
    y = applied((name,), x).feed["x"]
    lengths = set()
    for before, after in zip(x, y, strict=True):
        changed = (after != before).movedim(axis, 0)
        rows = changed.flatten(1)
        assert torch.equal(rows.any(1), rows.all(1))
        covered = rows.all(1).nonzero().flatten()
        lengths.add(len(covered))
        if len(covered):
            assert int(covered[-1] - covered[0]) == len(covered) - 1
            assert torch.allclose(after.movedim(axis, 0)[covered], before.mean())
    size = x.shape[axis]
    assert min(lengths) == 0
    assert max(lengths) == size // 2


def test_mixup_mixes_samples_and_says_with_whom() -> None:
    x = pictures()
    mixed = applied(("mixup=1",), x)
    assert mixed.partner is not None
    assert 0 < mixed.share < 1
    torch.testing.assert_close(mixed.feed["x"], mixed.share * x + (1 - mixed.share) * x[mixed.partner])
    shares = [applied(("mixup=0.2",), x, seed).share for seed in range(200)]
    assert sum(min(share, 1 - share) < 0.1 for share in shares) > 100  # a small alpha hardly mixes
    assert 0.4 < sum(shares) / len(shares) < 0.6


def test_parts_of_a_batch_see_the_same_draws() -> None:
    x = pictures()
    wanted = ("crop=2", "flip", "colour")
    whole = applied(wanted, x).feed["x"]
    halves = [applied(wanted, x[at : at + 32], part=Part(at, at + 32, COUNT)).feed["x"] for at in (0, 32)]
    # the deviation that colours are shifted by is that of the part
    torch.testing.assert_close(
        torch.cat([applied(("crop=2", "flip"), x[a : a + 32], part=Part(a, a + 32, COUNT)).feed["x"] for a in (0, 32)]),
        applied(("crop=2", "flip"), x).feed["x"],
    )
    assert torch.cat(halves).shape == whole.shape


def test_the_same_seed_gives_the_same() -> None:
    wanted = ("crop", "flip", "colour", "mixup")
    assert torch.equal(applied(wanted, pictures()).feed["x"], applied(wanted, pictures()).feed["x"])
    assert not torch.equal(applied(wanted, pictures()).feed["x"], applied(wanted, pictures(), seed=1).feed["x"])


def test_tokens_and_features_are_left_alone() -> None:
    for x in (torch.arange(24).reshape(4, 6), torch.randn(4, 6), torch.randn(4, 64, 3, 3)):
        assert torch.equal(applied(("auto",), x).feed["x"], x)


def test_auto_moves_images_where_that_does_not_change_their_target() -> None:
    assert make_augmentation(("auto",), [pictures()], per_sample=True).steps == (("crop", 0.0),)
    assert not make_augmentation(("auto",), [pictures()], per_sample=False)
    assert not make_augmentation(("none",), [pictures()], per_sample=True)
    assert make_augmentation(("auto", "flip"), [pictures(5)], per_sample=True) == Augmentation((("flip", 0.5),))


def test_unknown_names_and_strengths_are_refused() -> None:
    with pytest.raises(UsageError, match="unknown augmentation 'flipp'; did you mean 'flip'"):
        make_augmentation(("flipp",), [pictures()], per_sample=True)
    for wrong in ("crop=x", "colour=-1", "mixup=inf"):
        with pytest.raises(UsageError, match="has to be a number from 0 on"):
            make_augmentation((wrong,), [pictures()], per_sample=True)
