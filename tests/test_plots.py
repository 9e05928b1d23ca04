"""The figures: what is on them, that they are PNGs of a README's size, and that saving one is all or nothing."""

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import matplotlib
import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

import plots
from model import LeNet5, layer_table


def history(epochs):
    """A training as it usually goes."""
    return [
        {
            "epoch": e,
            "train_loss": 0.3 / e**1.2,
            "train_accuracy": 1 - 0.09 / e**1.2,
            "test_loss": 0.04 + 0.08 / e,
            "test_accuracy": 0.9912 - 0.02 * (1 / e - 1 / epochs),
            "seconds": 20.0,
        }
        for e in range(1, epochs + 1)
    ]


def digits(count, errors):
    """Images, labels, predicted classes and scores; the first `errors` are misread."""
    rng = np.random.default_rng(0)
    images = np.zeros((count, 28, 28), np.uint8)
    images[:, 8:20, 10:18] = rng.integers(0, 256, (count, 12, 8))
    labels = np.arange(count) % 10
    predicted = (labels + (np.arange(count) < errors)) % 10
    return images, labels, predicted, rng.uniform(0.1, 1, count)


def counts():
    """A confusion matrix of 10,000 digits: 7 misread as 9, and one 2 as 0."""
    matrix = np.diag([1000] * 10)
    matrix[4, 4], matrix[4, 9] = 993, 7
    matrix[2, 2], matrix[2, 0] = 999, 1
    return matrix


FIGURES = {
    "training_curve": (history(20), "Training"),
    "confusion_matrix": (counts(), "Confusion"),
    "predictions": (*digits(96, 4)[:3], "Predictions"),
    "misclassified": (*digits(89, 89), "Errors"),
    "architecture": (layer_table(LeNet5()),),
}


@pytest.fixture
def draw(monkeypatch, tmp_path):
    """Draws without saving: the figure, and its texts."""

    def draw(name, *arguments):
        drawn = []
        monkeypatch.setattr(plots, "save", lambda figure, path: drawn.append(figure))
        getattr(plots, name)(tmp_path / "figure.png", *arguments)
        drawn[0].draw_without_rendering()
        return drawn[0], [text.get_text() for text in drawn[0].findobj(Text) if text.get_text()]

    return draw


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_a_png_for_a_readme_and_the_same_for_the_same_data(name, tmp_path):
    path, again = tmp_path / "figure.png", tmp_path / "again.png"
    getattr(plots, name)(path, *FIGURES[name])
    getattr(plots, name)(again, *FIGURES[name])
    assert path.read_bytes() == again.read_bytes()
    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert path.stat().st_size < 300_000
    pixels = matplotlib.image.imread(path)
    assert pixels.shape[1] == 1660 and 600 <= pixels.shape[0] <= 1700
    for border in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]):  # nothing is cut off
        assert (border == 1).all()
    if pixels.shape[2] == 4:
        assert (pixels[..., 3] == 1).all()
    assert pixels.std() > 0.05  # something is on it


def test_a_figure_replaces_the_old_one_and_leaves_nothing_beside_it(tmp_path):
    path = tmp_path / "figure.png"
    path.write_bytes(b"old")
    plots.training_curve(path, history(2), "Training")
    assert path.read_bytes() != b"old"
    assert os.listdir(tmp_path) == ["figure.png"]


def refuse(*arguments):
    raise PermissionError(errno.EACCES, "Permission denied")


def write_half(figure, path, **options):
    path.write_bytes(b"\x89PNG")
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(("owner", "name", "failure"), [(os, "replace", refuse), (Figure, "savefig", write_half)])
def test_a_failed_save_leaves_the_old_figure(owner, name, failure, tmp_path, monkeypatch):
    path = tmp_path / "figure.png"
    path.write_bytes(b"old")
    monkeypatch.setattr(owner, name, failure)
    with pytest.raises(OSError):
        plots.training_curve(path, history(2), "Training")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["figure.png"]


def test_a_missing_folder_is_an_error_and_stays_missing(tmp_path):
    with pytest.raises(FileNotFoundError):
        plots.training_curve(tmp_path / "missing" / "figure.png", history(2), "Training")
    assert os.listdir(tmp_path) == []


def test_an_experiment_draws_its_own_figure_in_the_style(tmp_path):
    with plots.style():
        figure = plots.new_figure("Title", "subtitle", height=3)
        axes = figure.subplots()
        axes.plot([1, 2], [3, 4])
        plots.save(figure, tmp_path / "own.png")
    assert axes.lines[0].get_color() == plots.BLUE
    assert matplotlib.image.imread(tmp_path / "own.png").shape[:2] == (600, 1660)
    title = max(text.get_window_extent().y1 for text in figure.texts)
    subtitle = min(text.get_window_extent().y0 for text in figure.texts)
    assert axes.get_tightbbox().y1 < subtitle < title


def test_matplotlib_is_left_as_it_was_and_needs_no_display(tmp_path):
    before = dict(matplotlib.rcParams)
    plots.training_curve(tmp_path / "figure.png", history(2), "Training")
    assert dict(matplotlib.rcParams) == before
    check = "import sys, plots; assert 'matplotlib.pyplot' not in sys.modules"
    subprocess.run([sys.executable, "-c", check], check=True, cwd=Path(plots.__file__).parent)


@pytest.mark.parametrize("epochs", [1, 2, 20, 100])
def test_the_training_curve_names_the_final_test_values(epochs, draw):
    figure, texts = draw("training_curve", history(epochs), "Training of LeNet-5")
    assert "Training of LeNet-5" in texts
    assert "99.12 %" in texts
    assert f"{0.04 + 0.08 / epochs:.4f}" in texts
    assert any("running mean" in text for text in texts)
    for axes in figure.axes:
        assert [len(line.get_xdata()) for line in axes.lines] == [epochs, epochs]
        low, high = axes.get_xlim()
        ticks = [tick for tick in axes.get_xticks() if low <= tick <= high]
        assert ticks and all(tick == int(tick) for tick in ticks)


@pytest.mark.parametrize("first", [0.1, 0.9, 0.96])
def test_the_accuracies_that_matter_have_room(first, draw):
    rows = history(20)
    rows[0]["train_accuracy"] = first
    axes = draw("training_curve", rows, "Training")[0].axes[1]
    bottom, low, high = (
        axes.transAxes.inverted().transform(axes.transData.transform((1, y)))[1] for y in (first * 100, 97, 100)
    )
    assert bottom > -1e-9  # nothing is cut off
    assert high - low > 1 / 3  # 97 to 100 % has a third of the height at least


def test_a_perfect_and_a_hopeless_accuracy_are_drawn(draw):
    rows = history(3)
    rows[0].update(train_accuracy=0.0, test_accuracy=0.0)
    rows[2].update(train_accuracy=1.0, test_accuracy=1.0, train_loss=1e-5)
    figure, texts = draw("training_curve", rows, "Training")
    assert "100.00 %" in texts
    axes = figure.axes[1]
    heights = axes.transAxes.inverted().transform(axes.transData.transform([(1, 0), (3, 100)]))[:, 1]
    assert heights == pytest.approx([0, 1])


def test_the_confusion_matrix_shows_counts_errors_and_recall(draw):
    _, texts = draw("confusion_matrix", counts(), "Confusion")
    assert {"1,000", "993", "7", "1", "8", "99.30", "99.90", "100.00", "true class", "predicted class"} <= set(texts)
    assert any("8 of 10,000" in text for text in texts)
    assert texts.count("·") == 88


def test_one_error_stands_out_beside_a_thousand_right_digits(draw):
    figure, _ = draw("confusion_matrix", counts(), "Confusion")
    cells = figure.axes[0].images[0].get_array()
    white, few, many, right = (np.array(cells[place]) for place in ((0, 1), (2, 0), (4, 9), (4, 4)))
    assert np.ptp(right) == 0 and (white == 1).all()  # without colour
    assert np.ptp(few) > 0.1 and np.ptp(many) > 0.3
    assert many.mean() < few.mean() < white.mean()


def test_a_class_without_digits_has_no_recall(draw):
    matrix = np.diag([36] * 9 + [0])
    _, texts = draw("confusion_matrix", matrix, "Confusion")
    assert texts.count("–") == 1
    assert not any("nan" in text for text in texts)


def test_the_wrong_predictions_are_marked_by_words_and_frame(draw):
    figure, texts = draw("predictions", *digits(96, 4)[:3], "Predictions")
    assert [text for text in texts if re.fullmatch(r"\d → \d", text)] == ["0 → 1", "1 → 2", "2 → 3", "3 → 4"]
    assert len([text for text in texts if re.fullmatch(r"\d", text)]) == 92
    frames = [
        patch
        for patch in figure.axes[0].patches
        if patch.get_edgecolor() == matplotlib.colors.to_rgba(plots.VERMILLION)
    ]
    assert len(frames) == 4
    assert len(figure.axes[0].images) == 96


@pytest.mark.parametrize("count", [1, 11, 12, 13])
def test_any_number_of_predictions_fits(count, draw):
    figure, _ = draw("predictions", *digits(count, 1)[:3], "Predictions")
    width, height = figure.get_size_inches() * figure.dpi
    extents = np.array([image.get_extent() for image in figure.axes[0].images])
    assert extents.min() > 0 and extents[:, :2].max() < width and extents[:, 2:].max() < height


def test_every_error_is_shown_with_its_score(draw):
    images, labels, predicted, scores = digits(200, 100)
    _, texts = draw("misclassified", images, labels, predicted, scores, "Errors")
    pairs = [text for text in texts if re.fullmatch(r"\d → \d", text)]
    assert pairs == [f"{t} → {p}" for t, p in zip(labels[:100], predicted[:100], strict=True)]  # in the order given
    assert [text for text in texts if re.fullmatch(r"\d+ %", text)] == [
        f"{100 * score:.0f} %" for score in scores[:100]
    ]


def test_no_error_is_said(draw):
    _, texts = draw("misclassified", *digits(0, 0), "Errors")
    assert "Not one digit was misread." in texts
    figure, texts = draw("misclassified", *digits(50, 0), "Errors")
    assert "Not one digit was misread." in texts and not figure.axes[0].images


def test_of_thousands_of_errors_the_first_are_shown_and_all_counted(draw):
    figure, texts = draw("misclassified", *digits(9000, 8912), "Errors")
    assert any("the first 240 of 8,912" in text for text in texts)
    assert len(figure.axes[0].images) == 240


@pytest.mark.parametrize("options", [{}, {"output": "rbf"}, {"subsampling": "average", "connection": "full"}])
def test_the_architecture_is_that_of_the_network(options, draw):
    model = LeNet5(**options)
    shapes = layer_table(model)
    figure, texts = draw("architecture", shapes)
    names = ["Input", "C1", "S2", "C3", "S4", "C5", "F6", "Output"]
    assert [text for text in texts if text in names] == names
    assert {"6 @ 28×28", "6 @ 14×14", "16 @ 10×10", "16 @ 5×5", "120 units", "84 units", "10 units"} <= set(texts)
    for _, parameters, connections in shapes.values():
        assert f"{parameters:,}" in texts and f"{connections:,}" in texts
    assert any(f"{sum(p.numel() for p in model.parameters()):,} trainable parameters" in text for text in texts)
    kinds = [text.replace("\n", " ") for text in texts if "\n" in text]
    assert kinds[:5] == ["5×5 convolution", "2×2 subsampling"] * 2 + ["5×5 convolution"]
    assert kinds[5:] == ["full connection", "RBF units, fixed" if options.get("output") else "full connection"]
    axes = figure.axes[0]
    extents = [text.get_window_extent() for text in axes.texts]
    assert not any(a.overlaps(b) for i, a in enumerate(extents) for b in extents[:i])
