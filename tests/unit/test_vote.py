"""Cutting pieces and classifying them, and the vote of all readers: digits that touch, doubt, and several digits."""

import numpy as np
import pytest
from conftest import reference
from drawn import stroke

from digits.pieces import find_lines
from reading import segmentation
from reading.vote import SURE, vote
from training import checkpoint

RING = np.linspace(0, 2 * np.pi, 40)


def noughts(count, gap, height=140):
    """A photo of noughts, 60 pixels wide and 84 high: those with a gap of 60 touch."""
    page = sum(
        stroke(height, 150 + gap * count, list(zip(60 + gap * i + 30 * np.cos(RING), 70 + 42 * np.sin(RING))), 9)
        for i in range(count)
    )
    return np.uint8(230 - 190 * page.clip(0, 1))


@pytest.fixture(scope="module")
def networks():
    return [checkpoint.network(reference(name)) for name in ("numbers", "best")]


@pytest.mark.parametrize("count", [2, 3])
def test_digits_that_touch_are_cut_at_the_notch_between_them(count, networks):
    (line,) = find_lines(noughts(count, 58))
    (piece,) = line.pieces
    parts = segmentation.cut_piece(piece, count)
    assert np.ptp([part.shape for part in parts], 0).max() <= 8
    ways = segmentation.segment([piece], networks[1])
    number = (0,) * count
    assert segmentation.likeliest(ways)[0] == number and segmentation.probability(ways, number) > 0.4
    assert vote(line, *networks).number == "0" * count


def test_probabilities_of_all_numbers_sum_to_one(networks):
    (([piece], _),) = find_lines(noughts(2, 58))
    ways = segmentation.segment([piece], networks[1])
    one_or_two = [(i,) for i in range(10)] + [(i, j) for i in range(10) for j in range(10)]
    counts = sum(likely for n, (likely, _) in ways[0].items() if n < 3)
    assert sum(segmentation.probability(ways, number) for number in one_or_two) == pytest.approx(counts, abs=1e-4)
    assert sum(segmentation.count_probabilities(1.4, [1, 2, 3]).values()) == pytest.approx(1)


def test_only_what_all_read_is_sure(networks):
    (line,) = find_lines(noughts(3, 100))
    found = vote(line, *networks)
    assert found.number == "000" and found.probability >= SURE and len(found.digits) == 3 and found.runner_up
    wrong = [lambda piece: np.rot90(piece), lambda piece: piece[:, : piece.shape[1] // 2]]
    assert all(
        vote(line._replace(pieces=list(map(change, line.pieces))), *networks).probability < found.probability
        for change in wrong
    )
    assert vote(line, networks[0], None).number == "000"
    heap = line._replace(middles=0 * line.middles)  # as written, all in one place
    for some in networks, [networks[0], None]:
        assert vote(heap, *some).probability < vote(line, *some).probability
