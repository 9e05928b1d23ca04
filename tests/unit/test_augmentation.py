"""The augmentation, measured on small digits and a drawn blot; the thread that makes it ahead; lines of digits."""

import queue

import numpy as np
import pytest
import torch

from digits import augmentation, lines, mnist
from digits.augmentation import AugmentedImages, affine_maps, augment, elastic_shifts, warp
from model import pad

IMAGES, LABELS = mnist.load_dataset("digits", None, "test")
DIGITS = pad(IMAGES)[:250]  # two and a half chunks
PLACES = torch.arange(32.0) - augmentation.CENTRE


def random(epoch: int = 0) -> np.random.Generator:
    return np.random.default_rng([7, epoch])


def test_strength_0_changes_nothing_and_a_shift_by_whole_pixels_moves_the_bytes():
    assert torch.equal(augment(DIGITS, random(), strength=0), DIGITS)
    right_3_up_2 = torch.tensor([[1.0, 0, -3], [0, 1, 2]]).expand(len(DIGITS), 2, 3)
    shifts, unchanged = right_3_up_2[..., 2, None, None].expand(-1, 2, 32, 32), torch.eye(2, 3).expand(250, 2, 3)
    for moved in warp(DIGITS, right_3_up_2), warp(DIGITS, unchanged, shifts):
        assert torch.equal(moved, DIGITS.roll((-2, 3), (1, 2)))
    full = warp(torch.full_like(DIGITS, 255), right_3_up_2)
    assert not full[:, :, :3].any() and not full[:, -2:].any() and full[:, :-2, 3:].eq(255).all()


def moments(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of an image's ink (32, 32), right and down: the centre (2,) and the covariance (2, 2)."""
    points = torch.stack([PLACES.repeat(32), PLACES.repeat_interleave(32)])
    centre = points @ (image.flatten() / image.sum())
    return centre, points.cov(correction=0, aweights=image.flatten().float())


MAPS = [  # the five amounts, and the linear map and the shift that they mean
    ((1, -0.4, 0, 0, 0), [[1, 0], [0, 1]], (2.5, -1)),
    ((0, 0, -1, 0, 0), [[1 / 1.12, 0], [0, 1 / 1.12]], (0, 0)),
    ((0, 0, 0, 1, 0), [[1.1, 0], [0, 1 / 1.1]], (0, 0)),
    ((0, 0, 0, 0, 1), [[1, 0.25], [0, 1]], (0, 0)),
    ((0.6, 1, 1, -1, -2), [[1.12 / 1.1, -0.5 * 1.12 * 1.1], [0, 1.12 * 1.1]], (1.5, 2.5)),
]


@pytest.mark.parametrize("amounts, linear, shift", MAPS)
def test_a_blot_moves_and_changes_as_the_affine_map_says(amounts, linear, shift):
    blot = (255 * torch.exp(-(PLACES**2) / 18 - PLACES[:, None] ** 2 / 8)).to(torch.uint8)  # oblong, in the centre
    _, spread = moments(blot)
    centre, covariance = moments(warp(blot[None], affine_maps(torch.tensor([amounts], dtype=torch.float32)))[0])
    assert (centre - torch.tensor(shift)).abs().max() < 0.03
    # Taken back; bilinear interpolation has added at most a quarter of a squared pixel, along the axes.
    back = torch.tensor(linear).float().inverse()
    blur = back @ covariance @ back.T - spread
    assert -0.05 < blur.diag().min() <= blur.diag().max() < 0.3 and blur[0, 1].abs() < 0.05


def test_the_ranges_are_kept_and_filled_and_elastic_shifts_are_smooth(monkeypatch):
    drawn, shifts = [], []
    monkeypatch.setattr(augmentation, "affine_maps", lambda amounts: drawn.append(amounts) or affine_maps(amounts))
    monkeypatch.setattr(augmentation, "elastic_shifts", lambda n: shifts.append(elastic_shifts(n)) or shifts[-1])
    augment(torch.zeros(4000, 32, 32, dtype=torch.uint8), random(), strength=0.5, elastic=1.5)
    amounts, shifts = torch.cat(drawn), torch.cat(shifts)[:1000]  # (4000, 5), and (1000, 2, 32, 32) in pixels
    assert amounts.abs().max() <= 0.5 and (amounts.amax(0) > 0.49).all() and (amounts.amin(0) < -0.49).all()
    assert (amounts.mean(0).abs() < 0.02).all() and (amounts.std(0) - 0.5 / 3**0.5).abs().max() < 0.01
    assert (amounts.T.corrcoef() - torch.eye(5)).abs().max() < 0.06
    assert shifts.std(0).sub(1.5).abs().max() < 0.2 and shifts.mean().abs() < 0.02
    assert shifts.diff(dim=2).std() < 0.35 and shifts.diff(dim=3).std() < 0.35
    assert (shifts[:, :, 4, 4] * shifts[:, :, 28, 28]).mean().abs() < 0.2  # far ones have nothing to do with each other


@pytest.mark.parametrize("elastic", [0, 1.0])
def test_bits_depend_on_the_generator_alone_and_ink_is_kept(elastic):
    whole, generator, threads = augment(DIGITS, random(), 1, elastic), random(), torch.get_num_threads()
    assert torch.equal(whole, torch.cat([augment(part, generator, 1, elastic) for part in DIGITS.split(37)]))
    assert not torch.equal(whole, augment(DIGITS, random(1), 1, elastic))
    assert abs(whole.sum() / DIGITS.sum() - 1) < 0.03 and (whole.sum((1, 2)) / DIGITS.sum((1, 2))).min() > 0.6
    try:
        torch.set_num_threads(1 if threads > 1 else 2)
        assert torch.equal(whole, augment(DIGITS, random(), 1, elastic))
    finally:
        torch.set_num_threads(threads)


def test_the_next_epoch_is_made_meanwhile_and_its_error_raised_when_asked_for(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    begun = queue.Queue()

    def generator_of(epoch):
        begun.put(epoch)
        return random(1 // (3 - epoch))  # epoch 3 fails

    images = AugmentedImages(IMAGES[:250], 1.0, 0.0, generator_of, last_epoch=3)
    place = torch.empty(250, 32, 32, dtype=torch.uint8)
    images.put(1, place)
    assert [begun.get(timeout=10) for _ in range(2)] == [1, 2]  # begun before anyone asks for it
    images.put(2, place)
    assert begun.get(timeout=10) == 3
    with pytest.raises(ZeroDivisionError):
        images.put(3, place)
    assert begun.empty()
    (last := AugmentedImages(IMAGES[:250], 1.0, 0.0, random, last_epoch=1)).put(1, place)
    assert not last.started


def test_lines_are_composed_by_their_gaps():
    digits, counts = np.zeros((3, 32, 32), np.uint8), np.array([2, 0, 1])
    for digit, (left, right) in zip(digits, [(10, 20), (0, 4), (28, 32)]):  # the columns with ink
        digit[10:20, left:right] = 200
    made = lines.compose(digits, counts, np.array([99, 3, 99]), margin=14)
    ink = [np.flatnonzero(line.any(0)).tolist() for line in made]
    assert ink == [[*range(14, 24), *range(27, 31)], [], [*range(14, 18)]]
    assert made.shape == (3, 32, 31 + 14) and lines.split([1, 2, 3], counts) == [[1, 2], [], [3]]


def test_lines_show_the_digits_of_their_numbers_and_of_those_to_train_on_a_third_has_noise():
    def ink(image):
        return image[image.any(1)][:, image.any(0)].tobytes()

    known = {(ink(image), digit) for image, digit in zip(IMAGES.numpy(), LABELS.tolist())}
    batches = list(lines.sample_lines((IMAGES, LABELS), 60, random(), longest=1))
    found = [(ink(line), *number) for batch in batches for line, number in zip(batch[0].numpy(), batch[1])]
    assert len(found) == 60 and set(found) <= known
    counts = np.array([1, 2, 0] * 60)
    once, again = (
        lines.training_lines(pad(IMAGES)[:180], LABELS.numpy(), counts, 0.7, 0.5, random()) for _ in range(2)
    )
    assert once.dtype == np.uint8 and once.shape[:2] == (180, 32) and np.array_equal(once, again)
    assert 0.15 < once[counts == 0].any((1, 2)).mean() < 0.45  # without a digit they have nothing but noise, if any


def test_digits_of_training_lines_vary_in_height_size_slant_and_gaps(monkeypatch):
    """In the units of digits/augmentation.py: 1 is 2.5 pixels, a factor of 1.12, a slope of 0.25."""
    seen, unchanged = [], torch.eye(2, 3).expand(4000, 2, 3)
    monkeypatch.setattr(lines, "affine_maps", lambda amounts: seen.append(amounts) or unchanged)
    monkeypatch.setattr(lines, "compose", lambda digits, counts, gaps, margin: seen.append(gaps) or digits[:1])
    lines.training_lines(torch.zeros(4000, 32, 32, dtype=torch.uint8), None, np.full(1000, 4), 0.5, 0, random())
    (right, down, size, squeezing, slant), gaps = seen[0].numpy().T, seen[1]
    assert not right.any()  # gaps move the digits sideways
    for found, most in (down, 0.8), (size, 0.5 + 0.7), (squeezing, 0.5), (slant, 0.5 + 0.5):
        assert 0.9 * most < -found.min() <= most and 0.9 * most < found.max() <= most and abs(found.mean()) < 0.05
    for found in size, slant:  # alike in a line, but not the same
        assert 0.3 < np.corrcoef(found[::4], found[1::4])[0, 1] < 0.9
    assert abs(np.corrcoef(down[::4], down[1::4])[0, 1]) < 0.1
    counts, _ = np.histogram(gaps, [-3, -1, 2, 9, 24])  # below -1, to 1, to 8, above
    assert np.abs(counts / gaps.size - (0.14, 0.39, 0.42, 0.05)).max() < 0.03 and (gaps.min(), gaps.max()) == (-3, 23)


def test_digits_of_sampled_lines_stand_up_to_two_pixels_up_or_down():
    batches = lines.sample_lines((IMAGES[:1], LABELS[:1]), 60, random(), longest=1)  # one digit, over and over
    tops = {int(line.any(1).nonzero()[0]) for batch, _ in batches for line in batch}
    assert len(tops) == 5 and max(tops) - min(tops) == 4
