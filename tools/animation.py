"""The page to draw on while a number is written, all layers following: an animation for the README, and its last frame.

python -m tools.animation    Record/demo.gif and Record/demo.png, of your own runs, or of the networks shipped

It needs selenium and Chromium. The strokes are the page's first sample, coordinates of tools/strokes.py.
"""

import io
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `python tools/animation.py`

import utils  # isort: skip; first, so that Ctrl-C shows no traceback of imports

import numpy as np
from PIL import Image

from tools import options
from tools.browser import chromium, resize, wait_for_frames
from tools.page import make_page, networks
from utils import UserError, shown

WIDTH, HEIGHT = 900, 706  # of the window, in CSS pixels
ACROSS = 830  # pixels: a README shows no more
EXACT = 48  # colours that are kept as they are
STROKES, STEP = 40, 100  # frames while it is written, and for how many milliseconds each is shown
PLACES, LOOK = 2, 150  # places of the sweep from frame to frame, and milliseconds
PAUSE = 1500  # milliseconds, when it is written and when it is swept


def main():
    args = options.parser(__doc__, "Record/demo.gif").parse_args()
    path = options.output_path(args, "demo.gif")
    if path.suffix != ".gif":
        raise UserError(f"{shown(path)} is no .gif file; name one with --output")
    trained, numbers = networks(args)
    if not numbers:
        raise UserError("no network that reads numbers; train one with ClassifyTask_train.py --recipe numbers")
    with tempfile.TemporaryDirectory() as folder, chromium() as driver:
        page = Path(folder) / "demo.html"
        page.write_text(make_page(trained, numbers), encoding="utf-8")
        frames, times, poster = record(driver, page)
    picture = path.with_suffix(".png")
    with utils.whole_files(path) as folder:
        save(frames, times, folder / path.name)
        (folder / picture.name).write_bytes(poster)
    print(f"{shown(path)}: {len(frames)} frames, {sum(times) / 1000:.1f} seconds, {path.stat().st_size:,} bytes")
    print(shown(picture))


def record(driver, page: Path) -> tuple[list[Image.Image], list[int], bytes]:
    """The frames, for how many milliseconds each is shown, and the poster, a PNG file of twice the size."""
    frames, times = [], []

    def take(time, script, *arguments):
        driver.execute_script(script, *arguments)
        wait_for_frames(driver)
        frames.append(Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert("RGB"))
        times.append(time)

    resize(driver, WIDTH, HEIGHT, scale=ACROSS / WIDTH)
    driver.get(page.as_uri())
    driver.execute_script("LeNet5.openView('number')")
    wait_for_frames(driver)
    for i in range(STROKES):
        take(STEP, "LeNet5.show(0, arguments[0])", i / STROKES)
    take(PAUSE, "LeNet5.show(0, 1)")
    last = driver.execute_script("return Number(document.getElementById('places').ariaValueMax)")
    for place in range(0, last + 1, PLACES):
        take(LOOK, "LeNet5.choose(arguments[0])", place)
    take(PAUSE, "LeNet5.show(0, 1)")
    resize(driver, WIDTH, HEIGHT, scale=2 * ACROSS / WIDTH)
    wait_for_frames(driver)
    return frames, times, driver.get_screenshot_as_png()


def save(frames: list[Image.Image], times: list[int], path: Path):
    """One GIF file that repeats, of 255 colours common to all frames: the most common ones as they are."""
    packed = [np.asarray(frame, np.uint32) @ np.uint32([1 << 16, 1 << 8, 1]) for frame in frames]  # (H, W) each
    values, counts = np.unique(np.stack(packed[:: len(frames) // 8]), return_counts=True)
    values, all_values = values[np.argsort(-counts)], np.unique(np.concatenate([np.unique(one) for one in packed]))
    common, mixed = rgb(values[:EXACT]), Image.fromarray(rgb(all_values)[None]).quantize(255 - EXACT).getpalette()
    palette = np.concatenate([common, np.uint8(mixed).reshape(-1, 3)[: 255 - EXACT]])
    distances = ((rgb(all_values)[:, None].astype(int) - palette) ** 2).sum(2)
    nearest = distances.argmin(1).astype(np.uint8)
    images = [Image.fromarray(nearest[np.searchsorted(all_values, one)]) for one in packed]
    for image in images:
        image.putpalette(palette.tobytes())
    images[0].save(path, "GIF", save_all=True, append_images=images[1:], duration=times, loop=0)


def rgb(packed: np.ndarray) -> np.ndarray:
    """Colours as whole numbers (N) -> uint8 (N, 3)."""
    return np.stack([packed >> 16, packed >> 8 & 255, packed & 255], 1).astype(np.uint8)


if __name__ == "__main__":
    utils.run_script(main)
