"""The page to draw on, in a real browser: it computes what Python computes, and does what it offers."""

import base64
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import reference
from drawn import shaded, stroke
from PIL import Image
from selenium.webdriver.common.action_chains import ActionBuilder
from selenium.webdriver.common.actions.pointer_input import PointerInput
from selenium.webdriver.common.keys import Keys

from digits import mnist as datasets
from digits.lines import sample_lines
from digits.pieces import evened, grouped, ink_of, parts_of, upright
from digits.preprocessing import prepare
from model import normalize, pad
from reading.sweep import sweep
from tools import browser, page
from training import checkpoint
from utils import UserError, class_logits

TEST_SET = datasets.load_dataset("digits", None, "test")
DIGITS = [image.numpy() for image in TEST_SET[0][:20]]
SLIDERS = ("rotate", "scale", "right", "down", "noise")


def trained(**arguments):
    return replace(reference(), recipe=replace(reference().recipe, model_arguments=arguments))


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
    """The page for digits, or for numbers, on a desktop; at the end it must have said nothing and fetched nothing."""
    numbers = request.param == "numbers"
    networks = (reference(), reference("numbers")) if numbers else (trained(activation=request.param),)
    (tmp_path / "demo.html").write_text(page.make_page(*networks), encoding="utf-8")
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
    values = np.array(ask(driver, f"return [...{expression}]", *arguments), int)
    return values.reshape(round(len(values) ** 0.5), -1)


def line_drawn(grey):
    """The steps of find_lines that the page takes: of ink alone, without what only photos need."""
    ink = grey / 255
    parts = parts_of(ink)
    kept = np.flatnonzero(parts.area >= parts.area.max() / 40)
    return evened(upright([ink_of(ink, parts, own) for own in grouped(parts, kept)]))


def drawing(driver):
    return levels(driver, "LeNet5.drawing().grey")


def text_of(driver, element):
    return ask(driver, "return document.querySelector(a[0]).textContent", element)


BEST = "#logits .best .name"


def classifies_what_is_drawn(driver, augmented=False):
    """Whether the page's network is given the drawing, as Python prepares it, and answers as Python's does."""
    image = levels(driver, "LeNet5.input()").astype(np.uint8)
    best = class_logits(checkpoint.network(reference()), pad(torch.from_numpy(image)[None])).argmax().item()
    same = augmented or (image == prepare(drawing(driver))).all()
    return same and text_of(driver, "#digit") == text_of(driver, BEST) == str(best)


def keys(driver, element, *pressed):
    driver.find_element("css selector", element).send_keys(*pressed)
    browser.wait_for_frames(driver)


def fits(driver, width, **options):
    """Whether nothing is wider than a window of this width."""
    browser.resize(driver, width, 844, **options)
    browser.wait_for_frames(driver)
    return ask(driver, "return document.documentElement.scrollWidth") <= width


def test_one_file_without_network(run_main, tmp_path, monkeypatch):
    said, _, written = run_main(page.main).succeeded().out.partition(f"Record/reference/{checkpoint.FILE}\n")
    assert said == "no training run of yours: made of the network shipped, " and written.startswith("Record/demo.html")
    run_main(page.main, "--output", "new/own.html").succeeded()
    assert "shipped" not in run_main(page.main, "--reference").succeeded().out
    paths = [tmp_path / path for path in ("Record/demo.html", "new/own.html", "Record/reference/demo.html")]
    assert set(tmp_path.rglob("*.html")) == set(paths) and len({path.read_bytes() for path in paths}) == 1
    text = page.make_page(reference(), reference("numbers"))
    assert len(text) < 1_000_000 and "default-src 'none'" in text and "__TRAINED__" not in text
    assert not re.search(r"https?:|//\w+\.\w|@import|\burl\(|<link(?! rel=\"icon\" href=\"data:,\")", text)
    run_main(page.main, "--screenshot", "--output", "a.png").refused("a.png would be both the page and its picture")
    run_main(page.main, "--checkpoint", "nowhere").refused("no checkpoint")
    for arguments in {"output": "rbf"}, {"activation": "tanh"}:
        with pytest.raises(UserError, match="not LeNet5.(output|activation)="):
            page.make_page(trained(**arguments))
    monkeypatch.setattr(browser.shutil, "which", lambda name: None)
    with pytest.raises(UserError, match="chrom"), browser.chromium():
        pass


@pytest.mark.parametrize("driver", ["squash", "relu"], indirect=True)
def test_every_layer_is_that_of_pytorch(driver, request):
    network = checkpoint.network(trained(activation=request.node.callspec.params["driver"]))
    script = (
        "const {maps, logits} = LeNet5.forward(bytes(a[0]));"
        "return Object.fromEntries(Object.entries({...maps, output: logits}).map(([name, map]) => [name, [...map]]))"
    )
    for image in map(prepare, DIGITS):
        found, states = ask(driver, script, image), network.states(normalize(pad(torch.from_numpy(image)[None])))
        assert states.keys() == found.keys()
        for name, state in states.items():
            np.testing.assert_allclose(found[name], state.detach().flatten(), rtol=1e-4, atol=1e-4, err_msg=name)


def test_preparation_is_that_of_python(driver):
    over_the_edge = stroke(448, 448, [(3, 3), (440, 30), (100, 440)], 36)
    with_a_speck = stroke(200, 200, [(50, 50), (120, 150)], 15) + stroke(200, 200, [(20, 20), (21, 20)], 5)
    inks = stroke(280, 280, [(140, 30), (140, 250)], 22), stroke(64, 448, [(40, 40), (400, 20)], 12)
    greys = [np.uint8(255 * ink) for ink in (*inks, over_the_edge, with_a_speck)]
    greys += [*DIGITS[:4], 255 - DIGITS[5], shaded(0.3, 0), shaded(0, 25)]
    script = "const image = LeNet5.prepare(bytes(a[0]), a[1], a[2]); return image && [...image]"
    for grey in greys:
        assert ask(driver, script, grey, *reversed(grey.shape)) == prepare(grey).flatten().tolist(), grey.shape
    for no_digit in np.zeros((28, 28), np.uint8), np.full((1, 9), 9, np.uint8):
        assert ask(driver, script, no_digit, *reversed(no_digit.shape)) is None


def test_mouse_finger_and_samples(driver, tmp_path):
    page.take_screenshot(driver, tmp_path / "demo.html", tmp_path / "demo.png")  # it draws a two
    assert (tmp_path / "demo.png").read_bytes().startswith(b"\x89PNG")
    assert classifies_what_is_drawn(driver)
    for digit in (0, 4, 9):
        keys(driver, f"#samples button:nth-child({digit + 1})", " ")
        assert classifies_what_is_drawn(driver)
    browser.resize(driver, 390, 844)
    before, canvas = drawing(driver), driver.find_element("id", "drawing")
    actions = ActionBuilder(driver, mouse=PointerInput("touch", "finger"), duration=20)
    down = actions.pointer_action.move_to(canvas, -60, 100).pointer_down()
    down.move_to(canvas, 60, 90).move_to(canvas, 20, -100).pointer_up()
    actions.perform()
    browser.wait_for_frames(driver)
    assert (drawing(driver) != before).any() and classifies_what_is_drawn(driver)


def test_the_keyboard_reaches_everything_draws_and_clears(driver):
    reached = []
    for _ in range(19):
        driver.switch_to.active_element.send_keys(Keys.TAB)
        reached.append(ask(driver, "const e = document.activeElement; return e.id || e.ariaLabel").split(":")[0])
    sliders = [f"{name}-slider" for name in SLIDERS]
    assert reached == ["drawing", "clear", *(f"Sample {i}" for i in range(10)), *sliders, "reset", "C3, map 0"]
    driver.switch_to.active_element.send_keys(*[Keys.ARROW_RIGHT] * 4)
    script = "return [...document.querySelectorAll('#s2 > *')].map((map) => map.classList.contains('idle'))"
    assert ask(driver, script) == [False, True, True, True, False, False]  # by table I, C3's map 4 reads 0, 4 and 5
    keys(driver, "#drawing", "c", *[Keys.ARROW_UP] * 8, " ", *[Keys.ARROW_DOWN] * 16, " ", Keys.ARROW_LEFT)
    ink = drawing(driver) > 127
    assert np.ptp(np.flatnonzero(ink.any(1))) > 5 * np.ptp(np.flatnonzero(ink.any(0)))  # an upright line
    for element, key in ("#drawing", "c"), ("#drawing", Keys.DELETE), ("#clear", " "):
        keys(driver, "body", "5")  # a sample
        assert classifies_what_is_drawn(driver)
        keys(driver, element, key)
        assert not drawing(driver).any() and text_of(driver, "#digit") == "–"


@pytest.mark.parametrize("driver", ["numbers"], indirect=True)
def test_a_number_is_read_while_it_is_written(driver, tmp_path):
    page.take_screenshot(driver, tmp_path / "demo.html", tmp_path / "demo.png")  # it writes 1998
    assert text_of(driver, "#digit") == text_of(driver, "#labels") == "1998"
    assert text_of(driver, BEST) == "8"  # the place of the last digit
    keys(driver, "#places", *[Keys.ARROW_LEFT] * 3)
    assert text_of(driver, BEST) == "none" and text_of(driver, "#digit") == "1998"
    assert all(fits(driver, width) for width in (320, 390, 1920))
    keys(driver, "body", "c")
    assert text_of(driver, "#digit") == "–"
    keys(driver, "#of-digit", " ")
    keys(driver, "body", "5")
    assert classifies_what_is_drawn(driver)


@pytest.mark.parametrize("driver", ["numbers"], indirect=True)
def test_lines_and_their_logits_are_those_of_python(driver):
    model, sampled = checkpoint.network(reference("numbers")), sample_lines(TEST_SET, 100, np.random.default_rng(0))
    lines = [line for batch, _ in sampled for line in batch.numpy()]
    for line in (*lines, np.zeros((32, 34), np.uint8), lines[0][:, :35]):
        with torch.inference_mode():
            expected = sweep(model, normalize(torch.from_numpy(line)[None]))[0]
        logits = ask(driver, "return LeNet5.sweep(bytes(a[0]), a[1]).map((row) => [...row])", line, line.shape[1])
        np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)
    for line, angle in zip(lines[:6], (0, 5, -5, 0, 8, 0)):
        image = Image.fromarray(line).resize((4 * line.shape[1], 128), Image.Resampling.BICUBIC)
        grey = np.asarray(image.rotate(angle, Image.Resampling.BICUBIC, expand=True))
        expected = line_drawn(grey).astype(int)
        script = "const line = LeNet5.prepareLine(bytes(a[0]), a[1], a[2]); return [line.w, [...line.at]]"
        width, found = ask(driver, script, grey, *reversed(grey.shape))
        assert width == expected.shape[1] and abs(np.reshape(found, expected.shape) - expected).max() <= 1


def test_sliders(driver):
    plain = levels(driver, "LeNet5.input()")
    for name in SLIDERS:
        keys(driver, f"#{name}-slider", *[Keys.ARROW_RIGHT] * 6)
        assert (levels(driver, "LeNet5.input()") != plain).any(), name
        assert classifies_what_is_drawn(driver, augmented=True), name
        keys(driver, "#reset", Keys.ENTER)
        assert (levels(driver, "LeNet5.input()") == plain).all(), name
    image = np.zeros((28, 28), np.uint8)
    image[10:18, 12:16] = 255

    def augmented(**how):
        return levels(driver, "LeNet5.augment(bytes(a[0]), a[1])", image, how)

    assert abs(augmented(right=3, down=-2) - np.roll(image, (-2, 3), (0, 1))).max() <= 85  # edges are blurred
    assert abs(augmented(rotate=90) - np.rot90(image, -1)).max() <= 86
    assert augmented(scale=200).sum() == pytest.approx(4 * image.sum(), rel=0.05)
    assert 20 < np.std(augmented(noise=50)[:8]) < 80


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_fits_every_window(driver, scheme):
    assert all(fits(driver, width, scheme=scheme) for width in (320, 820, 1920))
    script = "const style = getComputedStyle(document.body); return [style.color, style.backgroundColor]"
    ink, paper = (sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in ask(driver, script))
    assert (ink > paper + 400) if scheme == "dark" else (paper > ink + 400)
