"""The page to draw on, in a real browser: it computes what Python computes, and does what it offers."""

import base64
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, reference
from PIL import Image
from selenium.webdriver.common.action_chains import ActionBuilder
from selenium.webdriver.common.actions.pointer_input import PointerInput
from selenium.webdriver.common.keys import Keys
from test_pictures import shaded, stroke

import checkpoint
import mnist as datasets
import reader
from lines import sample_lines
from model import pad, scale
from pictures import prepare, prepare_line
from tools import browser, page
from utils import UserError, class_scores

DIGITS = [image.numpy() for image in datasets.load_dataset("digits", Path("data"), "test")[0][:40]]

SLIDERS = ("rotate", "scale", "right", "down", "noise")


def trained(**network):
    return replace(reference(), recipe=replace(reference().recipe, network=network))


@pytest.fixture(scope="module")
def session():
    """A browser for all tests of this file; they are skipped where there is none."""
    try:
        with browser.chromium() as driver:
            driver.set_script_timeout(60)
            yield driver
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture(params=["squash"])
def driver(session, tmp_path, request):
    """The page, freshly loaded on a desktop; after the test it must have said nothing and fetched nothing."""
    (tmp_path / "demo.html").write_text(page.make_page(trained(activation=request.param)), encoding="utf-8")
    browser.resize(session, 1280, 900)
    session.get((tmp_path / "demo.html").as_uri())
    browser.wait_for_frames(session)
    yield session
    assert session.get_log("browser") == []
    assert session.execute_script("return performance.getEntriesByType('resource').length") == 0


def ask(driver, script, *arguments):
    """The value of a script, which reads its arguments as a[0], ..., an array of grey levels by bytes(a[0])."""
    arguments = [base64.b64encode(a.tobytes()).decode() if isinstance(a, np.ndarray) else a for a in arguments]
    return driver.execute_script(f"const a = arguments; {script}", *arguments)


def levels(driver, expression, *arguments):
    """Grey levels of the page, a square: int64 (H, H)."""
    text = f"return btoa(Array.from({expression}, (level) => String.fromCharCode(level)).join(''))"
    values = np.frombuffer(base64.b64decode(ask(driver, text, *arguments)), np.uint8).astype(int)
    return values.reshape(round(len(values) ** 0.5), -1)


def reads_what_is_drawn(driver, distorted=False):
    """Whether the page's network is given the drawing, as Python prepares it, and answers as Python's does."""
    image = levels(driver, "LeNet5.input()").astype(np.uint8)
    best = class_scores(checkpoint.network(reference()), pad(torch.from_numpy(image)[None])).argmax().item()
    script = "return [...document.querySelectorAll('#digit, #scores .best .name')].map((e) => e.textContent)"
    same = distorted or (image == prepare(levels(driver, "LeNet5.drawing().grey"))).all()
    return same and ask(driver, script) == [str(best)] * 2


def keys(driver, element, *pressed):
    driver.find_element("css selector", element).send_keys(*pressed)
    browser.wait_for_frames(driver)


def test_one_file_without_network(run_main, tmp_path):
    assert "demo.html" in run_main(page.main).succeeded().out
    assert {path.name for path in (tmp_path / "Record").iterdir()} == {"demo.html", checkpoint.FILE}
    text = (tmp_path / "Record" / "demo.html").read_text(encoding="utf-8")
    assert len(text) < 1_000_000 and "default-src 'none'" in text and "__TRAINED__" not in text
    assert not re.search(r"https?:|//\w+\.\w|@import|\burl\(|<link(?! rel=\"icon\" href=\"data:,\")", text)
    run_main(page.main, "--checkpoint", "nowhere").refused("no checkpoint")


@pytest.mark.parametrize("network", [{"output": "rbf"}, {"activation": "tanh"}])
def test_other_networks_are_refused(network):
    with pytest.raises(UserError, match="not LeNet5.(output|activation)="):
        page.make_page(trained(**network))


@pytest.mark.parametrize("driver", ["squash", "relu"], indirect=True)
def test_every_layer_is_that_of_pytorch(driver, request):
    images = np.stack([prepare(image) for image in DIGITS])
    script = (
        "return Array.from({length: a[1]}, (_, i) => LeNet5.forward(bytes(a[0]).subarray(784 * i, 784 * (i + 1))))"
        ".map(({maps, scores}) => Object.entries({...maps, output: scores}).map(([name, map]) => [name, [...map]]))"
    )
    found = [dict(layers) for layers in ask(driver, script, images, len(images))]
    network = checkpoint.network(trained(activation=request.node.callspec.params["driver"]))
    states = network.states(scale(pad(torch.from_numpy(images))))
    assert states.keys() == found[0].keys()
    for name, state in states.items():
        values = np.array([layers[name] for layers in found])
        np.testing.assert_allclose(values, state.detach().flatten(1), rtol=1e-4, atol=1e-4, err_msg=name)


def test_preparation_is_that_of_python(driver):
    inks = [
        stroke(280, 280, [(140, 30), (140, 250)], 22),
        stroke(64, 448, [(40, 40), (400, 20)], 12),
        stroke(448, 448, [(3, 3), (440, 30), (100, 440)], 36),  # over the edge
        stroke(200, 200, [(50, 50), (120, 150)], 15) + stroke(200, 200, [(20, 20), (21, 20)], 5),  # a speck
    ]
    greys = [*(np.uint8(255 * ink) for ink in inks), *DIGITS[:4], 255 - DIGITS[5], shaded(0.3, 0), shaded(0, 25)]
    greys += [np.zeros((28, 28), np.uint8), np.full((1, 9), 9, np.uint8)]
    for grey in greys:
        try:
            expected = prepare(grey).flatten().tolist()
        except ValueError:
            expected = None
        script = "const image = LeNet5.prepare(bytes(a[0]), a[1], a[2]); return image && [...image]"
        assert ask(driver, script, grey, *reversed(grey.shape)) == expected, grey.shape
    assert expected is None  # the last one shows no digit


def test_mouse_finger_and_samples(driver, tmp_path):
    page.take_screenshot(driver, tmp_path / "demo.html", tmp_path / "demo.png")  # it draws a two
    assert (tmp_path / "demo.png").read_bytes().startswith(b"\x89PNG")
    assert reads_what_is_drawn(driver)
    for digit in (0, 4, 9):
        keys(driver, f"#samples button:nth-child({digit + 1})", " ")
        assert reads_what_is_drawn(driver)
    browser.resize(driver, 390, 844)
    before, canvas = levels(driver, "LeNet5.drawing().grey"), driver.find_element("id", "drawing")
    actions = ActionBuilder(driver, mouse=PointerInput("touch", "finger"), duration=20)
    actions.pointer_action.move_to(canvas, -60, 100).pointer_down()
    actions.pointer_action.move_to(canvas, 60, 90).move_to(canvas, 20, -100).pointer_up()
    actions.perform()
    browser.wait_for_frames(driver)
    assert (levels(driver, "LeNet5.drawing().grey") != before).any()
    assert reads_what_is_drawn(driver)


def test_the_keyboard_reaches_everything_draws_and_clears(driver):
    reached = []
    for _ in range(19):
        driver.switch_to.active_element.send_keys(Keys.TAB)
        name = ask(driver, "const e = document.activeElement; return e.id || e.ariaLabel")
        reached.append(name.split(":")[0])
    sliders = [f"{name}-slider" for name in SLIDERS]
    assert reached == ["drawing", "clear", *(f"Sample {i}" for i in range(10)), *sliders, "reset", "C3, map 0"]
    driver.switch_to.active_element.send_keys(*[Keys.ARROW_RIGHT] * 4)
    script = "return [...document.querySelectorAll('#s2 > *')].map((map) => map.classList.contains('idle'))"
    assert ask(driver, script) == [False, True, True, True, False, False]  # by table I, C3's map 4 reads 0, 4 and 5
    keys(driver, "#drawing", "c", *[Keys.ARROW_UP] * 8, " ", *[Keys.ARROW_DOWN] * 16, " ", Keys.ARROW_LEFT)
    ink = levels(driver, "LeNet5.drawing().grey") > 127
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    assert np.ptp(rows) > 5 * np.ptp(columns)  # an upright line
    for element, key in ("#drawing", "c"), ("#drawing", Keys.DELETE), ("#clear", " "):
        keys(driver, "body", "5")  # a sample
        assert reads_what_is_drawn(driver)
        keys(driver, element, key)
        assert not levels(driver, "LeNet5.drawing().grey").any()
        assert ask(driver, "return document.getElementById('digit').textContent") == "–"


@pytest.fixture(scope="module")
def numbers():
    return checkpoint.load(ROOT / "Record" / "numbers" / checkpoint.FILE)


@pytest.fixture
def strip(session, tmp_path, numbers):
    """The page that reads numbers, in the view for them; after the test it must have said nothing."""
    (tmp_path / "demo.html").write_text(page.make_page(reference(), numbers), encoding="utf-8")
    assert (tmp_path / "demo.html").stat().st_size < 1_000_000
    page.take_screenshot(session, tmp_path / "demo.html", tmp_path / "demo.png")  # it writes 1998
    yield session
    assert session.get_log("browser") == []


def text_of(driver, element):
    return ask(driver, f"return document.getElementById('{element}').textContent")


def test_a_number_is_read_while_it_is_written(strip, numbers):
    assert text_of(strip, "digit") == text_of(strip, "labels") == "1998"
    best = "return document.querySelector('#scores .best .name').textContent"
    assert ask(strip, best) == "8"  # the place of the last digit
    keys(strip, "#places", *[Keys.ARROW_LEFT] * 3)
    assert ask(strip, best) == "none" and text_of(strip, "digit") == "1998"
    for width in (320, 390, 1920):
        browser.resize(strip, width, 844)
        browser.wait_for_frames(strip)
        assert ask(strip, "return document.documentElement.scrollWidth") <= width
    keys(strip, "body", "c")
    assert text_of(strip, "digit") == "–"
    keys(strip, "#of-digit", " ")
    keys(strip, "body", "5")
    assert reads_what_is_drawn(strip)


def test_lines_and_their_scores_are_those_of_python(strip, numbers):
    model, generator = checkpoint.network(numbers), np.random.default_rng(0)
    digits = datasets.load_dataset("digits", Path("data"), "test")
    lines = [line for batch, _ in sample_lines(digits, 100, generator) for line in batch.numpy()]
    for line in (*lines, np.zeros((32, 34), np.uint8), lines[0][:, :35]):
        with torch.inference_mode():
            expected = reader.sweep(model, scale(torch.from_numpy(line)[None]))[0]
        scores = ask(strip, "return LeNet5.sweep(bytes(a[0]), a[1]).map((row) => [...row])", line, line.shape[1])
        np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-4)
    for line, angle in zip(lines[:6], (0, 5, -5, 0, 8, 0)):
        picture = Image.fromarray(255 - line).resize((4 * line.shape[1], 128), Image.Resampling.BICUBIC)
        grey = np.asarray(picture.rotate(angle, Image.Resampling.BICUBIC, expand=True, fillcolor=255))
        expected = prepare_line(grey).astype(int)
        script = "const line = LeNet5.prepareLine(bytes(a[0]), a[1], a[2]); return [line.w, [...line.at]]"
        width, found = ask(strip, script, grey, *reversed(grey.shape))
        assert width == expected.shape[1] and abs(np.reshape(found, expected.shape) - expected).max() <= 1


def test_sliders(driver):
    plain = levels(driver, "LeNet5.input()")
    for name in SLIDERS:
        keys(driver, f"#{name}-slider", *[Keys.ARROW_RIGHT] * 6)
        assert (levels(driver, "LeNet5.input()") != plain).any(), name
        assert reads_what_is_drawn(driver, distorted=True), name
        keys(driver, "#reset", Keys.ENTER)
        assert (levels(driver, "LeNet5.input()") == plain).all(), name
    image = np.zeros((28, 28), np.uint8)
    image[10:18, 12:16] = 255

    def distorted(**how):
        return levels(driver, "LeNet5.distort(bytes(a[0]), a[1])", image, how)

    assert abs(distorted(right=3, down=-2) - np.roll(image, (-2, 3), (0, 1))).max() <= 85  # edges are blurred
    assert abs(distorted(rotate=90) - np.rot90(image, -1)).max() <= 86
    assert distorted(scale=200).sum() == pytest.approx(4 * image.sum(), rel=0.05)
    assert 20 < np.std(distorted(noise=50)[:8]) < 80


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_fits_every_window(driver, scheme):
    for width in (320, 820, 1920):
        browser.resize(driver, width, 844, scheme=scheme)
        browser.wait_for_frames(driver)
        assert ask(driver, "return document.documentElement.scrollWidth") <= width
    script = "const style = getComputedStyle(document.body); return [style.color, style.backgroundColor]"
    ink, paper = (sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in ask(driver, script))
    assert (ink > paper + 400) if scheme == "dark" else (paper > ink + 400)


def test_a_missing_browser_is_said(monkeypatch):
    monkeypatch.setattr(browser.shutil, "which", lambda name: None)
    with pytest.raises(UserError, match="chrom"), browser.chromium():
        pass
