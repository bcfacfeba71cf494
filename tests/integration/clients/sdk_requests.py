"""Requests that the suites of OpenAI's Python SDK share, and looks at the server behind them."""

from __future__ import annotations

import time

import httpx

from server_process import ServerProcess

KEY = "sdk-suite-sdk-suite"
MODEL, PROMPT = "countdown-tiny", "3 5 7 8 to 24\n"
CHAT = [{"role": "user", "content": "3 5 7 8 to 24"}]
SEARCH = {"search": {"budget": {"tokens": 500}}}
ENDLESS = {"search": {"algorithm": "best_of_n", "budget": {"simulations": 10_000, "tokens": 200_000}}}


def metrics(server: ServerProcess) -> str:
    return httpx.get(f"{server.url}/metrics", headers={"Authorization": f"Bearer {KEY}"}).text


def wait_idle(server: ServerProcess, seconds: float = 10) -> None:
    """Wait until nothing runs, neither in the server nor in the policy's engine."""
    until = time.monotonic() + seconds
    names = ("ramify_searches_running", "ramify_completions_running", "ramify_engine_policy_running")
    while True:
        figures = dict(
            line.rsplit(" ", 1) for line in metrics(server).splitlines() if not line.startswith("#")
        )
        if not any(float(figures[name]) for name in names):
            return
        assert time.monotonic() < until, {name: figures[name] for name in names}
        time.sleep(0.02)


def newest(server: ServerProcess) -> dict[str, object]:
    page = httpx.get(f"{server.url}/v1/trees?limit=1", headers={"Authorization": f"Bearer {KEY}"}).json()
    row: dict[str, object] = page["data"][0]
    return row
