"""Make docs/images/viewer.png of a real search: start a server, search, open the tree, take a picture.

Run by `make viewer-image`; needs a Chromium (RAMIFY_TEST_CHROMIUM, or one on the path).
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

import httpx
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from server_process import start  # noqa: E402

SEARCH = {
    "prompt": "3 5 7 8 to 24",
    "seed": 11,
    "search": {
        "select": "thompson",
        "grader": "verifier",
        "schedule": "waves",
        "parallel": 4,
        "budget": {"simulations": 20},
    },
}


def main() -> None:
    chromium = os.environ.get("RAMIFY_TEST_CHROMIUM") or shutil.which("chromium")
    server = start(Path(tempfile.mkdtemp()), [])
    try:
        tree = (
            httpx.post(f"{server.url}/v1/search", json=SEARCH, timeout=120).raise_for_status().json()["tree"]
        )
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1440, "height": 860})
            page.goto(server.url + tree["url"])
            page.locator(".panel h2").wait_for()
            page.wait_for_load_state("networkidle")
            page.screenshot(path=ROOT / "docs" / "images" / "viewer.png")
            browser.close()
    finally:
        server.stop()


if __name__ == "__main__":
    main()
