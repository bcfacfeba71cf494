"""An HTTP listener: its address, and connections that cannot be held for nothing.

uvicorn bounds neither how many connections are open nor how long a client may take over its request, and asyncio writes
a traceback for every connection that it cannot accept. So 1,010 idle sockets took a server with 1,024 descriptors off
the net and filled its disk. Here

- no more than `ConnectionLimits.open` connections are open. The next one takes the place of those that have waited
  longest without a request; if every connection has a request in progress, it is told 503;
- a connection is closed if its head or its body is late, if it idles, or if its answer is not read;
- a head that is too large is refused with 431 while it arrives, before anything looks at it.

The server's two listeners and the trainer's stand on it, so it knows nothing of either.

Decided 2026-11-28: h11 parses, not httptools, which is not ours to depend on. It bounds heads and says at any time
what it waits for. It costs about 0.2 ms of CPU a request more; a search takes hundreds.
"""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import resource
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import h11
import uvicorn
from pydantic import BaseModel, ConfigDict, Field
from uvicorn.protocols.http.h11_impl import H11Protocol

logger = logging.getLogger(__name__)

HELD_BACK = 256
"""Descriptors kept for what is no connection of the listener: engines, log, files, the admin listener."""
ACCEPTED_AT_ONCE = 64
"""Connections accepted in one turn of the event loop: so many may be open beyond the limit for a moment."""
QUEUE = 1024
"""Connections that the kernel keeps until they are accepted."""
MADE_FREE = 1 / 16
"""Share of the waiting connections that are closed at once to make room."""
ACCEPT_ERRORS_EVERY = 10.0
"""Seconds between two log lines about connections that cannot be accepted."""


class ConnectionLimits(BaseModel):
    """Limits on connections, with a key or without. A connection that takes longer is closed."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    open: int = Field(
        default=2048,
        ge=16,
        le=65_536,
        description="Open connections of the public listener. The next one takes the place of those that have waited "
        "longest without a request; while every one has a request in progress, it gets 503. The admin listener has 64.",
    )
    head_bytes: int = Field(
        default=32_768,
        ge=4096,
        le=1 << 20,
        description="Bytes of a request line and its headers together; more is refused with 431.",
    )
    head_seconds: float = Field(
        default=15.0, gt=0, description="How long a client may take to send them, from its connection on."
    )
    body_seconds: float = Field(
        default=60.0, gt=0, description="How long a client may take to send a body; then 408."
    )
    idle_seconds: int = Field(
        default=65,
        ge=1,
        description="How long a connection may idle after an answer, or leave an answer unread. Proxies and pools "
        "should keep theirs for less.",
    )


class ListenError(Exception):
    """An address cannot be listened on; the message says what to change."""


def bind(host: str, port: int, *, settings: str = "host, port", choose: str = "--port") -> socket.socket:
    """Return a bound socket, on which nobody is answered yet. Raises `ListenError`.

    settings: names of the settings of the address. choose: what sets another port, such as a flag."""
    failure = f"cannot listen on {host}:{port}"
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        reason = error.strerror or error
        raise ListenError(f"{failure}: {reason} (setting: {settings.partition(',')[0]})") from error
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        taken = f"; another program has it: end that one, or choose a free port with {choose} (0 finds one)"
        advice = taken if error.errno == errno.EADDRINUSE else ""
        raise ListenError(f"{failure}: {error.strerror or error}{advice} (settings: {settings})") from error
    return bound


def address_of(listening: socket.socket) -> str:
    """URL at which a client on this machine reaches a bound socket."""
    host, port = listening.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    return f"http://{host}:{port}"


class Listener(uvicorn.Server):
    """uvicorn with limits, and without its signal handling: whoever serves has their own."""

    def __init__(
        self, app: Any, limits: ConnectionLimits, *, grace: int, ready: Callable[[], None] | None = None
    ) -> None:
        """app: the ASGI application. grace: seconds that answers may take to leave once the listener ends. ready:
        called once it listens."""
        super().__init__(_Config(app, limits, grace))
        self.limits = limits
        self._ready = ready

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        _say_seldom_what_is_not_accepted(asyncio.get_running_loop())
        assert isinstance(self.config, _Config)
        self.config.most = room_for(self.limits.open)
        try:
            await super().startup(sockets)
        except OSError as error:  # bound by two programs, and the other was faster to listen
            addresses = ", ".join(map(address_of, sockets or ()))
            raise ListenError(f"cannot listen on {addresses}: {error.strerror or error}") from error
        for listening in sockets or ():
            listening.listen(QUEUE)  # uvicorn gives the kernel the number that asyncio accepts in one turn
        if self.started and self._ready is not None:
            self._ready()

    async def on_tick(self, counter: int) -> bool:
        if counter % 5 == 0:  # twice a second
            now = asyncio.get_running_loop().time()
            for connection in list(self.server_state.connections):
                assert isinstance(connection, Connection)
                connection.look(now)
        return await super().on_tick(counter)


def room_for(wanted: int) -> int:
    """Raise the process's soft limit of descriptors, so that `wanted` connections fit; returns how many do."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + HELD_BACK
    if soft in range(needed):  # and not `RLIM_INFINITY`, which is negative
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft not in range(needed):
        return wanted
    most = max(1, soft - HELD_BACK)
    logger.warning(
        "the hard limit of %d open files leaves room for %d connections of the %d configured (ulimit -Hn)",
        *(soft, most, wanted),
    )
    return most


class _Config(uvicorn.Config):
    def __init__(self, app: Any, limits: ConnectionLimits, grace: int) -> None:
        super().__init__(
            app,
            http=Connection,
            ws="none",
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            backlog=ACCEPTED_AT_ONCE,
            h11_max_incomplete_event_size=limits.head_bytes,
            timeout_keep_alive=limits.idle_seconds,
            timeout_graceful_shutdown=grace,
        )
        self.limits = limits
        self.most = limits.open
        """Connections that may be open; fewer than `limits.open` if the process has too few descriptors."""


class Connection(H11Protocol):
    """One client's connection.

    What it waits for is looked at twice a second rather than timed: a wait goes on if it is for the same thing of the
    same request as the last time.
    """

    config: _Config
    _since = 0.0
    """On the event loop's clock: when the present wait began."""
    _wait: tuple[str, object, int] = ("head", None, 0)
    """The present wait: for `head`, `body`, `reader` or nothing; after which request; bytes not yet sent."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._since = self.loop.time()
        if len(self.connections) >= self.config.most and not self._make_room():
            self.transport = transport
            self._refuse(503, "every connection that this server takes is busy", "too_many_connections")
            return
        super().connection_made(transport)

    def _make_room(self) -> bool:
        """Close those that have waited longest without a request; False if there are none."""
        waiting = [c for c in self.connections if isinstance(c, Connection) and c.unused]
        waiting.sort(key=lambda connection: connection._since)
        for connection in waiting[: 1 + int(len(waiting) * MADE_FREE)]:
            connection.connections.discard(connection)
            connection.transport.close()
        return bool(waiting)

    @property
    def unused(self) -> bool:
        """True while no request is in progress."""
        return self.cycle is None or self.cycle.response_complete

    def data_received(self, data: bytes) -> None:
        while data and not self.transport.is_closing():
            room = len(data)
            if self.conn.their_state is h11.IDLE:  # a head: feed what makes it one byte too long, at most
                room = self.config.limits.head_bytes + 1 - len(self.conn.trailing_data[0])
            super().data_received(data[:room])
            data = data[room:]

    def look(self, now: float) -> None:
        """Close the connection if its client has kept it waiting for too long."""
        wait = self._waits()
        if wait != self._wait:
            self._wait, self._since = wait, now
        kind, limits = wait[0], self.config.limits
        allowed = {"head": limits.head_seconds, "body": limits.body_seconds, "reader": limits.idle_seconds}
        if not kind or now - self._since < allowed[kind]:
            return
        if kind == "reader":
            self.transport.abort()
        elif kind == "head" and not self.conn.trailing_data[0]:
            self.transport.close()  # nothing was asked, so nothing is answered
        else:
            self._refuse(408, f"the request's {kind} took longer than {allowed[kind]:g} s", "too_slow")

    def _waits(self) -> tuple[str, object, int]:
        unsent, cycle = self.transport.get_write_buffer_size(), self.cycle
        if unsent:
            return "reader", cycle, unsent
        if self.conn.their_state is h11.SEND_BODY:
            return "body", cycle, 0
        if self.conn.their_state is h11.IDLE and (cycle is None or self.conn.trailing_data[0]):
            return "head", cycle, 0
        return "", cycle, 0

    def send_400_response(self, msg: str) -> None:
        """uvicorn's answer to what is no HTTP request."""
        most = self.config.limits.head_bytes
        if len(self.conn.trailing_data[0]) > most:
            self._refuse(
                431, f"the request's head is larger than the {most} bytes taken here", "head_too_large"
            )
        else:
            self._refuse(400, msg, "invalid_http")

    def _refuse(self, status: int, message: str, code: str) -> None:
        """Answer what reaches no route, in the shape of every other error, and close."""
        kind = "invalid_request_error" if status < 500 else "server_error"
        error = {"message": message, "type": kind, "param": None, "code": code}
        body = json.dumps({"error": error}).encode()
        headers = [
            ("content-type", "application/json"),
            ("content-length", str(len(body))),
            ("connection", "close"),
        ]
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):  # nothing of another answer was sent
            for event in (
                h11.Response(status_code=status, headers=headers),
                h11.Data(data=body),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        if self.cycle is not None:  # its application is told that the client has left
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()


def _say_seldom_what_is_not_accepted(loop: asyncio.AbstractEventLoop) -> None:
    """asyncio tries to accept again at once, and writes a traceback each time: one line every few seconds will do."""
    said = -ACCEPT_ERRORS_EVERY

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        nonlocal said
        if not str(context.get("message")).startswith("socket.accept()"):
            loop.default_exception_handler(context)
        elif time.monotonic() - said >= ACCEPT_ERRORS_EVERY:
            said = time.monotonic()
            logger.error("connections cannot be accepted: %s", context.get("exception"))

    if loop.get_exception_handler() is None:
        loop.set_exception_handler(handle)
