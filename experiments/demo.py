"""A page to draw on: the trained network in one file that any browser opens, without network or server.

python -m experiments.demo                    Record/demo.html
python -m experiments.demo --screenshot       and Record/demo.png, a picture of it; needs selenium and Chromium
"""

import base64
import json
import shutil
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

import utils
from ClassifyTask_predict import prepare
from model import TABLE_I, pad
from utils import UserError

TEMPLATE = Path(__file__).with_suffix(".html")
FIRST = 3  # the sample shown at first


def main():
    parser = utils.Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, default=utils.RECORD / "LeNet5.pt", metavar="FILE")
    parser.add_argument("--screenshot", action="store_true", help="take a picture of the page, too")
    args = parser.parse_args()
    path = utils.RECORD / "demo.html"
    page = make_page(utils.load_checkpoint(args.checkpoint))
    with utils.whole_files(path) as folder:
        (folder / path.name).write_text(page, encoding="utf-8", newline="\n")
    print(f"{path}, {len(page.encode()):,} bytes: open it in a browser")
    if args.screenshot:
        with utils.whole_files(path.with_suffix(".png")) as folder, browser() as driver:
            take_screenshot(driver, path, folder / "demo.png")
        print(f"{path.with_suffix('.png')}")


def make_page(checkpoint: dict) -> str:
    """The page that holds a checkpoint's network. Raises UserError for another network than the default."""
    if checkpoint["arguments"]:
        raise UserError("the page shows the default network only; name another with --checkpoint")
    weights = torch.cat([tensor.flatten() for tensor in checkpoint["model"].values()]).numpy()
    trained = {
        "weights": encode(weights.astype("<f4")),
        "table": TABLE_I,
        "samples": [encode(image) for image in sample_digits(checkpoint)],
        "first": FIRST,
        "source": source(checkpoint),
    }
    return TEMPLATE.read_text(encoding="utf-8").replace("__TRAINED__", json.dumps(trained))


def encode(array: np.ndarray) -> str:
    return base64.b64encode(array.tobytes()).decode()


def sample_digits(checkpoint: dict) -> list[np.ndarray]:
    """Of scikit-learn's digits, for each class the first of the test set that the network reads: uint8 (28, 28)."""
    images, labels = utils.load_dataset("digits", Path("data"), "test")
    prepared = torch.stack([torch.from_numpy(prepare(image.numpy())) for image in images])
    right = utils.class_scores(utils.load_model(checkpoint), pad(prepared)).argmax(1) == labels
    best = [((labels == digit) * (1 + right.int())).argmax() for digit in range(10)]
    return [images[i].numpy() for i in best]


def source(checkpoint: dict) -> str:
    """What the page says of its network."""
    share = f"{checkpoint['history'][-1]['test_accuracy']:.2%}".replace("%", "\u00a0%")
    of = (
        "MNIST’s 10,000 test digits"
        if checkpoint["dataset"] == "mnist"
        else "scikit-learn’s 360 test digits, NOT MNIST"
    )
    return (
        f"60,850 trained parameters, which read {share} of {of}. A drawing is prepared as MNIST’s authors did: its "
        "ink is found, cropped, fitted into 20×20 pixels and centred by its centre of mass. All of it is computed in "
        "this page, which sends nothing. The samples are scikit-learn’s."
    )


# ---------------------------------------------------------------------------------------------- a browser

FLAGS = (
    "headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking",
    "disable-component-update", "disable-sync", "hide-scrollbars",
)  # fmt: skip


@contextmanager
def browser():
    """A Chromium without a window, driven by selenium; raises UserError where either is missing."""
    try:
        from selenium import webdriver
        from selenium.common.exceptions import WebDriverException
    except ImportError:
        raise UserError("selenium is not installed; pip install selenium") from None
    names = ("chromium", "chromium-browser", "google-chrome")
    binary, driver = next(filter(None, map(shutil.which, names)), None), shutil.which("chromedriver")
    if not (binary and driver):
        raise UserError(
            f"{'no Chromium' if driver else 'no chromedriver'} in the path; install chromium and chromedriver"
        )
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in FLAGS:
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    try:
        chromium = webdriver.Chrome(options, webdriver.ChromeService(driver))
    except WebDriverException as error:
        raise UserError(f"{binary} cannot be driven by {driver} ({str(error).splitlines()[0]})") from None
    try:
        yield chromium
    finally:
        chromium.quit()


def resize(driver, width: int, height: int, scale: float = 1, scheme: str = "light"):
    """Give the page this size in CSS pixels and a colour scheme, "light" or "dark"."""
    size = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    driver.execute_cdp_cmd("Emulation.setFocusEmulationEnabled", {"enabled": True})
    feature = {"name": "prefers-color-scheme", "value": scheme}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})


# A two, as a pen draws it: x and y from 0 to 1.
TWO = (
    (0.30, 0.33), (0.33, 0.25), (0.40, 0.19), (0.49, 0.17), (0.58, 0.18), (0.65, 0.23), (0.68, 0.30), (0.67, 0.38),
    (0.62, 0.46), (0.54, 0.55), (0.45, 0.64), (0.36, 0.73), (0.29, 0.80), (0.36, 0.79), (0.46, 0.80), (0.58, 0.81),
    (0.72, 0.79),
)  # fmt: skip


def draw_stroke(driver, points):
    """Draw on the page with the mouse: (x, y), each from 0 to 1 of the drawing's side."""
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By

    canvas = driver.find_element(By.ID, "drawing")
    actions = ActionChains(driver, duration=10)
    for i, (x, y) in enumerate(points):
        actions.move_to_element_with_offset(canvas, *(round((at - 0.5) * canvas.rect["width"]) for at in (x, y)))
        if i == 0:
            actions.click_and_hold()
    actions.release().perform()
    wait_for_frames(driver)


def wait_for_frames(driver):
    """Let the page show what has changed."""
    driver.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")


def take_screenshot(driver, page: Path, path: Path):
    """A digit drawn on the page, as PNG."""
    resize(driver, 1280, 900, scale=1.5)
    driver.get(page.resolve().as_uri())
    draw_stroke(driver, TWO)
    path.write_bytes(driver.get_screenshot_as_png())


if __name__ == "__main__":
    utils.run_script(main)
