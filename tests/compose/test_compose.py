"""`docker compose up`, for real: build, both healthy, a search from outside, a round served, and all of it kept."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from .conftest import BUILD_SECONDS, DOWN_SECONDS, ROOT, UP_SECONDS, Stack, free_port, say, until

pytestmark = [pytest.mark.compose, pytest.mark.timeout(5400)]
ROUND_SECONDS = 900
STATE = "/var/lib/ramify/training/state.json"
SMALLER = {
    "problems = 150": "problems = 24",
    "problems = 200": "problems = 24\nmargin = 1.0\ngreedy_margin = 1.0\nvalue_margin = 1.0",
    'host = "0.0.0.0"': 'host = "0.0.0.0"\npause_seconds = 3600',
}
"""One small round whose candidate passes the gate whatever it can do: that it is served is what is tested."""


def trainer_config(folder: Path) -> Path:
    text = (ROOT / "docker/trainer.toml").read_text()
    for old, new in SMALLER.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    (folder / "trainer.toml").write_text(text)
    return folder / "trainer.toml"


class Api:
    """The server as people reach it."""

    def __init__(self, stack: Stack, url: str) -> None:
        key = stack.inside("server", "cat", "/run/secrets/api_key").strip()
        self.http = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=120)

    def __enter__(self) -> Api:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def get(self, path: str) -> Any:
        reply = self.http.get(path)
        assert reply.status_code == 200, reply.text
        return reply.json()

    def search(self, prompt: str) -> Any:
        search = {"algorithm": "mcts", "budget": {"tokens": 500}}
        reply = self.http.post("/v1/search", json={"prompt": prompt, "search": search})
        assert reply.status_code == 200, reply.text
        return reply.json()


def healthy(stack: Stack) -> bool:
    return all(stack.health(service) == "healthy" for service in ("server", "trainer"))


def state_of(stack: Stack) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(stack.inside("trainer", "cat", STATE))
    return found


def first_round(stack: Stack) -> dict[str, Any] | None:
    """The record of the first round once it has ended."""
    history = state_of(stack)["history"]
    return history[0] if history else None


def test_the_loop_runs_in_containers_and_survives_down_and_up(
    stack: Callable[..., Stack], tmp_path: Path
) -> None:
    port = free_port()
    loop = stack(RAMIFY_PUBLISH=f"127.0.0.1:{port}", RAMIFY_TRAINER_CONFIG=str(trainer_config(tmp_path)))
    url = f"http://127.0.0.1:{port}"
    loop.shown("build", seconds=BUILD_SECONDS)
    loop.shown("up", "-d", seconds=UP_SECONDS)
    until(lambda: healthy(loop), 120, "server and trainer are healthy")
    with Api(loop, url) as api:
        say("both healthy; searching from outside")
        assert httpx.post(f"{url}/v1/search", json={"prompt": "3 5 7 8 to 24"}).status_code == 401
        answer = api.search("3 5 7 8 to 24")
        assert answer["status"] == "complete"
        assert answer["answer"]["text"]
        assert "<html" in httpx.get(url).text
        tree = api.get(answer["tree"]["url"].replace("/trees/", "/v1/trees/"))

        as_they_should_be(loop)
        say("waiting for the first round")
        record = until(lambda: first_round(loop), ROUND_SECONDS, "the first round has ended")
        say(f"round 1: {record['reason']}")
        assert record["promoted"], record
        served = api.get("/version")["release"]
        assert served == record["release"]
        assert api.search("2 4 6 9 to 13")["release"] == served
        every_figure_on_the_dashboard_is_served(loop, url)
        before = state_of(loop)

        loop.shown("down", seconds=DOWN_SECONDS)
        loop.shown("up", "-d", seconds=UP_SECONDS)
        until(lambda: healthy(loop), 120, "server and trainer are healthy again")
        assert api.get("/version")["release"] == served
        assert api.get(answer["tree"]["url"].replace("/trees/", "/v1/trees/")) == tree
        after = state_of(loop)
        assert (after["history"], after["incumbent"]) == (before["history"], served)
        assert api.search("2 4 6 9 to 13")["release"] == served
        say("log, release and trainer are where they were")


def as_they_should_be(loop: Stack) -> None:
    """Not root, weights read-only in the server, the admin listener unpublished, no secret among the variables."""
    for service in ("server", "trainer"):
        assert loop.inside(service, "id", "-u").strip() == "10001"
        secrets = loop.inside(service, "cat", "/run/secrets/api_key", "/run/secrets/admin_key").split()
        assert not [secret for secret in secrets if secret in loop.inside(service, "env")]
    assert "Read-only file system" in loop.inside("server", "touch", "/var/lib/ramify/weights/x", check=False)
    inspected = loop.run("ps", "server", seconds=60).stdout
    assert "8000/tcp" in inspected
    assert "8001->" not in inspected


def every_figure_on_the_dashboard_is_served(loop: Stack, url: str) -> None:
    ask = (
        "from urllib.request import urlopen; print(urlopen('http://127.0.0.1:8002/metrics').read().decode())"
    )
    served = httpx.get(f"{url}/metrics").text + loop.inside("trainer", "python", "-c", ask)
    dashboard = (ROOT / "docker/grafana/dashboards/ramify.json").read_text()
    for name in sorted(set(re.findall(r"\bramify_\w+", dashboard))):
        if name.startswith("ramify_engine_value_"):
            continue  # of a value model, which the shipped release has none of
        family = re.sub(r"_bucket$", "", name)
        assert re.search(rf"^# TYPE {family}(_total)? ", served, re.MULTILINE), name


def test_placeholder_secrets_are_refused_before_anything_starts(
    stack: Callable[..., Stack], tmp_path: Path
) -> None:
    tmp_path.chmod(0o777)
    (tmp_path / "admin_key").write_text("change-me-change-me")
    refused = stack(RAMIFY_SECRETS=str(tmp_path), RAMIFY_PUBLISH=f"127.0.0.1:{free_port()}")
    done = refused.run("up", "-d", "--build", seconds=BUILD_SECONDS, check=False)
    assert done.returncode != 0
    assert "admin_key: this is a placeholder" in refused.logs("secrets")
    assert "delete the file admin_key and start again" in refused.logs("secrets")
    assert refused.health("server") in ("none", "starting")
    assert refused.run("exec", "-T", "server", "true", seconds=60, check=False).returncode != 0
