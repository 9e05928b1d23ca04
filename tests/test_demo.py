"""The page to draw on, in a real browser: it computes what Python computes, and does what it offers."""

import base64
import re
import sys

import numpy as np
import pytest
import torch
from conftest import Result, reference
from test_predict import seven, shaded, stroke

import utils
from ClassifyTask_predict import layer_outputs, prepare
from experiments import demo
from model import pad
from utils import UserError


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    path = tmp_path_factory.mktemp("demo") / "demo.html"
    path.write_text(demo.make_page(reference()), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def chromium():
    """A browser for all tests of this file; they are skipped where there is none."""
    try:
        browser = demo.browser()
        driver = browser.__enter__()
    except UserError as error:
        pytest.skip(str(error))
    driver.set_script_timeout(60)
    yield driver
    browser.__exit__(None, None, None)


@pytest.fixture
def driver(chromium, page):
    """The page, freshly loaded on a desktop; after the test it must have said nothing and fetched nothing."""
    demo.resize(chromium, 1280, 900)
    chromium.get(page.as_uri())
    demo.wait_for_frames(chromium)
    yield chromium
    assert chromium.get_log("browser") == []
    assert chromium.execute_script("return performance.getEntriesByType('resource').length") == 0


BYTES = "const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));"


def pack(array):
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def ask(driver, script, *arguments):
    """The value of a script, given arrays as base64."""
    return driver.execute_script(BYTES + script, *arguments)


def seen(driver):
    """What the network on the page is given: uint8 (28, 28)."""
    return np.array(ask(driver, "return [...LeNet5.input()]"), np.uint8).reshape(28, 28)


def drawing(driver):
    """What is on the canvas: uint8 (H, W), ink 255."""
    text, height, width = ask(
        driver,
        "const {gray, w, h} = LeNet5.drawing(); let text = '';"
        "for (const level of gray) text += String.fromCharCode(level); return [btoa(text), h, w];",
    )
    return np.frombuffer(base64.b64decode(text), np.uint8).reshape(height, width)


def answer(driver):
    return driver.execute_script("return document.getElementById('digit').textContent")


def prediction(image):
    """The reference network's class of uint8 (28, 28), as text."""
    return str(utils.class_scores(utils.load_model(reference()), pad(torch.from_numpy(image)[None])).argmax().item())


def test_one_file_without_network(page):
    text = page.read_text(encoding="utf-8")
    assert page.stat().st_size < 1_000_000
    assert not re.search(r"https?:|//\w+\.\w|@import|\burl\(|<link(?! rel=\"icon\" href=\"data:,\")", text)
    assert "default-src 'none'" in text and "__TRAINED__" not in text


@pytest.mark.parametrize("arguments", [{"output": "rbf"}, {"connection": "full"}])
def test_the_network_of_the_page_is_the_default_one(arguments):
    with pytest.raises(UserError, match="default network"):
        demo.make_page({**reference(), "arguments": arguments})


def test_script(monkeypatch, tmp_path, capfd):
    monkeypatch.chdir(tmp_path)
    utils.save_checkpoint(tmp_path / "Record" / "LeNet5.pt", reference())
    monkeypatch.setattr(sys, "argv", ["demo.py"])
    for status in (0, 2):
        with pytest.raises(SystemExit) as stop:
            utils.run_script(demo.main)
        run = Result(stop.value.code or 0, *capfd.readouterr())
        assert run.status == status, run
        (tmp_path / "Record" / "LeNet5.pt").unlink(missing_ok=True)
    run.said("no checkpoint")
    assert [path.name for path in (tmp_path / "Record").iterdir()] == ["demo.html"]


def test_scores_are_those_of_pytorch(driver):
    digits, _ = utils.load_dataset("digits", demo.Path("data"), "test")
    images = np.stack([prepare(image.numpy()) for image in digits[:100]])
    scores = ask(
        driver,
        "const all = bytes(arguments[0]); return Array.from({length: 100}, (_, i) => "
        "[...LeNet5.forward(all.subarray(784 * i, 784 * (i + 1))).scores])",
        pack(images),
    )
    expected = utils.class_scores(utils.load_model(reference()), pad(torch.from_numpy(images)))
    assert np.abs(np.array(scores) - expected.numpy()).max() < 1e-4


def test_maps_are_those_of_pytorch(driver):
    image = prepare(np.uint8(255 * seven()))
    outputs = layer_outputs(utils.load_model(reference()), torch.from_numpy(image)[None])
    maps = ask(
        driver,
        "const {maps, scores} = LeNet5.forward(bytes(arguments[0]));"
        "return Object.fromEntries(Object.entries({...maps, output: scores}).map(([name, map]) => [name, [...map]]))",
        pack(image),
    )
    assert maps.keys() == outputs.keys()
    for name, expected in outputs.items():
        assert np.abs(np.array(maps[name]) - expected.flatten().numpy()).max() < 1e-4, name


def drawings():
    """Drawings, pictures and trifles: clean ones and bad ones, of all sizes, with and without a digit."""
    random = np.random.default_rng(0)
    digits, _ = utils.load_dataset("digits", demo.Path("data"), "train")
    yield from (image.numpy() for image in digits[:4])
    yield 255 - digits[5].numpy()
    yield np.uint8(255 * seven())
    yield np.uint8(235 - 200 * seven(480, 640))
    yield np.uint8(255 * stroke(280, 280, [(140, 30), (140, 250)], 22))
    yield np.uint8(255 * stroke(64, 448, [(40, 40), (400, 20)], 12))
    yield np.uint8(255 * stroke(448, 448, [(3, 3), (440, 30), (100, 440)], 36))  # over the edge
    yield np.uint8(255 * (stroke(200, 200, [(50, 50), (120, 150)], 15) + stroke(200, 200, [(20, 20), (21, 20)], 5)))
    yield from (shaded(*how) for how in ((0.3, 0), (0, 25), (0.2, 15)))
    yield random.integers(0, 256, (50, 40), np.uint8)
    yield np.zeros((28, 28), np.uint8)
    yield np.full((1, 9), 100, np.uint8)
    for _ in range(6):
        points = random.uniform(40, 240, (4, 2)).tolist()
        yield np.uint8(255 * stroke(280, 280, points, random.uniform(4, 40)))


def test_preparation_is_that_of_python(driver):
    with_ink = 0
    for grey in drawings():
        try:
            expected = prepare(grey).reshape(-1).tolist()
            with_ink += 1
        except ValueError:
            expected = None
        height, width = grey.shape
        script = (
            "const seen = LeNet5.prepare(bytes(arguments[0]), arguments[1], arguments[2]); return seen && [...seen]"
        )
        assert ask(driver, script, pack(grey), width, height) == expected, grey.shape
    assert with_ink > 15


def test_a_stroke_gives_a_prediction(driver):
    driver.execute_script("LeNet5.clear()")
    demo.wait_for_frames(driver)
    assert answer(driver) == "–"
    demo.draw_stroke(driver, demo.TWO)
    image = prepare(drawing(driver))
    assert (seen(driver) == image).all()
    assert answer(driver) == prediction(image)
    best = driver.execute_script(
        "return [...document.querySelectorAll('#scores .best .name')].map((e) => e.textContent)"
    )
    assert best == [answer(driver)]


def test_a_finger_draws(driver):
    from selenium.webdriver.common.action_chains import ActionBuilder
    from selenium.webdriver.common.actions.interaction import POINTER_TOUCH
    from selenium.webdriver.common.actions.pointer_input import PointerInput
    from selenium.webdriver.common.by import By

    demo.resize(driver, 390, 844)
    driver.execute_script("LeNet5.clear(); scrollTo(0, 0)")
    canvas = driver.find_element(By.ID, "drawing")
    actions = ActionBuilder(driver, mouse=PointerInput(POINTER_TOUCH, "finger"), duration=20)
    actions.pointer_action.move_to(canvas, -60, -90).pointer_down()
    actions.pointer_action.move_to(canvas, 60, -90).move_to(canvas, -20, 100).pointer_up()
    actions.perform()
    demo.wait_for_frames(driver)
    assert driver.execute_script("return scrollY") == 0
    image = prepare(drawing(driver))
    assert (seen(driver) == image).all() and answer(driver) == prediction(image)


def keys(driver, element, *pressed):
    from selenium.webdriver.common.by import By

    driver.find_element(By.CSS_SELECTOR, element).send_keys(*pressed)
    demo.wait_for_frames(driver)


def test_the_keyboard_draws_and_clears(driver):
    from selenium.webdriver.common.keys import Keys

    keys(driver, "body", "5")
    assert (seen(driver) == prepare(drawing(driver))).all()
    keys(driver, "#drawing", *[Keys.ARROW_UP] * 8, " ", *[Keys.ARROW_DOWN] * 16, " ", Keys.ARROW_LEFT)
    ink = drawing(driver) > 127
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    assert np.ptp(rows) > 5 * np.ptp(columns)  # an upright line, alone: the sample has gone
    assert answer(driver) in "0123456789"
    for key in ("c", Keys.DELETE):
        keys(driver, "#drawing", key)
        assert answer(driver) == "–" and not drawing(driver).any() and not seen(driver).any()
        keys(driver, "body", "0")
        assert answer(driver) != "–"


def test_everything_is_reached_by_the_keyboard(driver):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    reached = []
    for _ in range(19):
        ActionChains(driver).send_keys(Keys.TAB).perform()
        name, outline = driver.execute_script(
            "const e = document.activeElement; return [e.id || e.ariaLabel, getComputedStyle(e).outlineStyle]"
        )
        assert outline == "solid", name
        reached.append(name)
    samples = [f"Sample {digit}" for digit in range(10)]
    sliders = [f"{name}-slider" for name in ("rotate", "scale", "right", "down", "noise")]
    assert reached[:18] == ["drawing", "clear", *samples, *sliders, "reset"]
    assert reached[18].startswith("C3, map 0")


def test_sliders_at_rest_change_nothing_and_others_do(driver):
    from selenium.webdriver.common.keys import Keys

    plain = seen(driver)
    assert (plain == prepare(drawing(driver))).all()
    for name in ("rotate", "scale", "right", "down", "noise"):
        slider = f"#{name}-slider"
        keys(driver, slider, *[Keys.ARROW_RIGHT] * 6)
        moved = seen(driver)
        assert (moved != plain).any(), name
        assert answer(driver) == prediction(moved)
        keys(driver, slider, *[Keys.ARROW_LEFT] * 6)
        assert (seen(driver) == plain).all(), name
    keys(driver, "#noise-slider", Keys.END)
    keys(driver, "#reset", Keys.ENTER)
    assert (seen(driver) == plain).all()


def test_what_the_sliders_do(driver):
    image = np.zeros((28, 28), np.uint8)
    image[10:18, 12:16] = 255

    def distorted(**how):
        values = ask(driver, "return [...LeNet5.distort(bytes(arguments[0]), arguments[1])]", pack(image), how)
        return np.array(values, np.uint8).reshape(28, 28)

    assert (distorted() == image).all()
    assert abs(distorted(right=3, down=-2).astype(int) - np.roll(image, (-2, 3), (0, 1))).max() <= 85  # blurred edges
    assert abs(distorted(rotate=90).astype(int) - np.rot90(image, -1)).max() <= 1 + 85
    assert distorted(scale=200).sum() == pytest.approx(4 * image.sum(), rel=0.05)
    assert 20 < np.std(distorted(noise=50)[:8]) < 80


def test_samples(driver):
    for digit in (0, 4, 9):
        keys(driver, f"#samples button:nth-child({digit + 1})", " ")
        image = prepare(drawing(driver))
        assert (seen(driver) == image).all() and answer(driver) == prediction(image)


def test_table_i_is_shown(driver):
    from selenium.webdriver.common.keys import Keys

    keys(driver, "#c3 button", *[Keys.ARROW_RIGHT] * 4)
    script = "return [...document.querySelectorAll('#s2 > *')].map((map) => map.classList.contains('idle'))"
    assert driver.execute_script(script) == [False, True, True, True, False, False]  # map 4 reads 0, 4 and 5
    driver.execute_script("document.activeElement.blur()")
    assert driver.execute_script(script) == [False] * 6


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_fits_every_window(driver, scheme):
    for width in (320, 390, 820, 1100, 1280, 1920):
        demo.resize(driver, width, 844, scheme=scheme)
        demo.wait_for_frames(driver)
        wide, cramped, colours = driver.execute_script(
            "const style = getComputedStyle(document.body);"
            "const cramped = [...document.querySelectorAll('main *')].filter((e) => e.scrollWidth > e.clientWidth + 1);"
            "return [document.documentElement.scrollWidth, cramped.filter((e) => e.clientWidth && e.id !== 'spoken')"
            ".map((e) => e.outerHTML), [style.color, style.backgroundColor]]"
        )
        assert wide <= width and cramped == []
        ink, paper = (sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in colours)
        assert (ink > paper + 400) if scheme == "dark" else (paper > ink + 400)


def test_a_forward_pass_takes_less_than_a_frame(driver):
    milliseconds = driver.execute_script(
        "const image = LeNet5.input(), times = []; for (let i = 0; i < 40; i++) { const start = performance.now();"
        "LeNet5.forward(image); times.push(performance.now() - start); } return times.sort((a, b) => a - b)[20]"
    )
    assert milliseconds < 16


def test_screenshot(chromium, page, tmp_path):
    demo.take_screenshot(chromium, page, tmp_path / "demo.png")
    assert (tmp_path / "demo.png").read_bytes().startswith(b"\x89PNG")


def test_a_missing_browser_is_said(monkeypatch):
    monkeypatch.setattr(demo.shutil, "which", lambda name: None)
    pytest.importorskip("selenium")
    with pytest.raises(UserError, match="chrom"), demo.browser():
        pass
