"""Real front doors before two real servers: streams, owners, keys, idempotency, limits, drains and deaths."""

from __future__ import annotations

import json
import ssl
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from fake_process import FakeServer, fake_server, free_port
from front_doors import running, until

from .conftest import ALICE, BOB, LONG, READER, Door, Fleet

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(600)]
LARGEST_BODY = 1_048_576
BOTH = (0, 1)


class Stream:
    """The events of a search, as they come."""

    def __init__(self, reply: httpx.Response) -> None:
        self.replica = int(reply.headers["x-ramify-replica"])
        self.id = reply.headers["x-ramify-search-id"]
        self._lines = reply.iter_lines()

    def next(self) -> tuple[str, Any]:
        """The next event: its name and its data."""
        name = ""
        for line in self._lines:
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            if line.startswith("data: "):
                return name, json.loads(line.removeprefix("data: "))
        raise AssertionError("the stream has ended")

    def last(self) -> tuple[str, Any]:
        """The event that ends the search."""
        while (event := self.next())[0] in ("search.started", "search.progress"):
            pass
        return event


@contextmanager
def streamed(door: Door, **headers: str) -> Iterator[Stream]:
    """A search that has started and runs until it is ended."""
    body = {"prompt": "?\n", "search": LONG, "stream": True}
    with door.http.stream("POST", "/v1/search", json=body, headers=headers) as reply:
        assert reply.status_code == 200, reply.read()
        assert reply.headers["content-type"].startswith("text/event-stream")
        stream = Stream(reply)
        assert stream.next()[0] == "search.started"
        yield stream


def trees(door: Door, **filters: str) -> list[dict[str, Any]]:
    """The newest trees of the log."""
    reply = door.http.get("/v1/trees", params=filters, headers={"Authorization": f"Bearer {READER}"})
    assert reply.status_code == 200, reply.text
    found: list[dict[str, Any]] = reply.json()["data"]
    return found


def metrics(server: FakeServer) -> str:
    return httpx.get(f"{server.url}/metrics").text


def error_of(reply: httpx.Response) -> tuple[int, str]:
    assert reply.headers["content-type"].startswith("application/json")
    return reply.status_code, reply.json()["error"]["code"]


@pytest.mark.parametrize("replica", BOTH)
def test_events_arrive_while_the_search_runs_and_its_id_leads_to_its_owner(door: Door, replica: int) -> None:
    with streamed(door, **door.session(replica)) as stream:
        assert stream.replica == replica
        assert int(stream.id[-2:], 16) == replica
        name, progress = stream.next()
        assert name == "search.progress"
        assert progress["simulations"] > 0
        for _ in range(4):
            state = door.http.get(f"/v1/search/{stream.id}")
            assert (state.status_code, state.json()["status"]) == (200, "running")
        assert door.http.post(f"/v1/search/{stream.id}/cancel").json()["status"] == "cancelled"
        name, done = stream.last()
        assert (name, done["status"], done["id"]) == ("search.completed", "cancelled", stream.id)


@pytest.mark.parametrize("replica", BOTH)
def test_batches_are_cancelled_at_their_owner(door: Door, replica: int) -> None:
    body = {"prompts": [{"prompt": "?\n"}], "budget": {"tokens": 100_000}, "stream": True}
    with door.http.stream("POST", "/v1/search/batch", json=body, headers=door.session(replica)) as reply:
        lines = reply.iter_lines()
        started = next(json.loads(line[6:]) for line in lines if line.startswith("data: "))
        cancelled = door.http.post(f"/v1/search/batch/{started['id']}/cancel")
        assert cancelled.status_code == 200, cancelled.text
        assert any("batch.completed" in line for line in lines)


@pytest.mark.parametrize("replica", BOTH)
def test_plain_completions_are_cancelled_at_their_owner(door: Door, replica: int) -> None:
    body = {"prompt": "?\n", "max_tokens": 8, "stream": True}
    with door.http.stream("POST", "/v1/completions", json=body, headers=door.session(replica)) as reply:
        first = next(json.loads(line[6:]) for line in reply.iter_lines() if line.startswith("data: "))
    asked = door.http.post(f"/v1/completions/{first['id']}/cancel")
    assert asked.headers["x-ramify-replica"] == str(replica)


def test_a_client_that_leaves_ends_its_search(door: Door) -> None:
    with streamed(door) as stream:
        pass
    until(
        lambda: trees(door, id=stream.id.replace("srch", "tree")), "the search of a broken stream is logged"
    )
    assert door.http.get(f"/v1/search/{stream.id}").json()["stop_reason"] == "disconnect"
    newest = trees(door)[0]["id"]
    with pytest.raises(httpx.ReadTimeout):
        door.http.post("/v1/search", json={"prompt": "?\n", "search": LONG}, timeout=1)
    until(lambda: trees(door)[0]["id"] != newest, "the search of an unanswered request is logged")
    assert door.http.get(f"/v1/search/{trees(door)[0]['id']}").json()["stop_reason"] == "disconnect"


def test_a_repeated_request_is_one_search_whichever_server_it_reaches(door: Door) -> None:
    first, second = (door.session(replica) for replica in BOTH)
    key = {"Idempotency-Key": str(uuid.uuid4())}
    one, again = door.search(headers=first | key), door.search(headers=second | key)
    assert (one.headers["x-ramify-replica"], again.headers["x-ramify-replica"]) == ("0", "1")
    assert one.status_code == 200
    assert again.json() == one.json()
    other = door.search(headers=second | key, seed=7)
    assert error_of(other) == (422, "idempotency_key_reused")
    key = {"Idempotency-Key": str(uuid.uuid4())}
    with streamed(door, **first, **key) as stream:
        body = {"prompt": "?\n", "search": LONG, "stream": True}
        busy = door.http.post("/v1/search", json=body, headers=second | key)
        assert error_of(busy) == (409, "conflict")
        door.http.post(f"/v1/search/{stream.id}/cancel")


def test_keys_are_enforced_behind_it(door: Door) -> None:
    refused = httpx.post(f"{door.front.url}/v1/search", json={"prompt": "?\n"})
    assert error_of(refused) == (401, "invalid_api_key")
    own = door.search().json()["id"]
    assert door.http.get(f"/v1/search/{own}").status_code == 200
    others = door.http.get(f"/v1/search/{own}", headers={"Authorization": f"Bearer {BOB}"})
    assert error_of(others) == (404, "not_found")


@pytest.mark.parametrize(
    "path",
    [
        *("/admin", "/admin/releases", "/admin/drain", "/%61dmin", "/metrics", "/%6detrics", "/m%65trics"),
        *("//metrics", "/%2Fmetrics", "/METRICS", "/%256detrics"),
    ],
)
def test_nothing_for_operators_is_reached_from_outside(door: Door, path: str) -> None:
    url = f"{door.front.url}{path}"
    assert error_of(door.http.get(url)) == (404, "unknown_route")
    assert error_of(door.http.post(url, json={})) == (404, "unknown_route")


def test_bodies_are_taken_up_to_the_servers_own_limit(door: Door) -> None:
    fixed = len(json.dumps({"prompt": ""}))
    largest = json.dumps({"prompt": "x" * (LARGEST_BODY - fixed)}).encode()
    json_body = {"Content-Type": "application/json"}
    assert len(largest) == LARGEST_BODY
    taken = door.http.post("/v1/search", content=largest, headers=json_body)
    assert error_of(taken) == (400, "invalid_value")  # its prompt is too long, said by the server
    refused = door.http.post("/v1/search", content=largest + b" ", headers=json_body)
    assert error_of(refused) == (413, "body_too_large")
    pieces = (largest[i : i + 65_536] for i in range(0, LARGEST_BODY, 65_536))

    def longer() -> Iterator[bytes]:
        yield from pieces
        yield b" "

    chunked = door.http.post("/v1/search", content=longer(), headers=json_body)
    assert error_of(chunked) == (413, "body_too_large")


def test_requests_keep_their_id_and_the_log_tells_who_asked_and_no_secret(door: Door) -> None:
    asked = f"asked-{uuid.uuid4().hex}"
    reply = door.http.get("/v1/trees?text=a-private-word", headers={"x-request-id": asked})
    assert reply.headers["x-request-id"] == asked
    given = door.search(headers={"Idempotency-Key": "a-private-key"}).headers["x-request-id"]
    assert given

    def written() -> str | None:
        text = door.front.log.read_text()
        return text if asked in text and given in text else None

    text = until(written, "both requests are in the log of the front door")
    (line,) = (line for line in text.splitlines() if asked in line)
    assert "127.0.0.1" in line
    assert "/v1/trees" in line
    for secret in (ALICE, BOB, READER, "Bearer", "private"):
        assert secret not in text
    for server in door.fleet.replicas:
        assert ALICE not in server.log.read_text()
    assert any(asked in server.log.read_text() for server in door.fleet.replicas)


def test_a_server_that_drains_takes_nothing_new_and_ends_what_it_runs(door: Door) -> None:
    draining, session = door.fleet.replicas[1], door.session(1)
    ended = door.search(headers=session)
    assert ended.headers["x-ramify-replica"] == "1"
    with streamed(door, **session) as stream:
        assert stream.replica == 1
        draining.terminate()
        until(lambda: httpx.get(f"{draining.url}/readyz").status_code == 503, "it says that it is not ready")
        until(
            lambda: door.http.get("/livez", headers=session).headers["x-ramify-replica"] == "0",
            "the front door has noticed",
        )
        replies = [door.search(headers=session) for _ in range(3)] + [door.search() for _ in range(3)]
        assert {(r.status_code, r.headers["x-ramify-replica"]) for r in replies} == {(200, "0")}
        longer = {"budget": {"simulations": 4}}
        then = door.http.post(f"/v1/search/{ended.json()['id']}/continue", json=longer)
        assert (then.status_code, then.headers["x-ramify-replica"]) == (200, "0"), then.text
        assert door.http.get(f"/v1/search/{stream.id}").json()["status"] == "running"
        name, done = stream.last()
        assert (name, done["status"]) == ("search.completed", "drained")
    assert draining.ended() == 0
    assert (
        door.http.get(f"/v1/search/{stream.id}").json()["status"] == "drained"
    )  # by the other, from the log


@pytest.mark.parametrize("replica", BOTH)
def test_all_requests_to_go_on_from_one_search_meet_at_one_server(door: Door, replica: int) -> None:
    url = f"/v1/search/{door.search(headers=door.session(replica)).json()['id']}/continue"
    longer = {"budget": {"simulations": 4}}
    replies = [door.http.post(url, json=longer, headers=door.session(other)) for other in (*BOTH, *BOTH)]
    assert [reply.status_code for reply in replies] == [200, 409, 409, 409]
    assert len({reply.headers["x-ramify-replica"] for reply in replies}) == 1


@pytest.mark.parametrize("replica", BOTH)
def test_a_session_stays_at_its_server_and_a_hot_one_overflows_at_haproxy_alone(
    request: pytest.FixtureRequest, door: Door, replica: int
) -> None:
    session = door.session(replica)
    assert {door.search(headers=session).headers["x-ramify-replica"] for _ in range(4)} == {str(replica)}
    with ExitStack() as stack:
        at = [stack.enter_context(streamed(door, **session)).replica for _ in range(4)]
    assert at[0] == replica
    assert set(at) == ({*BOTH} if request.node.callspec.params["front"] == "haproxy" else {replica})
    until(
        lambda: door.search(headers=session).headers["x-ramify-replica"] == str(replica),
        "the session is back at its own server",
    )


def test_a_server_that_is_killed_breaks_its_streams_and_nothing_is_sent_twice(door: Door) -> None:
    killed, session = door.fleet.replicas[0], door.session(0)
    before = {tree["id"] for tree in trees(door)}
    awaited = {"prompt": "?\n", "search": LONG, "deadline": 30}
    with (
        ThreadPoolExecutor(1) as pool,
        streamed(door, **door.session(1)) as other,  # so that two are no more than the killed one's share
        streamed(door, **session) as stream,
    ):
        asked = pool.submit(door.http.post, "/v1/search", json=awaited, headers=session)
        until(lambda: "\nramify_searches_running 2.0" in metrics(killed), "both searches run")
        killed.kill()
        assert error_of(asked.result()) == (502, "engine_unavailable")
        with pytest.raises((httpx.RemoteProtocolError, AssertionError)):
            stream.last()
    replies = [door.search(headers=session) for _ in range(3)] + [door.search() for _ in range(3)]
    answered = [reply for reply in replies if reply.status_code == 200]
    assert {reply.headers["x-ramify-replica"] for reply in replies} == {"1"}
    assert len(answered) == len(replies)
    before.add(other.id.replace("srch", "tree"))
    assert {tree["id"] for tree in trees(door)} - before == {r.json()["tree"]["id"] for r in answered}
    assert error_of(door.http.get(f"/v1/search/{stream.id}")) == (404, "not_found")


@pytest.mark.parametrize("name", ["haproxy", "nginx"])
def test_without_a_ready_server_it_says_when_to_try_again(tmp_path: Path, name: str) -> None:
    nobody = [f"127.0.0.1:{free_port()}" for _ in BOTH]
    with running(name, tmp_path, nobody) as front:
        reply = httpx.post(f"{front.url}/v1/search", json={"prompt": "?\n"})
    assert error_of(reply) == (503, "engine_unavailable")
    assert int(reply.headers["retry-after"]) > 0


@pytest.mark.parametrize("name", ["haproxy", "nginx"])
def test_the_commented_lines_for_tls_serve_tls(fleet: Fleet, tmp_path: Path, name: str) -> None:
    fleet.revive()
    with running(name, tmp_path, fleet.addresses, tls=True) as front:
        trusted = ssl.create_default_context(cafile=tmp_path / "ramify.crt")
        reply = httpx.get(f"{front.url}/livez", verify=trusted)
    assert reply.json() == {"status": "ok"}


@pytest.mark.parametrize("name", ["haproxy", "nginx"])
def test_servers_without_keys_are_found_ready_and_refuse_other_hosts(name: str, tmp_path: Path) -> None:
    with fake_server(tmp_path, RAMIFY_ADMIN__PORT="0", RAMIFY_PORT="0", RAMIFY_REPLICA="0") as server:
        address = server.url.removeprefix("http://")
        with running(name, tmp_path, [address, address]) as front:
            until(lambda: httpx.get(f"{front.url}/v1/models").status_code == 200, "it is found ready")
            refused = httpx.get(f"{front.url}/v1/models", headers={"Host": "elsewhere.example"})
            assert error_of(refused) == (403, "host_not_allowed")
