"""/livez, /readyz and /metrics: three GETs without bodies, for probes and scrapers. They hold no secrets."""

from __future__ import annotations

import json
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from ramify.connections import ConnectionLimits
from ramify_trainer.errors import TrainerError
from ramify_trainer.service.health import Health
from ramify_trainer.service.metrics import Metrics

LIMITS = ConnectionLimits(open=32, head_bytes=8 << 10, head_seconds=5, body_seconds=5, idle_seconds=5)
"""Enough for a prober, and no more."""
GRACE = 1
"""Seconds that answers may take to leave when the trainer ends."""
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
Message = MutableMapping[str, Any]
Reply = tuple[int, str, bytes]


class Routes:
    """The ASGI application."""

    def __init__(self, health: Health, metrics: Metrics) -> None:
        self.health, self.metrics = health, metrics

    async def __call__(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        if scope["type"] != "http":
            return
        status, kind, body = self.answer(scope["method"], scope["path"])
        headers = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())]
        headers += [(b"cache-control", b"no-store"), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    def answer(self, method: str, path: str) -> Reply:
        """Status, content type and body."""
        if path not in ("/livez", "/readyz", "/metrics"):
            return _json(404, {"error": "there are /livez, /readyz and /metrics"})
        if method not in ("GET", "HEAD"):
            return _json(405, {"error": "GET only"})
        if path == "/livez":
            return _json(200, {"live": True})
        if path == "/metrics":
            return 200, METRICS_TYPE, self.metrics.text()
        return _json(200 if self.health.reason is None else 503, self.health.report())


def _json(status: int, content: object) -> Reply:
    return status, "application/json", json.dumps(content).encode() + b"\n"


def bind(host: str, port: int) -> socket.socket:
    """A bound socket. Raises `TrainerError`."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise TrainerError(f"service.host: cannot listen on {host}: {error.strerror or error}") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise TrainerError(
            f"service.host, service.port: cannot listen on {host}:{port}: {error.strerror or error}"
        ) from error
    return listener


def address_of(listener: socket.socket) -> str:
    """Where it is reached on this machine."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    return f"http://{host}:{port}"
