"""A Chromium without a window, for the animation of the page and its tests."""

import shutil
from contextlib import contextmanager

from utils import UserError

FLAGS = (
    "headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking",
    "disable-component-update", "disable-sync", "hide-scrollbars",
)  # fmt: skip


@contextmanager
def chromium():
    """Chromium's driver, as selenium's; raises UserError where selenium, Chromium or chromedriver is missing."""
    try:
        from selenium import webdriver
        from selenium.common.exceptions import WebDriverException
    except ImportError:
        raise UserError("selenium is not installed; pip install selenium") from None
    names = ("chromium", "chromium-browser", "google-chrome")
    binary, driver = next(filter(None, map(shutil.which, names)), None), shutil.which("chromedriver")
    if not (binary and driver):
        missing = "no Chromium" if driver else "no chromedriver"
        raise UserError(f"{missing} in the path; install chromium and chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in FLAGS:
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    try:
        session = webdriver.Chrome(options, webdriver.ChromeService(driver))
    except WebDriverException as error:
        raise UserError(f"{binary} cannot be driven by {driver} ({str(error).splitlines()[0]})") from None
    try:
        yield session
    finally:
        session.quit()


def resize(driver, width: int, height: int, scale: float = 1, scheme: str = "light", motion: str = "reduce"):
    """Give the page this size in CSS pixels, each `scale` device pixels, and the reader's preferences.

    The colour scheme is "light" or "dark"; with "reduce" samples are there at once, else ("no-preference") written.
    """
    size = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    driver.execute_cdp_cmd("Emulation.setFocusEmulationEnabled", {"enabled": True})
    preferences = {"prefers-color-scheme": scheme, "prefers-reduced-motion": motion}
    features = [{"name": name, "value": value} for name, value in preferences.items()]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def wait_for_frames(driver):
    """Let the page show what has changed: on a busy machine a screenshot may be two frames late."""
    driver.execute_async_script("""
        const done = arguments[0];
        let left = 4;
        const next = () => left-- ? requestAnimationFrame(next) : done();
        next();
    """)
