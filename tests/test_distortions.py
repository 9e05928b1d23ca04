"""The distortions, measured on a drawn blot and small digits, and the thread that makes pictures ahead."""

import queue
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

import distortions
import mnist
from distortions import Pictures, affine_maps, distort, elastic_shifts, warp
from model import pad

DIGITS = pad(mnist.load_dataset("digits", Path(), "train")[0])[:250]  # two and a half chunks
PLACES = torch.arange(32.0) - distortions.CENTRE


def random(epoch: int = 0) -> np.random.Generator:
    return np.random.default_rng([7, epoch])


def moments(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of an image's ink (32, 32), right and down: the centre (2,) and the covariance (2, 2)."""
    points = torch.stack([PLACES.repeat(32), PLACES.repeat_interleave(32)])
    centre = points @ (image.flatten() / image.sum())
    return centre, points.cov(correction=0, aweights=image.flatten().float())


def test_strength_0_changes_nothing_and_a_shift_by_whole_pixels_moves_the_bytes():
    assert torch.equal(distort(DIGITS, random(), strength=0), DIGITS)
    right_3_up_2 = torch.tensor([[1.0, 0, -3], [0, 1, 2]]).expand(len(DIGITS), 2, 3)
    assert torch.equal(warp(DIGITS, right_3_up_2), DIGITS.roll((-2, 3), (1, 2)))
    shifts = torch.tensor([-3.0, 2]).view(1, 2, 1, 1).expand(len(DIGITS), 2, 32, 32)
    assert torch.equal(warp(DIGITS, torch.eye(2, 3).repeat(len(DIGITS), 1, 1), shifts), DIGITS.roll((-2, 3), (1, 2)))
    full = warp(torch.full_like(DIGITS, 255), right_3_up_2)
    assert not full[:, :, :3].any() and not full[:, -2:].any() and full[:, :-2, 3:].eq(255).all()


@pytest.mark.parametrize(
    "amounts, linear, shift",
    [
        ((1, -0.4, 0, 0, 0), [[1, 0], [0, 1]], (2.5, -1)),
        ((0, 0, -1, 0, 0), [[1 / 1.12, 0], [0, 1 / 1.12]], (0, 0)),
        ((0, 0, 0, 1, 0), [[1.1, 0], [0, 1 / 1.1]], (0, 0)),
        ((0, 0, 0, 0, 1), [[1, 0.25], [0, 1]], (0, 0)),
        ((0.6, 1, 1, -1, -2), [[1.12 / 1.1, -0.5 * 1.12 * 1.1], [0, 1.12 * 1.1]], (1.5, 2.5)),
    ],
)
def test_a_blot_moves_and_changes_as_the_affine_map_says(amounts, linear, shift):
    blot = (255 * torch.exp(-(PLACES**2) / 18 - PLACES[:, None] ** 2 / 8)).to(torch.uint8)  # oblong, in the centre
    _, spread = moments(blot)
    centre, covariance = moments(warp(blot[None], affine_maps(torch.tensor([amounts], dtype=torch.float32)))[0])
    assert (centre - torch.tensor(shift)).abs().max() < 0.03
    # Taken back; bilinear interpolation has added at most a quarter of a squared pixel, along the axes.
    back = torch.tensor(linear).float().inverse()
    blur = back @ covariance @ back.T - spread
    assert -0.05 < blur.diag().min() <= blur.diag().max() < 0.3 and blur[0, 1].abs() < 0.05


def test_the_ranges_are_kept_and_filled(monkeypatch):
    seen = []
    monkeypatch.setattr(distortions, "affine_maps", lambda amounts: seen.append(amounts) or affine_maps(amounts))
    distort(torch.zeros(4000, 32, 32, dtype=torch.uint8), random(), strength=0.5)
    amounts = seen[0]  # (4000, 5)
    assert amounts.abs().max() <= 0.5 and (amounts.amax(0) > 0.49).all() and (amounts.amin(0) < -0.49).all()
    assert (amounts.mean(0).abs() < 0.02).all() and (amounts.std(0) - 0.5 / 3**0.5).abs().max() < 0.01
    assert (amounts.T.corrcoef() - torch.eye(5)).abs().max() < 0.06


def test_elastic_shifts_are_smooth_and_of_the_deviation_asked_for(monkeypatch):
    seen = []
    monkeypatch.setattr(distortions, "elastic_shifts", lambda n: seen.append(elastic_shifts(n)) or seen[-1])
    distort(torch.zeros(1000, 32, 32, dtype=torch.uint8), random(), strength=0, elastic=1.5)
    shifts = torch.cat(seen)  # (1000, 2, 32, 32), in pixels
    assert shifts.std(0).sub(1.5).abs().max() < 0.2 and shifts.mean().abs() < 0.02
    assert shifts.diff(dim=2).std() < 0.35 and shifts.diff(dim=3).std() < 0.35
    assert (shifts[:, :, 4, 4] * shifts[:, :, 28, 28]).mean().abs() < 0.2  # far ones have nothing to do with each other


@pytest.mark.parametrize("elastic", [0, 1.0])
def test_bits_depend_on_the_generator_alone_and_ink_is_kept(elastic):
    whole, generator, threads = distort(DIGITS, random(), 1, elastic), random(), torch.get_num_threads()
    assert torch.equal(whole, torch.cat([distort(part, generator, 1, elastic) for part in DIGITS.split(37)]))
    assert not torch.equal(whole, distort(DIGITS, random(1), 1, elastic))
    assert abs(whole.sum() / DIGITS.sum() - 1) < 0.03 and (whole.sum((1, 2)) / DIGITS.sum((1, 2))).min() > 0.6
    try:
        torch.set_num_threads(1 if threads > 1 else 2)
        assert torch.equal(whole, distort(DIGITS, random(), 1, elastic))
    finally:
        torch.set_num_threads(threads)


def training(threads, monkeypatch, generator_of=random):
    """The pictures of three epochs, where PyTorch may use so many threads."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    pictures = Pictures(DIGITS, 1.0, 0.0, generator_of, last_epoch=3)
    for epoch in 1, 2, 3:
        yield pictures.of(epoch)
    assert not pictures.started  # nothing beyond the last epoch


def working() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if "pictures" in thread.name]


def has_ended() -> bool:
    for thread in working():
        thread.join(10)
    return not working()


@pytest.mark.parametrize("threads", [1, 2])
def test_epochs_are_the_same_ahead_and_inline_and_the_thread_ends_when_abandoned(monkeypatch, threads):
    made = enumerate(training(threads, monkeypatch), 1)
    assert all(torch.equal(pictures, distort(DIGITS, random(epoch))) for epoch, pictures in made)
    del made
    assert has_ended()
    next(abandoned := training(threads, monkeypatch))
    assert len(working()) == threads - 1
    del abandoned
    assert has_ended()


def test_the_next_epoch_is_made_meanwhile_and_its_error_raised_when_asked_for(monkeypatch):
    begun = queue.Queue()

    def generator_of(epoch):
        begun.put(epoch)
        return random(1 // (3 - epoch))  # epoch 3 fails

    next(run := training(2, monkeypatch, generator_of))
    assert [begun.get(timeout=10) for _ in range(2)] == [1, 2]  # begun before anyone asks for it
    next(run)
    assert begun.get(timeout=10) == 3
    with pytest.raises(ZeroDivisionError):
        next(run)
    assert begun.empty() and has_ended()
