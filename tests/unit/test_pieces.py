"""Photos of lines: what is no digit is taken away, and digits of any size come out alike; each cause is drawn here."""

import numpy as np
import pytest
from drawn import PAPER, stroke

from digits.pieces import clean, cut, evened, placed

RING = np.linspace(0, 2 * np.pi, 40)


def line(height=120, width=440, sizes=(35, 35, 35, 35), thickness=7):
    """Noughts of these radii on one base, as ink from 0 to 1."""
    page = np.zeros((height, width))
    for i, size in enumerate(sizes):
        points = zip(60 + 100 * i + 0.7 * size * np.cos(RING), 95 - size + size * np.sin(RING))
        page += stroke(height, width, list(points), thickness)
    return page.clip(0, 1)


INK = line()


def with_rule(ink):
    rule = np.zeros_like(ink)
    rule[78:81] = 1
    return np.maximum(ink, rule)


def with_comma(ink):
    return np.maximum(ink, stroke(*ink.shape, [(112, 92), (108, 106)], 6))


def with_dash(ink):
    return np.maximum(ink, stroke(*ink.shape, [(405, 62), (436, 60)], 6))


def with_speck(ink):
    return np.maximum(ink, stroke(*ink.shape, [(210, 10), (214, 12)], 4))


PAPERS = {
    "plain": 230 - 190 * INK,
    "light on dark": 30 + 190 * INK,
    "ruled": 230 - 190 * with_rule(INK),
    "comma": 230 - 190 * with_comma(INK),
    "dash": 230 - 190 * with_dash(INK),
    "speck": 230 - 190 * with_speck(INK),
    "shadow": (230 - 150 * INK) * np.where(np.arange(440) < 250, 1, 0.6),
    "printed ground": 200 - 130 * INK - 30 * (np.add.outer(np.arange(120), np.arange(440)) % 9 < 2),
}


@pytest.mark.parametrize("paper", PAPERS)
def test_the_digits_are_left_and_nothing_else(paper):
    pieces = cut(clean(np.uint8(PAPERS[paper].clip(0, 255))))
    shapes = np.array([piece.shape for piece in pieces])
    assert len(pieces) == 4 and np.abs(shapes - (77, 56)).max() <= 6


def test_pieces_come_to_one_height_whatever_their_size():
    pieces = cut(clean(np.uint8(230 - 190 * line(sizes=(35, 18, 35, 24)))))
    swept = evened(pieces)
    columns = np.flatnonzero((swept > 90).any(0))
    digits = np.split(columns, np.flatnonzero(np.diff(columns) > 1) + 1)
    heights = [np.ptp(np.flatnonzero((swept[:, own] > 90).any(1))) + 1 for own in digits]
    assert swept.shape[0] == 32 and len(digits) == 4 and max(heights) - min(heights) <= 1
    seen = placed(pieces)
    assert seen.shape == (4, 28, 28) and np.abs(seen[0].astype(int) - seen[1]).mean() < 20


def test_parts_above_each_other_are_one_piece_and_thin_strokes_are_widened():
    bar = [(40, 15), (100, 15)]
    page = stroke(140, 140, bar, 6) + stroke(140, 140, [(45, 30), (95, 60), (50, 120)], 6)
    assert len(cut(clean(np.uint8(230 - 190 * page.clip(0, 1))))) == 1
    thin = placed(cut(clean(np.uint8(230 - 190 * line(thickness=2)))))
    thick = placed(cut(clean(np.uint8(230 - 190 * line(thickness=7)))))
    assert thin[0].sum() > 0.5 * thick[0].sum()


def test_several_lines_are_refused_and_a_broken_stroke_is_not():
    page = np.uint8(230 - 190 * INK)
    with pytest.raises(ValueError, match="several lines"):
        clean(np.vstack([page, page]))
    broken = PAPER.copy()
    broken[95:99] = 235
    assert len(cut(clean(broken))) == 1


def test_what_shows_nothing_is_refused():
    for level in 0, 128, 255:
        with pytest.raises(ValueError, match="shows no digit"):
            clean(np.full((90, 300), level, np.uint8))
