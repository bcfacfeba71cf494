"""The limits and times of the front doors' files are the server's own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ramify.settings import Settings

DEPLOY = Path(__file__).parents[3] / "deploy"
HAPROXY, NGINX = (DEPLOY / name for name in ("haproxy.cfg", "nginx.conf"))


def numbers(path: Path, pattern: str) -> set[float]:
    """Every number that the pattern's group finds."""
    found = {float(number) for number in re.findall(pattern, path.read_text())}
    assert found, pattern
    return found


def test_bodies_and_heads_are_as_large_as_the_servers() -> None:
    settings = Settings()
    body, head = settings.limits.body_bytes, settings.connections.head_bytes
    assert numbers(HAPROXY, r"req\.body_size gt (\d+)") == {body}
    assert numbers(HAPROXY, r"tune\.bufsize (\d+)") == {head + 1024}  # tune.maxrewrite
    assert numbers(NGINX, r"client_max_body_size (\d+);") == {body}
    assert min(numbers(NGINX, r"client_body_buffer_size (\d+);")) > body
    assert numbers(NGINX, r"large_client_header_buffers 4 (\d+)k") == {head / 1024}
    for path in (HAPROXY, NGINX):
        assert numbers(path, r"larger than the (\d+) bytes") == {body}


def test_no_front_door_waits_less_than_the_server() -> None:
    settings = Settings()
    longest = settings.limits.deadline_seconds + settings.spool.wait_seconds
    probe, idle = settings.probe.deadline_seconds, settings.connections.idle_seconds
    assert min(numbers(HAPROXY, r"timeout (?:client|server) (\d+)s")) > longest
    assert min(numbers(HAPROXY, r"timeout check (\d+)s")) > probe
    assert min(numbers(NGINX, r"\n        proxy_read_timeout (\d+)s")) > longest
    assert min(numbers(NGINX, r"\n            proxy_read_timeout (\d+)s")) > probe
    assert (
        max(numbers(NGINX, r"\n        keepalive_timeout (\d+)s")) < idle
    )  # else it might send on a closed one


@pytest.mark.parametrize(
    ("path", "pattern"), [(HAPROXY, r"http-request (\d+)s"), (NGINX, r"header_timeout (\d+)s")]
)
def test_heads_have_as_long_as_the_server_gives_them(path: Path, pattern: str) -> None:
    assert numbers(path, pattern) == {Settings().connections.head_seconds}
