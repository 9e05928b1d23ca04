"""Lines of digits: where the digits stand, which they are, and what training adds to them."""

from pathlib import Path

import numpy as np

import reader
from lines import compose, sample_lines, split, training_lines
from mnist import load_dataset
from model import pad

DIGITS = load_dataset("digits", Path("data"), "test")


def test_lines_are_composed_by_their_gaps():
    digits = np.zeros((3, 32, 32), np.uint8)
    for digit, (left, right) in zip(digits, [(10, 20), (0, 4), (28, 32)]):  # the columns with ink
        digit[10:20, left:right] = 200
    lines = compose(digits, np.array([2, 0, 1]), np.array([99, 3, 99]), margin=14)
    ink = [np.flatnonzero(line.any(0)).tolist() for line in lines]
    assert ink == [[*range(14, 24), *range(27, 31)], [], [*range(14, 18)]]
    assert lines.shape == (3, 32, 31 + 14)


def ink(image):
    """The part of an image that has ink."""
    return image[image.any(1)][:, image.any(0)].tobytes()


def test_sampled_lines_show_the_digits_of_their_numbers():
    known = {(ink(image), digit) for image, digit in zip(DIGITS[0].numpy(), DIGITS[1].tolist())}
    found = [
        (ink(line), *number)
        for lines, numbers in sample_lines(DIGITS, 60, np.random.default_rng(0), longest=1)
        for line, number in zip(lines.numpy(), numbers)
    ]
    assert len(found) == 60 and set(found) <= known


def test_training_lines_depend_on_the_generator_alone_and_a_third_has_noise():
    counts = np.array([1, 2, 0] * 60)
    images = pad(DIGITS[0])[: counts.sum()]
    once, again = (training_lines(images, counts, reader.RECIPE, np.random.default_rng(3)) for _ in range(2))
    assert once.dtype == np.uint8 and once.shape[:2] == (180, 32) and np.array_equal(once, again)
    assert 0.15 < once[counts == 0].any((1, 2)).mean() < 0.45  # without a digit they have nothing but noise, if any


def test_a_list_of_digits_is_split_into_lines():
    assert split([1, 2, 3], np.array([2, 0, 1])) == [[1, 2], [], [3]]
