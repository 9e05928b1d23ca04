"""Photos of lines: what is no digit is taken away, and digits of any size come out alike; each cause is drawn here."""

import numpy as np
import pytest
from drawn import PAPER, seven, stroke

from digits.pieces import as_written, evened, find_lines, placed, upright

RING = np.linspace(0, 2 * np.pi, 40)


def line(height=120, width=440, sizes=(35, 35, 35, 35), thickness=7, gap=100):
    """Noughts of these radii on one base, as ink from 0 to 1."""
    page = np.zeros((height, width))
    for i, size in enumerate(sizes):
        points = zip(60 + gap * i + 0.7 * size * np.cos(RING), 95 - size + size * np.sin(RING))
        page += stroke(height, width, list(points), thickness)
    return page.clip(0, 1)


INK = line()


def photo(ink):
    return np.uint8(230 - 190 * ink.clip(0, 1))


def ruled(ink, slope=0.0):
    y, x = np.mgrid[: ink.shape[0], : ink.shape[1]]
    return np.maximum(ink, np.abs(y - 79 - slope * (x - 220)) < 1.5)


def marked(*points, thickness=6):
    return np.maximum(INK, stroke(*INK.shape, points, thickness))


def boxed(ink):
    edge = np.ones_like(ink)
    edge[8:-4, 12:-12] = 0
    edge[:5], edge[-1:], edge[:, :9], edge[:, -9:] = 0, 0, 0, 0
    return np.maximum(ink, edge)


PAPERS = {
    "plain": 230 - 190 * INK,
    "light on dark": 30 + 190 * INK,
    "ruled": 230 - 190 * ruled(INK),
    "ruled, sloping": 230 - 190 * ruled(INK, 0.04),
    "comma": 230 - 190 * marked((112, 92), (108, 106)),
    "point": 230 - 190 * marked((110, 93), (111, 94), thickness=8),
    "dash": 230 - 190 * marked((405, 62), (436, 55)),
    "speck": 230 - 190 * marked((210, 10), (214, 12), thickness=4),
    "box": 230 - 190 * boxed(INK),
    "shadow": (230 - 150 * INK) * np.where(np.arange(440) < 250, 1, 0.6),
    "printed ground": 200 - 130 * INK - 30 * (np.add.outer(np.arange(120), np.arange(440)) % 9 < 2),
    "faint": 200 - 60 * INK - 20 * (np.add.outer(np.arange(120), np.arange(440)) % 9 < 2),
    "without a margin": (230 - 190 * INK)[25:96, 35:386],
    "small in a large image": np.pad(230 - 190 * INK, ((300, 600), (500, 80)), constant_values=230),
}


@pytest.mark.parametrize("paper", PAPERS)
def test_the_digits_are_left_and_nothing_else(paper):
    ((pieces, _),) = find_lines(np.uint8(PAPERS[paper].clip(0, 255)))
    height, width = np.array([piece.shape for piece in pieces]).T
    assert len(pieces) == 4 and (width / height > 0.6).all() and (width / height < 0.85).all()


def test_pieces_come_to_one_height_whatever_their_size():
    ((pieces, _),) = find_lines(photo(line(sizes=(35, 18, 35, 24))))
    swept = evened(pieces)
    columns = np.flatnonzero((swept > 90).any(0))
    digits = np.split(columns, np.flatnonzero(np.diff(columns) > 1) + 1)
    heights = [np.ptp(np.flatnonzero((swept[:, own] > 90).any(1))) + 1 for own in digits]
    assert swept.shape[0] == 32 and len(digits) == 4 and max(heights) - min(heights) <= 1
    sides = [max(np.ptp(np.flatnonzero((image > 90).any(axis))) for axis in (0, 1)) for image in placed(pieces)]
    assert np.abs(np.array(sides) - 19).max() <= 2


def test_a_line_as_written_keeps_sizes_places_and_gaps():
    (found,) = find_lines(photo(line(sizes=(35, 18, 35, 24))))
    written = as_written(*found) > 90
    columns = np.flatnonzero(written.any(0))
    digits = np.split(columns, np.flatnonzero(np.diff(columns) > 1) + 1)
    rows = [np.flatnonzero(written[:, own].any(1)) for own in digits]
    heights, middles = [np.ptp(own) + 1 for own in rows], [own.mean() for own in digits]
    assert written.shape[0] == 32 and np.abs(np.divide(heights, max(heights)) - [1, 0.54, 1, 0.7]).max() < 0.1
    assert np.ptp([own.max() for own in rows]) <= 1 and np.ptp(np.diff(middles)) <= 2  # one base, equal steps
    assert as_written(found.pieces[:1], found.middles[:1]).shape == evened(found.pieces[:1]).shape


def test_a_small_nought_is_no_comma_wherever_it_stands():
    page = line(sizes=(35, 35, 35))
    for right, down in (360, 96), (360, 90), (360, 60):
        small = stroke(*page.shape, list(zip(right + 6 * np.cos(RING), down - 8 + 12 * np.sin(RING))), 4)
        assert [len(found.pieces) for found in find_lines(photo(page + small))] == [4], (right, down)


def test_parts_above_each_other_are_one_piece_and_thin_strokes_are_widened():
    bar = [(40, 15), (100, 15)]
    page = stroke(140, 140, bar, 6) + stroke(140, 140, [(45, 30), (95, 60), (50, 120)], 6)
    assert [len(line.pieces) for line in find_lines(photo(page))] == [1]
    thin, thick = (placed(find_lines(photo(line(thickness=thickness)))[0].pieces) for thickness in (2, 7))
    assert thin[0].sum() > 0.5 * thick[0].sum()


def test_a_frame_goes_and_a_hole_or_a_break_in_a_stroke_stays():
    cell = np.pad(PAPER, 12, constant_values=235)
    cell[4:8, 4:-4] = cell[-8:-4, 4:-4] = cell[4:-4, 4:8] = cell[4:-4, -8:-4] = 20  # as in a sudoku
    small = 255 - placed([seven(20, 16)])[0]
    small[np.unravel_index(small.argmin(), small.shape)] = 255  # one pixel of its stroke
    broken = PAPER.copy()
    broken[95:99] = 235
    for image in cell, small, broken:
        (([piece], _),) = find_lines(image)
        assert np.abs(placed([piece])[0].astype(int) - placed(find_lines(PAPER)[0].pieces)[0]).mean() < 25


def test_lines_clearly_apart_are_told_apart_and_others_refused():
    page, slope = photo(INK), np.arange(440) // 25
    apart = np.vstack([page[:100], photo(line(sizes=(35, 20, 35))), page])
    assert [len(line.pieces) for line in find_lines(apart)] == [4, 3, 4]
    leaning = np.stack([np.roll(column, -move) for column, move in zip(apart.T, slope)], 1)
    assert [len(line.pieces) for line in find_lines(leaning)] == [4, 3, 4]
    with pytest.raises(ValueError, match="not clearly apart; cut"):
        find_lines(np.vstack([page[15:104], page[15:104]]))


def test_slanting_digits_are_made_upright():
    ink = line()
    slanting = np.stack([np.roll(row, int(0.6 * (60 - y))) for y, row in enumerate(ink)])
    ((pieces, _),) = find_lines(photo(slanting))
    assert max(piece.shape[1] for piece in pieces) < 65 and len(upright(pieces[:2])) == 2


def test_what_shows_nothing_is_refused():
    for level in 0, 128, 255:
        with pytest.raises(ValueError, match="shows no digit"):
            find_lines(np.full((90, 300), level, np.uint8))
