"""Where the front door leads: its configuration held to deploy/haproxy.cfg, and a real HAProxy told of replicas."""

from __future__ import annotations

import re
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import pytest

from fake_process import free_port
from front_doors import program, until
from ramify.cluster.door import Place, changes, configuration, passed_over, places, tell
from ramify.cluster.file import DoorTable
from ramify.fleet import Epoch, Replica, View
from ramify.settings import Settings

DEPLOY = Path(__file__).parents[3] / "deploy" / "haproxy.cfg"
OTHERWISE = (
    "default-server init-addr",
    "resolvers",
    "parse-resolv-conf",
    "# bind",
    "http-request set-header x-forwarded-proto",
    "http-request set-var(txn.owner)",
    "use_backend sessions if",
    "balance hash req.hdr",
    "timeout client",
    "timeout server",
    "tune.bufsize",
    "bind :8080",
    "server replica-",
)
"""Lines of deploy/haproxy.cfg that the fleet's door has in another form, or without use."""


def rules(text: str) -> set[str]:
    lines = (line.split(" # ")[0].strip() for line in text.splitlines())
    return {line for line in lines if line and not line.startswith(("#", *OTHERWISE))}


def test_it_has_every_rule_of_deploys_file() -> None:
    shipped = rules(DEPLOY.read_text())
    assert len(shipped) > 30
    assert shipped <= rules(configuration(DoorTable(), Settings(), Path("/tmp/socket")))


def epoch() -> Epoch:
    return Epoch(1, "v000001", "c", "committed", "rolling", "activate", "", "a", 0.5, 1.0, 0.0, 9.0)


def row(name: str, number: int | None, seen: float, started: float = 0.0) -> Replica:
    address = f"http://127.0.0.1:{name}" if name.isdigit() else name
    return Replica(name, address, "1", started, 10.0, seen_at=seen, number=number, admin=None)


def test_it_leads_to_the_live_replicas_that_have_a_number() -> None:
    rows = [
        row("10", 1, 95),
        row("20", 2, 50),
        row("21", None, 99),
        row("30", 3, 99),
        row("31", 3, 99, 9),
    ]
    view = View(100.0, {one.id: one for one in rows}, epoch(), epoch(), seen=99.0)
    assert places(view) == {1: Place("http://127.0.0.1:10", None), 3: Place("http://127.0.0.1:31", None)}


def test_it_leads_to_no_address_that_haproxy_would_not_take_and_says_which() -> None:
    wrong = [
        "10.0.0.5",
        "http://10.0.0.5",
        "http://10.0.0.5:99999",
        "http://a.b:8000",
        "http://[::1",
        "x; show info",
    ]
    rows = [row(name, number, 99) for number, name in enumerate(["80", *wrong])]
    view = View(100.0, {one.id: one for one in rows}, epoch(), epoch(), seen=99.0)
    assert places(view) == {0: Place("http://127.0.0.1:80", None)}
    assert passed_over(view) == sorted(wrong)


def test_what_has_not_changed_is_left_alone_and_a_number_taken_again_is_closed_first() -> None:
    one, two, three = (Place(f"http://127.0.0.1:{port}", None) for port in (1, 2, 3))
    assert changes({0: one}, {0: one}) == []
    closed, opened = changes({0: one, 1: two, 2: one}, {0: one, 1: three, 2: one})
    assert closed == [
        f"set server {name}/replica-01 state maint" for name in ("servers", "owner", "operators")
    ]
    assert opened[0] == "set server servers/replica-01 addr 127.0.0.1 port 3"
    assert opened.index("set server servers/replica-01 health down") < opened.index(
        "set server servers/replica-01 state ready"
    )


@dataclass
class Named:
    """A server that answers with its name, and notes what it was asked, but for its health."""

    name: str
    ready: bool = True
    asked: list[str] = field(default_factory=list)
    url: str = ""


@contextmanager
def named(name: str, *, ready: bool = True) -> Iterator[Named]:
    me = Named(name, ready)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            health = self.path == "/readyz"
            if not health:
                me.asked.append(self.path)
            self.send_response(503 if health and not me.ready else 200)
            self.send_header("content-length", str(len(name)))
            self.end_headers()
            self.wfile.write(name.encode())

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """HAProxy breaks off once it has read whether a server is ready."""

    with Server(("127.0.0.1", 0), Handler) as server:
        me.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield me
        server.shutdown()


@dataclass
class Running:
    """A door with nobody behind it until it is told."""

    http: httpx.Client
    admin: httpx.Client
    socket: Path
    told: dict[int, Place] = field(default_factory=dict)

    async def lead(self, to: Mapping[int, Place]) -> None:
        for commands in changes(self.told, to):
            said = await tell(self.socket, commands)
            assert not re.search("unknown|invalid|no such|require", said, re.IGNORECASE), said
        self.told = dict(to)

    def who(self, path: str = "/v1/search", **request: object) -> str:
        return self.http.request("POST", path, **request).text  # type: ignore[arg-type]


@pytest.fixture
def door() -> Iterator[Running]:
    table = DoorTable(
        port=free_port(), admin_port=free_port(), metrics_port=free_port(), prompt_head=16,
        session_headers=("x-session-id", "x-correlation-id"),
    )  # fmt: skip
    with TemporaryDirectory(prefix="ramify-door-", dir="/tmp") as folder:
        socket, path = Path(folder, "sock"), Path(folder, "haproxy.cfg")
        path.write_text(configuration(table, Settings(), socket))
        with (
            (Path(folder) / "log").open("wb") as log,
            subprocess.Popen(
                [program("haproxy"), "-db", "-q", "-f", str(path)], stdout=log, stderr=log
            ) as process,
            httpx.Client(base_url=f"http://127.0.0.1:{table.port}", timeout=30) as http,
            httpx.Client(base_url=f"http://127.0.0.1:{table.admin_port}", timeout=30) as admin,
        ):
            try:
                until(lambda: socket.exists() or process.poll() is not None, "HAProxy runs")
                assert process.poll() is None, Path(folder, "log").read_text()
                yield Running(http, admin, socket)
            finally:
                process.terminate()
                process.wait(30)


def _completion(number: int, end: str) -> dict[str, object]:
    return {"prompt": f"{number} 5 7 8 to 24 and so on {end}"}


def _chat(number: int, end: str) -> dict[str, object]:
    asked = {"role": "user", "content": f"{number} is what? and {end}"}
    return {"messages": [{"role": "system", "content": "be short"}, asked]}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.anyio
async def test_requests_go_by_owner_session_and_prompt_and_never_to_one_that_was_not_seen_ready(
    door: Running,
) -> None:
    with named("zero") as zero, named("nine") as nine, named("late", ready=False) as late:
        assert door.http.get("/v1/models").status_code == 503
        await door.lead({0: Place(zero.url, None), 9: Place(nine.url, nine.url), 200: Place(late.url, None)})
        for _ in range(8):  # at once: `late` has not been asked whether it is ready
            door.who()
        until(lambda: {door.who() for _ in range(6)} == {"zero", "nine"}, "both get traffic")
        for name in ("x-session-id", "x-correlation-id"):
            by_session = [{door.who(headers={name: str(i)}) for _ in range(3)} for i in range(8)]
            assert all(len(found) == 1 for found in by_session)
            assert set.union(*by_session) == {"zero", "nine"}
        for body in (_completion, _chat):
            by_prompt = [{door.who(json=body(i, end)) for end in "abc"} for i in range(10, 22)]
            assert all(len(found) == 1 for found in by_prompt)
            assert set.union(*by_prompt) == {"zero", "nine"}
        for number, owner in ((0, "zero"), (9, "nine")):
            for path in (
                f"/v1/search/srch_{'0' * 30}{number:02x}",
                f"/v1/completions/cmpl-{'a' * 30}{number:02x}/cancel",
            ):
                assert {door.who(path) for _ in range(3)} == {owner}
        assert door.http.get("/admin/releases").status_code == door.http.get("/metrics").status_code == 404
        assert door.admin.get("/admin/fleet").text == "nine"
        assert late.asked == []
        assert door.who(f"/v1/search/srch_{'0' * 30}07") in (
            "zero",
            "nine",
            "late",
        )  # whoever: it is in the log
        late.ready = True
        until(lambda: "late" in {door.who() for _ in range(6)}, "it was seen ready")
        nine.ready = False
        await door.lead({9: Place(nine.url, None), 200: Place(late.url, None)})
        until(lambda: {door.who() for _ in range(6)} == {"late"}, "one has gone and one is not ready")
        assert {door.who(f"/v1/search/srch_{'0' * 30}09") for _ in range(3)} == {"nine"}  # it drains
