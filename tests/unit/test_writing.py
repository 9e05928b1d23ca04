"""Evened training lines: ways, pens, sizes and gaps, each by itself, and all together."""

from itertools import groupby

import numpy as np
import pytest
import torch
from conftest import reference
from scipy import ndimage

from digits import lines, writing
from digits.augmentation import affine_maps, warp
from digits.mnist import load_dataset
from model import normalize, pad
from reading.sweep import best_path, sweep
from training import checkpoint
from utils import class_logits

IMAGES, LABELS = load_dataset("digits", None, "train")
DIGITS, LABELS = pad(IMAGES).numpy(), LABELS.numpy()
FOURS = np.repeat(np.arange(50), 4)  # the line of each digit, in lines of four


def random(epoch: int = 0) -> np.random.Generator:
    return np.random.default_rng([8, epoch])


@pytest.fixture(scope="module")
def known(mnist):
    """Digits that a trained network classifies correctly: of each class the images; and the network's answers."""
    model = checkpoint.network(reference("best"))
    images, labels = load_dataset("mnist", mnist, "test")
    digits, labels = pad(images[:2000]).numpy(), labels[:2000].numpy()

    def answers(digits):
        return class_logits(model, torch.from_numpy(digits)).argmax(1).numpy()

    right = answers(digits) == labels
    return {label: digits[right & (labels == label)] for label in range(10)}, answers


@pytest.mark.parametrize("label, share, way", writing.WAYS, ids=lambda value: getattr(value, "__name__", None))
def test_a_way_of_writing_changes_a_digit_and_leaves_it_what_it_is(known, label, share, way):
    """The network has hardly seen a 1 with an upstroke: not all remain 1s to it, but most do, and so do the 7s. It has
    seen no 9 like a P."""
    digits, answers = known
    changed = way(digits[label], random())
    assert (changed != digits[label]).any((1, 2)).mean() > 0.6 and changed.dtype == np.uint8
    least = {writing.with_upstroke: 0.75, writing.lowered: 0.85}.get(way, 0.9)
    assert way is writing.mirrored or (answers(changed) == label).mean() > least
    assert 0 < share <= 0.5


def test_a_4_like_an_h_has_no_stem_above_its_bar_and_stays_as_high():
    four = np.zeros((40, 32, 32), np.uint8)
    four[:, 6:26, 18:20] = four[:, 6:16, 8:10] = four[:, 15:17, 8:20] = 255  # two strokes down, and the bar at 15
    made = writing.lowered(four, random())
    stem, other = (made[:, :, columns].max(2) > 128 for columns in (slice(18, 20), slice(8, 10)))
    bar = (made[:, :, 8:20] > 128).all(2).argmax(1)
    assert (stem.argmax(1) >= bar - 6).all() and (stem.argmax(1) > other.argmax(1) + 3).all()
    assert set(other.argmax(1)) <= {6, 7, 8} and stem[:, 24].all() and bar.min() <= 15 and bar.max() >= 18


def test_a_9_like_a_p_has_its_stem_on_the_left_and_a_linked_0_reaches_to_the_right(known):
    digits, _ = known
    nines, noughts = digits[9], digits[0]
    low = slice(20, 32)

    def middle(images):
        ink = images[:, low].sum(1, dtype=int)
        return (ink * np.arange(32)).sum(1) / ink.sum(1).clip(1)

    assert np.median(middle(nines)) > 15 > 14 > np.median(middle(writing.mirrored(nines, random())))
    reach = writing.box(writing.linked(noughts, random()))[3] - writing.box(noughts)[3]
    assert reach.min() >= 0 and reach.max() >= 4


def test_only_some_of_some_classes_have_other_ways():
    changed = (writing.with_ways(DIGITS, LABELS, random()) != DIGITS).any((1, 2))
    shares = [changed[label == LABELS].mean() for label in range(10)]
    assert [label for label in range(10) if shares[label]] == [0, 1, 4, 7, 9]
    assert all(0.15 < shares[label] < 0.85 for label in (1, 4, 7)) and all(0.05 < shares[i] < 0.3 for i in (0, 9))


def pieces(images) -> list[int]:
    """In how many pieces the ink of each image is."""
    return [ndimage.label(image > 64, np.ones((3, 3)))[1] for image in images]


def test_pens_go_from_hairline_to_marker_and_strokes_stay_whole():
    digits, widths = DIGITS[:200], []
    for level in (writing.FINEST, 0.8, writing.BROADEST):
        ink = torch.from_numpy(digits).float().unsqueeze(1) / 255
        written = 255 * writing.pen(ink, torch.tensor(level), torch.tensor(0.45)).squeeze(1).numpy()
        widths.append(np.median(writing.pen_of(written)) / np.median(writing.pen_of(digits)))
        assert np.mean(np.array(pieces(written)) > pieces(digits)) < 0.15
    assert widths[0] < 0.7 < widths[1] < 1 < 1.2 < widths[2], widths


def test_pens_are_about_alike_in_a_line_and_broader_where_a_digit_will_be_small():
    seven = np.repeat(DIGITS[LABELS == 7][:1], len(FOURS), 0)
    full, small = (writing.with_pens(seven, FOURS, np.full(len(FOURS), size), random()) for size in (1.0, 0.65))
    widths = writing.pen_of(full).reshape(-1, 4)
    assert 0.1 < widths.std(1).mean() < 0.5 * widths.std() and widths.max() > 2 * widths.min()
    assert writing.pen_of(small).mean() > 1.2 * writing.pen_of(full).mean()


def sized(digits: np.ndarray, joined: np.ndarray):
    """Digits of 50 lines, of which some are joined: their size, and where their ink was and is."""
    (size, middle), slant = writing.sizes(joined, random()), random(1).uniform(-1, 1, len(FOURS))
    amounts = writing.with_sizes(digits, size, middle, slant, FOURS, random(2))
    made = warp(torch.from_numpy(digits), affine_maps(torch.from_numpy(amounts))).numpy()
    return size, writing.box(digits), writing.box(made)


def test_all_digits_have_one_height_and_many_widths_and_no_ink_is_lost():
    _, (*_, left, right), (top, bottom, new_left, new_right) = sized(DIGITS[:200], np.zeros(200, bool))
    assert set(top) == {6} and set(bottom) == {26} and new_left.min() >= 2 and new_right.max() <= 30
    ratio = (new_right - new_left) / (right - left)
    assert np.quantile(ratio, 0.05) < 0.9 and np.quantile(ratio, 0.95) > 1.3
    assert np.corrcoef(ratio[::4], ratio[1::4])[0, 1] > 0.2  # about alike in a line
    flat = np.zeros_like(DIGITS[:200])
    flat[:, 20:26, 6:26] = 255  # as flat as a dash, and low
    *_, left, right = sized(flat, np.zeros(200, bool))[2]
    assert left.min() >= 1 and right.max() <= 31 and np.abs(left + right - 32).max() <= 2  # in the middle, still


def test_digits_that_touch_may_be_smaller_and_stand_high_or_low_in_their_piece():
    size, _, (top, bottom, *_) = sized(DIGITS[:200], np.arange(200) % 4 > 0)
    assert 0.65 <= size.min() < 0.7 and 0.95 < size.max() <= 1 and np.abs(bottom - top - 20 * size).max() < 2
    small = size < 0.75
    assert top.min() == 6 and bottom.max() == 26 and np.ptp(top[small]) >= 4 and np.ptp(bottom[small]) >= 4
    size, _ = writing.sizes(np.array([False, False, True, False]), random())
    assert (size < 1).tolist() == [False, True, True, False]  # the second digit is touched by the third


def test_digits_touch_in_a_quarter_of_the_lines():
    joined = writing.joins(np.repeat(np.arange(500), 4), random()).reshape(-1, 4)
    assert not joined[:, 0].any() and 0.1 < joined[:, 1:].mean() < 0.2 and 0.2 < joined.any(1).mean() < 0.3


def test_gaps_are_about_equal_and_digits_that_touch_overlap_by_no_more_than_a_little():
    digits, no = DIGITS[:100], np.zeros(100, bool)
    assert set(writing.gaps(digits, no, random())) == {3, 4, 5, 6}
    touching, joined = writing.touching(digits), writing.gaps(digits, ~no, random())
    assert set(touching - joined) == {0, 1} and touching.min() == -4
    one, other = np.zeros((2, 32, 32), np.uint8)
    one[5:10, 10:17], one[20:25, 10:20] = 200, 200  # its upper part ends three columns before the lower one
    other[5:10, 10:20], other[20:25, 12:20] = 200, 200  # its lower part starts two columns behind the upper one
    assert writing.touching(np.stack([one, other, one]))[1:].tolist() == [-2, 0]


def ink(line: np.ndarray) -> np.ndarray:
    """The columns (32, w) of a line from its first ink to its last."""
    columns = np.flatnonzero(line.any(0))
    return line[:, columns[0] : columns[-1] + 1]


def test_the_first_lines_are_evened_and_the_others_remain_what_they_were(monkeypatch):
    monkeypatch.setattr(lines, "add_noise", lambda noisy, generator: noisy)
    digits, counts = torch.from_numpy(DIGITS[:160]), np.full(40, 4)
    plain, half = (lines.training_lines(digits, LABELS[:160], counts, 0.7, 0.5, random(), share) for share in (0, 0.5))
    same = [np.array_equal(ink(one), ink(other)) for one, other in zip(plain, half)]
    assert same == [False] * 20 + [True] * 20
    free = [[len(list(run)) for any_ink, run in groupby(ink(line).any(0)) if not any_ink] for line in half]
    assert max(sum(free[:20], [])) == 6 < max(sum(free[20:], []))  # the gaps
    assert np.array_equal(digits, DIGITS[:160])  # the training digits themselves stay


def test_evened_lines_show_the_digits_of_their_labels_and_repeat():
    """A network trained on others reads some of them, and more of those; by chance it reads none."""
    model, read = checkpoint.network(reference("numbers")), []
    chosen = np.random.default_rng(0).permutation(len(DIGITS))[:300]
    counts = np.array([3] * 100 + [0] * 7)
    arguments = torch.from_numpy(DIGITS[chosen]), LABELS[chosen], counts, 0.7, 0.5
    for share in 0, 1:
        made, again = (lines.training_lines(*arguments, random(), share) for _ in range(2))
        assert np.array_equal(made, again) and made.dtype == np.uint8 and made.shape[:2] == (107, 32)
        with torch.inference_mode():
            found = best_path(sweep(model, normalize(torch.from_numpy(made))))
        read.append(np.mean([one == own for one, own in zip(found, lines.split(LABELS[chosen].tolist(), counts))]))
    assert read[0] > read[1] > 0.4, read
