"""Ten times what a server can do, in two seconds and on fake engines; `make overload-test` asks a real one."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from load_clients import Load, figure, owners, quiet

from .world import KEYS, a_world, over_network

pytestmark = pytest.mark.anyio
SEARCHES = 3


async def test_overload_loses_no_search_and_starves_no_key(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"auth": {"keys": KEYS}, "admission": {"searches": SEARCHES, "queue": 6}}
    body = {"prompt": "?\n", "stream": True, "search": {"budget": {"simulations": 40, "tokens": 2000}}}
    keys = {key["name"]: key["key"] for key in KEYS}
    async with a_world(tmp_path, **settings) as world, over_network(world) as http:
        load = Load(str(http.base_url), body, keys, leave_after=0.5, pause=0.2)
        await load.run({"bob": 6, "alice": SEARCHES * 10 - 6}, 2.0, random.Random(9))
        metrics = await quiet(http, 20)
        logged = await owners(world.log)
    shares = Counter(logged.values())
    print(f"\n{load.table()}\nlogged {dict(shares)}")
    assert {status for _, status in load.statuses} <= {200, 429, 503}
    assert all(figure(metrics, f"ramify_searches_{name}") == 0 for name in ("running", "waiting"))
    assert figure(metrics, "ramify_reserved_tokens") == 0
    assert len(logged) == figure(metrics, "ramify_admission_wait_seconds_count")
    assert load.started <= set(logged)
    assert 2 * shares["bob"] + SEARCHES >= shares["alice"], (
        "a few clients of one key are not starved by many of another"
    )
