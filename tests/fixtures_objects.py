"""An S3 server of the tests' own: moto's, in a process of its own, reached through a doorway that can be shut.

Import `s3_server` into a conftest to use it. Moto keeps its objects in memory, so a test that wants the server to die
and come back with them shuts the doorway: connections break in the middle, and new ones are refused.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from ramify.objects import ObjectOptions

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "secret-of-the-tests",
    "AWS_REGION": "us-east-1",
}
CONNECT_TRIES = 10
"""While a server begins to listen: 0.5 s after the first, then doubling."""


def make_bucket(endpoint: str) -> str:
    """Make a bucket on a server; its URL, with a prefix."""
    name = f"ramify-{uuid.uuid4().hex[:12]}"
    assert httpx.put(f"{endpoint}/{name}", timeout=60).status_code == 200
    return f"s3://{name}/some/prefix"


class Doorway:
    """Forwards connections to a port of this machine, while it is open."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._sockets: set[socket.socket] = set()
        self.port = 0
        self.open()

    def open(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def shut(self) -> None:
        """Break every connection, and refuse new ones until it is opened again."""
        for one in (self._listener, *self._sockets):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._sockets.clear()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
                self._sockets |= {near, far}
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._forward, args=(one, other), daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
        for one in (source, target):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
            self._sockets.discard(one)


class S3Server:
    """A running server."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self._process = process
        self.doorway = Doorway(port)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.doorway.port}"

    def bucket(self) -> str:
        """Make a bucket; its URL, with a prefix."""
        return make_bucket(self.endpoint)

    def options(self, **fields: object) -> ObjectOptions:
        return ObjectOptions.model_validate({"endpoint": self.endpoint, "seconds": 30.0, **fields})

    def hang(self) -> None:
        """Take connections, and answer nothing."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._process.send_signal(signal.SIGCONT)


@dataclass
class LastingS3:
    """An S3 server that can be killed, and started again with all that it had acknowledged: see `s3_process`."""

    folder: Path
    host: str
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"http://{self.host}:{self.port}"

    def start(self) -> None:
        """Return once it answers."""
        program = Path(__file__).with_name("s3_process.py")
        command = [sys.executable, str(program), self.host, str(self.port), str(self.folder / "s3.journal")]
        with (self.folder / "s3.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        with httpx.Client(transport=httpx.HTTPTransport(retries=CONNECT_TRIES), timeout=60) as http:
            http.get(self.endpoint)

    def bucket(self) -> str:
        """Make a bucket; its URL, with a prefix."""
        return make_bucket(self.endpoint)

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()


@contextmanager
def a_lasting_s3(folder: Path, host: str, port: int) -> Iterator[LastingS3]:
    """A running server, which ends with the block. folder: where it keeps what it has."""
    server = LastingS3(folder, host, port)
    try:
        server.start()
        yield server
    finally:
        server.kill()


@contextmanager
def an_s3_server() -> Iterator[S3Server]:
    """A running server, which ends with the block; its credentials are in the environment meanwhile."""
    command = [sys.executable, "-u", "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    with (
        pytest.MonkeyPatch.context() as patched,
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process,
    ):
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patched.delenv(name)
        for name, value in CREDENTIALS.items():
            patched.setenv(name, value)
        assert process.stderr is not None
        port = next(
            int(found[1]) for line in process.stderr if (found := re.search(r"127\.0\.0\.1:(\d+)", line))
        )
        threading.Thread(target=process.stderr.read, daemon=True).start()
        server = S3Server(process, port)
        try:
            yield server
        finally:
            server.go_on()
            server.doorway.shut()
            process.kill()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    with an_s3_server() as server:
        yield server
