"""Photographs the web demo with its first example.

    python docs/screenshot.py outputs/demo/best docs/images/web_demo.png

needs playwright and Chromium (chromium, chromium-browser or google-chrome on the PATH).
"""

from __future__ import annotations

import argparse
import shutil
import socket
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from maskformer.demo.examples import generated_examples
from maskformer.demo.network import Network
from maskformer.demo.server import serve
from maskformer.training.model_folder import load_model_folder

SIZE = {"width": 1280, "height": 1000}
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def free_port() -> int:
    """A port that nobody serves at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def photograph(address: str, browser_path: str, out: Path) -> None:
    """Opens the page, chooses the first example, and writes a PNG when the answer is there."""
    with sync_playwright() as driver:
        # Containers run as root, where Chromium has no sandbox; the page is ours.
        browser = driver.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        tab = browser.new_page(viewport=SIZE)
        tab.goto(address)
        tab.wait_for_selector(".empty")
        tab.locator("#examples .gallery-item").first.click()
        tab.wait_for_selector(".viewer")
        tab.mouse.move(2, 2)
        tab.wait_for_timeout(1000)  # what moves comes to rest
        tab.screenshot(path=out)
        browser.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder of a trained model")
    parser.add_argument("out", type=Path, help="PNG to write")
    arguments = parser.parse_args()
    browser_path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser_path is None:
        parser.error(f"no browser was found; install Chromium (one of {', '.join(BROWSERS)} on the PATH)")
    with tempfile.TemporaryDirectory(prefix="maskformer_demo_") as folder:
        folder = Path(folder).resolve()
        page = serve(
            Network(*load_model_folder(arguments.model)), generated_examples(folder), folder, "127.0.0.1", free_port()
        )
        photograph(page.local_url, browser_path, arguments.out)
        page.close(verbose=False)
    print(arguments.out)


if __name__ == "__main__":
    main()
