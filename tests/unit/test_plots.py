"""The figures: what is on them, and that they are whole PNGs of a README's size, whatever the user's own settings."""

import os
import subprocess
import sys
from unittest.mock import patch

import matplotlib.image
import numpy as np
import pytest
import torch
from conftest import ROOT
from matplotlib.text import Text

from figures import diagrams, plots
from model import LeNet5, layer_table, normalize, pad
from reading.sweep import NONE, Reading

COUNTS = np.diag([1000] * 10)  # 10,000 digits: 7 are taken for 9, and one 2 as 0
COUNTS[4, 4], COUNTS[4, 9], COUNTS[2, 2], COUNTS[2, 0] = 993, 7, 999, 1


def history(epochs, accuracy=0.9912):
    """A training run as it usually goes, up to an accuracy on the test set."""
    keys = ("epoch", "train_loss", "train_accuracy", "test_loss", "test_accuracy")
    rows = ((e, 0.3 / e, 1 - 0.09 / e, 0.04 + 0.08 / e, accuracy - 0.02 / e) for e in range(1, epochs))
    return [dict(zip(keys, row)) for row in (*rows, (epochs, 0.01, 0.999, 0.0456, accuracy))]


def digits(count, errors):
    """Images, labels, predicted classes and probabilities; the first `errors` are misclassified."""
    rng, labels = np.random.default_rng(0), np.arange(count) % 10
    images = np.pad(rng.integers(0, 256, (count, 12, 8), np.uint8), ((0, 0), (8, 8), (10, 10)))
    return images, labels, (labels + (np.arange(count) < errors)) % 10, rng.uniform(0.1, 1, count)


def states(name):
    """The arguments of layer_states, for an untrained network."""
    torch.manual_seed(0)
    model, image = LeNet5(), digits(1, 0)[0][0]
    with torch.inference_mode():
        return name, image.repeat(9, 0), image, model, model.states(normalize(pad(torch.from_numpy(image)[None])))


def swept():
    """The arguments of diagrams.sweep: a line with 40 places, at which 1, none and 7 are likeliest."""
    logits = 5 * torch.eye(11)[[1] * 10 + [NONE] * 20 + [7] * 10]
    reading = Reading("17", 0.875, [0.9, 0.9], "11", logits)
    return "line", np.full((50, 120), 255), np.zeros((32, 110), np.uint8), reading


FIGURES = [
    (plots.training_curve, history(20), "Training", plots.look("default", True)),
    (plots.confusion_matrix, COUNTS, "Confusion"),
    (plots.predictions, *digits(96, 4)[:3], "Predictions"),
    (plots.misclassified, *digits(89, 89), "Errors"),
    (diagrams.architecture, layer_table(LeNet5())),
    (diagrams.layer_states, *states("W" * 99)),
    (diagrams.sweep, *swept()),
]


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure[0].__name__)
def test_a_figure_is_a_whole_png_for_a_readme_and_the_same_whatever_the_users_settings(figure, tmp_path):
    (function, *data), path = figure, tmp_path / "figure.png"
    function(path, *data)
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG") and len(content) < 300_000
    pixels = matplotlib.image.imread(path)
    assert pixels.shape[1] == 1660 and 600 <= pixels.shape[0] <= 1800
    assert all((edge == 1).all() for edge in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]))  # nothing is cut off
    with matplotlib.rc_context({"text.usetex": True, "savefig.bbox": "tight", "font.size": 30}):
        function(path, *data)
    assert path.read_bytes() == content


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure[0].__name__)
def test_every_text_can_be_read_at_half_of_the_width(figure):
    function, *data = figure
    with patch.object(plots, "save") as save:
        function(None, *data)
    assert min(text.get_size() for text in save.call_args.args[0].findobj(Text) if text.get_text()) >= 11


def test_a_matplotlibrc_and_a_backend_that_is_missing_change_nothing(tmp_path):
    plots.confusion_matrix(tmp_path / "here.png", np.eye(10, dtype=int), "Confusion")
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\n")
    code = "import numpy; from figures import plots; plots.confusion_matrix({}, numpy.eye(10, dtype=int), 'Confusion')"
    command = [sys.executable, "-c", "from pathlib import Path; " + code.format("Path('there.png')")]
    subprocess.run(command, cwd=tmp_path, check=True, env={**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "gone"})
    assert (tmp_path / "there.png").read_bytes() == (tmp_path / "here.png").read_bytes()


def draw(function, *data):
    """Draws without saving: the figure's axes, and its texts."""
    with patch.object(plots, "save") as save:
        function(None, *data)
    figure = save.call_args.args[0]
    figure.draw_without_rendering()
    return figure.axes, [text.get_text() for text in figure.findobj(Text) if text.get_text()]


@pytest.mark.parametrize(("epochs", "accuracy"), [(1, 0.9912), (20, 1.0), (100, 0.97)])
def test_the_training_curve(epochs, accuracy):
    look = plots.look("best", False)
    both, texts = draw(plots.training_curve, history(epochs, accuracy), "Training", look)
    assert {"Training", "epoch", f"{100 * accuracy:.2f} %", "0.0456"} <= set(texts)
    assert [len(line.get_xdata()) for axes in both for line in axes.lines] == [epochs] * 4
    assert all(tick == int(tick) for axes in both for tick in axes.get_xticks())
    lines = [(line.get_color(), line.get_linestyle()) for axes in both for line in axes.lines]
    assert lines == [(plots.GREY, "--"), (plots.GREEN, "--")] * 2  # the recipe's hue, dashed without augmentation


def test_the_confusion_matrix_shows_counts_errors_and_recall():
    _, texts = draw(plots.confusion_matrix, COUNTS, "Confusion")
    assert {"1,000", "993", "7", "1", "8", "99.30", "99.90", "100.00", "true class", "predicted class"} <= set(texts)
    assert any("8 of 10,000" in text for text in texts) and texts.count("·") == 88
    texts = draw(plots.confusion_matrix, np.diag([36] * 9 + [0]), "Confusion")[1]
    assert texts.count("–") == 1 and not any("nan" in text for text in texts)  # a class without digits has no recall


@pytest.mark.parametrize(("count", "shown"), [(0, 0), (100, 100), (300, 240)])
def test_misclassified_digits_are_marked_among_the_predictions_and_shown_with_their_probabilities(count, shown):
    (axes,), texts = draw(plots.predictions, *digits(13, 4)[:3], "Predictions")
    assert [text for text in texts if "→" in text[:3]] == ["0 → 1", "1 → 2", "2 → 3", "3 → 4"]
    assert [text for text in texts if text.isdigit()] == list("456789012")
    frames = [matplotlib.colors.same_color(frame.get_edgecolor(), plots.RED) for frame in axes.patches]
    assert frames.count(True) == 4 and len(axes.images) == 13
    images, labels, predicted, probabilities = digits(301, count)
    (axes,), texts = draw(plots.misclassified, images, labels, predicted, probabilities, "Errors")
    pairs = [f"{t} → {p}" for t, p in zip(labels[:shown], predicted[:shown])]
    assert [text for text in texts if "→" in text[:3]] == pairs  # in the order given
    assert [text for text in texts if text.endswith("%")] == [f"{100 * p:.0f} %" for p in probabilities[:shown]]
    assert len(axes.images) == shown and ("Not one digit was misclassified." in texts) == (count == 0)
    assert any("the first 240 of 300" in text for text in texts) == (count > shown)


def test_the_architecture_is_that_of_the_network():
    table = layer_table(LeNet5(output="rbf"))
    (axes,), texts = draw(diagrams.architecture, table)
    names = ["Input", "C1", "S2", "C3", "S4", "C5", "F6", "Output"]
    assert [text for text in texts if text in names] == names
    assert {"6 @ 28×28", "6 @ 14×14", "16 @ 10×10", "16 @ 5×5", "120 units", "84 units", "10 units"} <= set(texts)
    assert {f"{number:,}" for row in table.values() for number in row[1:]} <= set(texts)
    assert any(text.startswith("60,000 trainable") for text in texts)
    places = [text.get_window_extent() for text in axes.texts]
    assert not any(a.overlaps(b) for i, a in enumerate(places) for b in places[:i])


def test_the_states_of_all_layers_are_drawn_on_the_scale_of_the_squashing_function():
    data = states("a$b$.png")
    (axes,), texts = draw(diagrams.layer_states, *data)
    c1, s2, c3, s4, c5, f6, logits = (data[-1][name].numpy()[0] for name in data[-2].layers())
    probabilities = 100 * torch.from_numpy(logits).softmax(0).numpy()
    second, digit = logits.argsort()[-2:]
    likely, next_to_it = (f"{probabilities[i]:.1f} %" for i in (digit, second))
    subtitle = f"by the network for digits alone: probability {likely}; runner-up {second}, {next_to_it}"
    assert {rf"a\$b\$.png: read as {digit}", subtitle} <= set(texts)
    assert {f"{p:.1f}" for p in probabilities} | {f"{logit:.1f}".replace("-", "−") for logit in logits} <= set(texts)
    drawn = axes.images[3:]  # after the image, the input and the legend: 44 maps, then C5 and F6
    expected = [state.ravel() for state in (*c1, *s2, *c3, *s4, c5, f6)]
    assert all((one.get_array().ravel() == state).all() for one, state in zip(drawn, expected, strict=True))
    assert {one.get_clim() for one in drawn} == {(-1.7159, 1.7159)}


def test_a_layer_whose_states_go_beyond_that_has_a_scale_of_its_own():
    *data, found = states("digit.png")
    (axes,), texts = draw(diagrams.layer_states, *data, {**found, "c5": 10 * found["c5"] / found["c5"].abs().max()})
    assert {one.get_clim()[1] for one in axes.images[3:]} == {1.7159, 10}
    assert sum(text.endswith("colours to ±10.0") for text in texts) == 1


def test_a_swept_line_is_drawn_with_its_probabilities_and_best_path():
    (axes,), texts = draw(diagrams.sweep, *swept())
    assert {"line: read as 17", "probability 87.5 %; runner-up 11", *"0123456789", "none"} <= set(texts)
    line, probabilities = axes.images[1:]
    assert (line.get_array() == 255).all() and probabilities.get_clim() == (0, 1)  # ink is dark
    assert np.allclose(probabilities.get_array(), swept()[-1].logits.softmax(1).T)
    left, right, *_ = probabilities.get_extent()
    path = {
        t.get_text(): t.get_position()[0] for t in axes.texts if t.get_weight() == "bold" and t.get_text().isdigit()
    }
    assert path == pytest.approx({"1": left + (right - left) / 8, "7": left + (right - left) * 7 / 8})
