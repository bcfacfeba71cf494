"""`python s3_process.py HOST PORT JOURNAL`: moto's S3 server, which after kill -9 has all that it had acknowledged.

Moto keeps objects in memory. What changes them is written to the journal before it is answered, and done again at the
next start, before anybody is listened to.
"""

from __future__ import annotations

import base64
import io
import json
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from moto.server import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import run_simple
from werkzeug.test import run_wsgi_app

Environ = dict[str, Any]


class Journal:
    """A WSGI application that writes down what changes another one."""

    def __init__(self, application: Any, path: Path) -> None:
        self.application = application
        self._changing = threading.Lock()
        """Changes happen in the order in which they are written down."""
        self._replay(path)
        self._file = path.open("ab", buffering=0)

    def _replay(self, path: Path) -> None:
        if not path.exists():
            return
        *whole, rest = path.read_bytes().split(b"\n")
        if rest:  # it was killed as it wrote, and had not answered
            path.write_bytes(b"".join(line + b"\n" for line in whole))
        for line in whole:
            change = json.loads(line)
            self._run({**change["environ"], "wsgi.url_scheme": "http"}, base64.b64decode(change["body"]))

    def _run(self, environ: Environ, body: bytes) -> tuple[Iterable[bytes], str, Any]:
        given = {"wsgi.input": io.BytesIO(body), "wsgi.errors": sys.stderr, "wsgi.multithread": True}
        return run_wsgi_app(self.application, {**environ, **given}, buffered=True)

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] in ("GET", "HEAD"):
            found: Iterable[bytes] = self.application(environ, start_response)
            return found
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        with self._changing:
            answer, status, headers = self._run(environ, body)
            if status.startswith("2"):
                self._write(environ, body)
        start_response(status, list(headers))
        return answer

    def _write(self, environ: Environ, body: bytes) -> None:
        kept = {name: value for name, value in environ.items() if isinstance(value, str)}
        line = json.dumps({"environ": kept, "body": base64.b64encode(body).decode()})
        self._file.write(line.encode() + b"\n")


def main(host: str, port: str, path: str) -> None:
    application = Journal(DomainDispatcherApplication(create_backend_app), Path(path))
    run_simple(host, int(port), application, threaded=True, request_handler=MotoRequestHandler)


if __name__ == "__main__":
    main(*sys.argv[1:])
