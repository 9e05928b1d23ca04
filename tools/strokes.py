"""The samples of the page to draw on: strokes of a pen, as coordinates written by hand. Nobody's handwriting.

A stroke is a list of points (x, y), and the pen's line is rounded between them. A point given twice is a corner.
"""

Stroke = list[tuple[float, float]]

NUMBERS = "1998", "60850", "31415", "27182", "46"
ASPECT = 2.5  # width of the drawing of a number, in heights, as in web/pen.js

# Of each digit its strokes: y from 0, its top, to 1, its foot; x in the same unit.
DIGITS = {
    "0": [
        [(0.40, 0.02), (0.17, 0.05), (0.02, 0.32), (0.02, 0.70), (0.16, 0.98), (0.38, 0.98), (0.57, 0.82), (0.63, 0.50),
         (0.57, 0.18), (0.42, 0.02), (0.30, 0.03)],
    ],
    "1": [[(0.17, 0.00), (0.15, 0.50), (0.13, 1.00)]],
    "2": [
        [(0.02, 0.25), (0.06, 0.12), (0.17, 0.03), (0.31, 0.00), (0.45, 0.02), (0.56, 0.09), (0.61, 0.20), (0.59, 0.33),
         (0.52, 0.45), (0.39, 0.59), (0.25, 0.73), (0.11, 0.88), (0.00, 0.98), (0.00, 0.98), (0.11, 0.96), (0.27, 0.98),
         (0.45, 1.00), (0.67, 0.97)],
    ],
    "3": [
        [(0.03, 0.14), (0.18, 0.00), (0.44, 0.00), (0.57, 0.14), (0.52, 0.33), (0.38, 0.43), (0.20, 0.46), (0.20, 0.46),
         (0.46, 0.47), (0.62, 0.62), (0.60, 0.86), (0.40, 1.00), (0.16, 1.00), (0.00, 0.86)],
    ],
    "4": [
        [(0.30, 0.00), (0.20, 0.25), (0.00, 0.60), (0.00, 0.60), (0.30, 0.61), (0.66, 0.59)],
        [(0.48, 0.28), (0.46, 0.60), (0.43, 1.00)],
    ],
    "5": [
        [(0.14, 0.02), (0.11, 0.20), (0.08, 0.42), (0.08, 0.42), (0.25, 0.35), (0.47, 0.39), (0.59, 0.56), (0.58, 0.77),
         (0.44, 0.96), (0.20, 1.00), (0.00, 0.91)],
        [(0.14, 0.02), (0.35, 0.03), (0.58, 0.00)],
    ],
    "6": [
        [(0.46, 0.00), (0.24, 0.15), (0.06, 0.42), (0.00, 0.74), (0.10, 0.97), (0.32, 1.00), (0.52, 0.90), (0.57, 0.70),
         (0.45, 0.54), (0.26, 0.55), (0.10, 0.67), (0.05, 0.80)],
    ],
    "7": [
        [(0.00, 0.05), (0.30, 0.03), (0.60, 0.00), (0.60, 0.00), (0.45, 0.35), (0.32, 0.68), (0.25, 1.00)],
    ],
    "8": [
        [(0.52, 0.14), (0.36, 0.00), (0.14, 0.03), (0.08, 0.20), (0.20, 0.37), (0.40, 0.51), (0.54, 0.70), (0.50, 0.92),
         (0.28, 1.01), (0.06, 0.92), (0.02, 0.72), (0.18, 0.53), (0.42, 0.36), (0.54, 0.20), (0.48, 0.07)],
    ],
    "9": [
        [(0.54, 0.18), (0.42, 0.02), (0.20, 0.01), (0.04, 0.18), (0.06, 0.38), (0.22, 0.48), (0.40, 0.42), (0.54, 0.22),
         (0.56, 0.10), (0.56, 0.10), (0.54, 0.45), (0.50, 0.75), (0.46, 1.00)],
    ],
}  # fmt: skip

# A hand does not repeat itself: height, shift down and lean to the right of a number's first digits.
HABITS = (1.00, 0.00, 0.10), (0.93, 0.01, 0.08), (0.97, 0.05, 0.13), (1.02, -0.01, 0.07), (0.94, 0.03, 0.11)


def samples(names) -> list[dict]:
    """Digits or numbers by their names, as the page wants them."""
    return [{"name": name, "strokes": written(name)} for name in names]


def written(number: str) -> list[Stroke]:
    """The strokes of a number in the middle of its drawing, whose height is 1; those of a digit in a square."""
    alone = len(number) == 1
    aspect, height, gap = (1, 0.66, 0) if alone else (ASPECT, 0.56, 0.15)
    habits = [(1, 0, 0.05)] if alone else HABITS
    strokes, left = [], 0
    for digit, (size, down, lean) in zip(number, habits):
        size *= height
        for stroke in DIGITS[digit]:
            strokes.append(
                [(left + size * (x - lean * (y - 0.5)), size * (y - 0.5) + height * down) for x, y in stroke]
            )
        left += size * max(x for stroke in DIGITS[digit] for x, _ in stroke) + gap
    columns = [x for stroke in strokes for x, _ in stroke]
    right = (aspect - min(columns) - max(columns)) / 2
    return [[(round(right + x, 3), round(0.5 + y, 3)) for x, y in stroke] for stroke in strokes]
