"""A real server on vLLM with API keys, and a real Chromium. `make test-browser` runs what is here."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, sync_playwright

from ramify.treelog import TreeLog
from server_process import ServerProcess, model_flags, start
from treelog_trees import make_tree

KEY = "viewer-viewer-viewer"
HOSTILE = "<img src=x onerror=\"document.title='pwned'\"><script>document.title='pwned'</script>"
CONFIG = f"""
[[auth.keys]]
name = "viewer"
key = "{KEY}"
scopes = ["search", "log", "feedback"]
"""


def chromium() -> str:
    """The browser: RAMIFY_TEST_CHROMIUM, or the one on the path."""
    found = (
        os.environ.get("RAMIFY_TEST_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    )
    if found is None:
        pytest.fail("no Chromium: install one (Debian: apt-get install chromium) or set RAMIFY_TEST_CHROMIUM")
    return found


async def seed(url: str) -> str:
    """A log with history: a tree whose texts are hostile (its id is returned), and a few rounds of training."""
    log = await TreeLog.open(url)
    tree = make_tree(5, prompt=f"{HOSTILE}\n")
    for node in tree.nodes[1:]:
        node.text = f"{HOSTILE} {node.id}\n"
    await log.append(tree, "viewer")
    gates = {"v000001": 0.41, "v000002": 0.47, "v000003": 0.52, "v000004": 0.44}
    for release, greedy in gates.items():
        gate = {
            "greedy": {"mean": greedy, "low": greedy - 0.03, "high": greedy + 0.03},
            "mean_at_8": greedy - 0.14,
        }
        await log.record_release(release, "rejected" if release == "v000004" else "promoted", {"gate": gate})
    for release in ("v000001", "v000002", "v000003"):
        await log.activate(release, "")
    await log.activate("v000001", "values looked wrong on dev", "rollback")
    await log.close()
    return tree.id


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The server's folder, its log seeded; and the id of the tree with hostile texts."""
    folder = tmp_path_factory.mktemp("viewer")
    (folder / "ramify.toml").write_text(CONFIG)
    return folder, asyncio.run(seed(f"sqlite:///{folder}/trees.db"))


@pytest.fixture(scope="session")
def server(hostile: tuple[Path, str]) -> Iterator[ServerProcess]:
    folder, _ = hostile
    running = start(folder, model_flags(folder), "--config", str(folder / "ramify.toml"), "--admin-port", "0")
    yield running
    running.stop()


@pytest.fixture(scope="session")
def api(server: ServerProcess) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {KEY}"}
    with httpx.Client(base_url=server.url, headers=headers, timeout=300) as client:
        yield client


@pytest.fixture(scope="session")
def large(api: httpx.Client) -> str:
    """The id of a searched tree of about 2,000 nodes."""
    budget = {"simulations": 10_000, "nodes": 2000}
    search = {"select": "thompson", "budget": budget, "parallel": 32}
    hot = {"temperature": 1.6}  # more different answers than a cooler policy writes
    ask = {"prompt": "2 3 5 7 9 11 to 61", "search": search, "sampling": hot, "seed": 1}
    reply = api.post("/v1/search", json=ask).json()
    assert reply["usage"]["nodes"] >= 1800, reply
    found: str = reply["tree"]["id"]
    return found


@pytest.fixture(scope="session")
def small(api: httpx.Client) -> str:
    """The id of a small tree, judged by the verifier."""
    judged = {"grader": "verifier", "early_stop": "off"}
    search = {"select": "thompson", "abandon": False, **judged, "budget": {"simulations": 12}}
    reply = api.post("/v1/search", json={"prompt": "3 5 7 8 to 24", "search": search, "seed": 5}).json()
    found: str = reply["tree"]["id"]
    return found


@pytest.fixture(scope="session")
def browser(server: ServerProcess) -> Iterator[Browser]:
    # After the server, whose log is seeded by an event loop of its own: playwright keeps one running from here on.
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def context(browser: Browser, server: ServerProcess) -> Iterator[BrowserContext]:
    made = browser.new_context(viewport={"width": 1440, "height": 900}, base_url=server.url)
    made.set_default_timeout(30_000)
    yield made
    made.close()


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """A page that has the API key; whatever it writes to the console as an error, or throws, fails the test."""
    context.add_init_script(f"sessionStorage.setItem('ramify.key', '{KEY}')")
    opened = context.new_page()
    wrong = watch(opened)
    yield opened
    assert wrong == []


def watch(page: Page) -> list[str]:
    """The errors of a page, as they come."""
    wrong: list[str] = []

    def said(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            wrong.append(f"{message.type}: {message.text} {message.location}")

    page.on("console", said)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    return wrong
