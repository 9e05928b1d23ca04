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
from selenium.webdriver import ActionChains
from selenium.webdriver.common.keys import Keys

from digits import mnist as datasets
from digits.lines import sample_lines
from digits.pieces import evened, grouped, ink_of, parts_of, upright
from digits.preprocessing import prepare
from model import normalize, pad
from reading.sweep import sweep
from tools import browser, page, strokes
from training import checkpoint
from utils import UserError, class_logits

TEST_SET = datasets.load_dataset("digits", None, "test")
DIGITS = [image.numpy() for image in TEST_SET[0][:20]]
SLIDERS = ("rotate", "scale", "right", "down", "noise")
on_both_views = pytest.mark.parametrize("driver", ["squash", "numbers"], indirect=True)
of_numbers = pytest.mark.parametrize("driver", ["numbers"], indirect=True)


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
    """The page with one network, or open for numbers, on a desktop; it must say nothing and fetch nothing."""
    numbers = request.param == "numbers"
    networks = (reference(), reference("numbers")) if numbers else (trained(activation=request.param),)
    (tmp_path / "demo.html").write_text(page.make_page(*networks), encoding="utf-8")
    browser.resize(session, 1280, 900)
    session.get((tmp_path / "demo.html").as_uri())
    if numbers:
        session.execute_script("LeNet5.openView('number')")
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


def draw(driver, drawn):
    """Draw strokes with the mouse; points (x, y) are in heights of the drawing."""
    canvas = driver.find_element("id", "drawing")
    width, height = canvas.rect["width"], canvas.rect["height"]
    for points in drawn:
        actions = ActionChains(driver, duration=10)
        for i, (x, y) in enumerate(points):
            actions.move_to_element_with_offset(canvas, round(x * height - width / 2), round((y - 0.5) * height))
            if i == 0:
                actions.click_and_hold()
        actions.release().perform()
    browser.wait_for_frames(driver)


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


def test_one_file_without_network(run_main, tmp_path):
    said, _, written = run_main(page.main).succeeded().out.partition(f"Record/reference/{checkpoint.FILE}\n")
    assert said == "no training run of yours: made of the network shipped, " and written.startswith("Record/demo.html")
    run_main(page.main, "--output", "new/own.html").succeeded()
    assert "shipped" not in run_main(page.main, "--reference").succeeded().out
    paths = [tmp_path / path for path in ("Record/demo.html", "new/own.html", "Record/reference/demo.html")]
    assert set(tmp_path.rglob("*.html")) == set(paths) and len({path.read_bytes() for path in paths}) == 1
    text = page.make_page(reference(), reference("numbers"))
    assert len(text) < 1_000_000 and "default-src 'none'" in text and "__TRAINED__" not in text
    assert not re.search(r"https?:|//\w+\.\w|@import|\burl\(|<link(?! rel=\"icon\" href=\"data:,\")", text)
    run_main(page.main, "--checkpoint", "nowhere").refused("no checkpoint")
    for arguments in {"output": "rbf"}, {"activation": "tanh"}:
        with pytest.raises(UserError, match="not LeNet5.(output|activation)="):
            page.make_page(trained(**arguments))


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


@on_both_views
def test_samples_are_read_as_what_they_are_called(driver):
    buttons = driver.find_elements("css selector", "#samples button")
    names = [button.accessible_name.removeprefix("Sample ") for button in buttons]
    assert names in ([*strokes.DIGITS], [*strokes.NUMBERS])
    for i, name in enumerate(names):
        keys(driver, f"#samples button:nth-child({i + 1})", " ")
        assert text_of(driver, "#digit") == name
        keys(driver, "body", "c")
        assert text_of(driver, "#digit") == "–"
        keys(driver, "body", str(i + (len(names) < 10)))
        assert text_of(driver, "#digit") == name


def test_the_mouse_draws_and_undo_takes_back(driver):
    draw(driver, strokes.written("5"))
    both = drawing(driver)
    assert classifies_what_is_drawn(driver) and text_of(driver, "#digit") == "5"
    keys(driver, "#undo", " ")
    assert 0 < (drawing(driver) > 0).sum() < (both > 0).sum() and classifies_what_is_drawn(driver)
    keys(driver, "body", "u")
    assert not drawing(driver).any() and text_of(driver, "#digit") == "–"


@on_both_views
def test_a_finger_draws_and_does_not_scroll(driver):
    browser.resize(driver, 390, 844)
    driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True})
    before, box = drawing_size(driver), driver.find_element("id", "drawing").rect

    def touch(kind, *at):
        points = [{"x": box["x"] + x * box["width"], "y": box["y"] + y * box["height"]} for x, y in at]
        driver.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", (0.4, 0.9))
    for i in range(1, 9):
        touch("touchMove", (0.4 + i / 100, 0.9 - i / 10))
    touch("touchEnd")
    browser.wait_for_frames(driver)
    driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})
    assert drawing_size(driver) not in (0, before) and text_of(driver, "#digit") == "1"
    assert ask(driver, "return scrollY") == 0


def drawing_size(driver):
    return ask(driver, "return LeNet5.drawing().grey.filter((level) => level > 127).length")


def test_a_sample_is_written_stroke_by_stroke(driver):
    whole = drawing_size(driver)
    browser.resize(driver, 1280, 900, motion="no-preference")
    driver.refresh()
    script = """const done = arguments[0], sizes = [], look = () => {
        sizes.push(LeNet5.drawing().grey.filter((level) => level > 127).length);
        if (performance.now() < begin + 4000) requestAnimationFrame(look); else done(sizes);
    }, begin = performance.now();
    document.querySelector("#samples :nth-child(4)").click();
    look();"""
    sizes = driver.execute_async_script(script)
    written = sizes[sizes.index(min(sizes)) :]
    assert written == sorted(written) and len(set(written)) > 5 and written[-1] == whole
    keys(driver, "body", "8")
    draw(driver, strokes.written("1"))  # in the midst of it
    assert text_of(driver, "#digit") == "1"


@on_both_views
def test_the_keyboard_reaches_everything_and_all_has_a_name(driver):
    number = ask(driver, "return document.body.className") == "number"
    reached, outlined = [], []
    script = "const e = document.activeElement; return [e.id || e.ariaLabel, getComputedStyle(e).outlineStyle]"
    for _ in range(19 if number else 20):
        driver.switch_to.active_element.send_keys(Keys.TAB)
        name, outline = ask(driver, script)
        reached.append(name.split(":")[0])
        outlined.append(outline)
    sliders = [f"{name}-slider" for name in (*SLIDERS[:4], *["gap"] * number, "noise")]
    views, places = (["of-digit", "of-number"], ["places"]) if number else ([], [])
    samples = [f"Sample {name}" for name in (strokes.NUMBERS if number else strokes.DIGITS)]
    assert reached == [*views, "drawing", "undo", "clear", *samples, *places, *sliders, "reset", "C3, map 0"]
    assert set(outlined) == {"solid"}
    nodes = driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    named = ("button", "slider", "image", "img", "application", "group")
    roles = [(node["role"]["value"], node["name"]["value"]) for node in nodes if not node["ignored"]]
    assert [role for role, name in roles if role in named and not name] == []
    assert {role for role, _ in roles} >= {"button", "slider", "image", "application", "group"}


def test_the_keyboard_shows_table_i_draws_and_clears(driver):
    driver.find_element("css selector", "#c3 button").send_keys(*[Keys.ARROW_RIGHT] * 4)
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


@of_numbers
def test_a_number_is_read_while_it_is_written(driver):
    *before, last = strokes.written("1998")
    draw(driver, before)
    assert text_of(driver, "#digit") == text_of(driver, "#labels") == "199"
    draw(driver, [last])
    assert text_of(driver, "#digit") == text_of(driver, "#labels") == "1998"
    assert text_of(driver, BEST) == "8"  # the place of the last digit
    keys(driver, "#places", *[Keys.ARROW_LEFT] * 3)
    assert text_of(driver, BEST) == "none" and text_of(driver, "#digit") == "1998"
    keys(driver, "#of-digit", " ")
    keys(driver, "body", "5")
    assert classifies_what_is_drawn(driver)
    keys(driver, "#of-number", " ")
    assert text_of(driver, "#digit") == "1998"


@of_numbers
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


@of_numbers
def test_sliders_change_the_line(driver):
    line = "return document.getElementById('line').toDataURL()"
    plain = ask(driver, line)
    for name in (*SLIDERS, "gap"):
        keys(driver, f"#{name}-slider", *[Keys.ARROW_RIGHT] * 3)
        assert ask(driver, line) != plain, name
        keys(driver, "#reset", Keys.ENTER)
        assert ask(driver, line) == plain, name
    keys(driver, "#gap-slider", Keys.HOME)
    assert text_of(driver, "#digit") == text_of(driver, "#labels") == "1998"  # even if the digits touch


@on_both_views
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_fits_every_window(driver, scheme):
    assert all(fits(driver, width, scheme=scheme) for width in (320, 390, 768, 900, 1280, 1920))
    script = "const style = getComputedStyle(document.body); return [style.color, style.backgroundColor]"
    ink, paper = (sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in ask(driver, script))
    assert (ink > paper + 400) if scheme == "dark" else (paper > ink + 400)
    browser.resize(driver, 1280, 800, scheme=scheme)
    script = "return document.getElementById(a[0]).getBoundingClientRect().bottom"
    assert max(ask(driver, script, seen) for seen in ("drawing", "digit", "places", "c1", "f6", "logits")) < 800
