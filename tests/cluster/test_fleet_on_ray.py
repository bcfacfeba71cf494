"""`ramify fleet up` with a real Ray, HAProxy and PostgreSQL, and two replicas on fake engines: kill -9 and all.

Each test takes the fleet as the one before has left it, served and whole.
"""

from __future__ import annotations

import asyncio
import importlib.util
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from contract.fleet.replicas import write_releases
from fake_process import free_port
from fixtures_postgres import PostgresServer, postgres_server  # noqa: F401  (a fixture)
from fleet_audit import Answered, faults, read_epochs, read_log
from front_doors import until
from ramify.objects import ObjectOptions

pytestmark = [pytest.mark.cluster, pytest.mark.postgres, pytest.mark.timeout(1800)]
TESTS = Path(__file__).parents[1]
SERVER = TESTS / "contract" / "fleet" / "fleet_server.py"
START_SECONDS = 900
SHORT = {"budget": {"simulations": 2}}
CLIENT = httpx.Client(timeout=60)
SEEDS = itertools.count(1_000_000)
FILE = """
name = "letters"

[server]
log = "{log}"
weights = "weights"
release = "weights/v000001"
drain_seconds = 5
fleet = {{ heartbeat_seconds = 0.1, lease_seconds = 10 }}

[replicas]
min = {replicas}
{scaling}
cpus = 0.5
command = ["{python}", "{server}"]

[door]
port = {ports[0]}
admin_port = {ports[1]}
metrics_port = {ports[2]}

[ray]
{ray}
"""


@dataclass
class Fleet:
    """The fleet as `ramify fleet up` runs it."""

    folder: Path
    process: subprocess.Popen[bytes]
    ports: list[int]
    log: str

    def write(
        self, name: str, *, replicas: int = 2, scaling: str = "", ray: str = 'address = "auto"'
    ) -> Path:
        path = self.folder / name
        names = {"log": self.log, "python": sys.executable, "server": SERVER, "ports": self.ports}
        path.write_text(FILE.format(replicas=replicas, scaling=scaling, ray=ray, **names))
        return path

    def command(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "ramify", "fleet", *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports[0]}"

    @property
    def admin(self) -> str:
        return f"http://127.0.0.1:{self.ports[1]}"

    def servers(self) -> list[psutil.Process]:
        """The processes of the servers; each one's parent is its actor."""
        return [one for one in self.processes() if str(SERVER) in _words(one) and "-ISc" not in _words(one)]

    def processes(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def rows(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = CLIENT.get(f"{self.admin}/admin/fleet").json()["replicas"]
        return found

    def ready(self) -> set[str]:
        """Ids of the replicas that are ready; none while nobody can tell."""
        try:
            return {row["id"] for row in self.rows() if row["status"] == "ready"}
        except (httpx.HTTPError, KeyError, ValueError):
            return set()

    def whole(self) -> bool:
        return len(self.ready()) == 2 and len(self.answering()) == 2

    def answering(self) -> set[str | None]:
        """Numbers of the replicas that answer; one that took the place of another may have a new number."""
        return {ask(self, str(session))[1] for session in range(24)}


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def ask(fleet: Fleet, session: str | None = None) -> tuple[int, str | None, str | None]:
    """Search; return status, replica and release of the answer."""
    headers = {} if session is None else {"x-session-id": session}
    body = {"prompt": "?\n", "search": SHORT}
    try:
        reply = CLIENT.post(f"{fleet.url}/v1/search", json=body, headers=headers)
    except httpx.HTTPError:
        return 0, None, None
    release = reply.json()["release"] if reply.status_code == 200 else None
    return reply.status_code, reply.headers.get("x-ramify-replica"), release


@contextmanager
def asked_all_the_time(fleet: Fleet) -> Iterator[list[tuple[int, str | None, str | None]]]:
    """Searches, one after another, until the block ends; their answers."""
    answers: list[tuple[int, str | None, str | None]] = []
    done = threading.Event()

    def work() -> None:
        while not done.wait(0.05):
            answers.append(ask(fleet))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield answers
    finally:
        done.set()
        thread.join()


@pytest.fixture(scope="module")
def fleet(
    postgres_server: PostgresServer,  # noqa: F811
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Fleet]:
    if importlib.util.find_spec("ray") is None:
        pytest.skip("NO RAY: install requirements/fleet.lock (make test-fleet does)")
    folder = tmp_path_factory.mktemp("fleet")
    write_releases(folder)
    fleet = Fleet(folder, None, [free_port() for _ in range(3)], postgres_server.database())  # type: ignore[arg-type]
    path = fleet.write("fleet.toml", ray="cpus = 2\ngpus = 0")
    log = folder / "up.log"
    command = [sys.executable, "-m", "ramify", "fleet", "up", "--config", str(path)]
    with log.open("wb") as out:
        fleet.process = subprocess.Popen(
            command, stdout=out, stderr=out, env=os.environ | {"PYTHONPATH": str(TESTS)}
        )
    try:
        up = f"letters is served at {fleet.url}"
        until(lambda: up in log.read_text() or fleet.process.poll() is not None, "it is up", START_SECONDS)
        assert up in log.read_text(), log.read_text()[-5000:]
        until(fleet.whole, "both replicas get traffic", START_SECONDS)
        yield fleet
    finally:
        CLIENT.close()
        left = fleet.processes() if fleet.process.poll() is None else []
        if fleet.process.poll() is None:
            fleet.process.send_signal(signal.SIGTERM)
            fleet.process.wait(120)
        for process in left:
            if process.is_running():
                process.kill()


def test_a_session_stays_with_its_replica_and_all_metrics_are_on_one_page(fleet: Fleet) -> None:
    by_session = [{ask(fleet, str(i))[1] for _ in range(4)} for i in range(8)]
    assert all(len(found) == 1 for found in by_session)
    assert set.union(*by_session) == {"0", "1"}  # type: ignore[arg-type]
    page = CLIENT.get(f"http://127.0.0.1:{fleet.ports[2]}/metrics").text
    for replica in "01":
        assert f'ramify_fleet_serving_epoch{{replica="{replica}"}} 1.0' in page.splitlines()


def test_an_activation_reaches_both(fleet: Fleet) -> None:
    done = CLIENT.post(f"{fleet.admin}/admin/releases/v000002/activate", json={}, timeout=120).json()
    assert (done["release"], done["epoch"], len(done["replicas"])) == ("v000002", 2, 2)
    assert {ask(fleet, str(session))[1:] for session in range(24)} == {("0", "v000002"), ("1", "v000002")}


def _server(server: psutil.Process) -> psutil.Process:
    return server


def _actor(server: psutil.Process) -> psutil.Process:
    parent = server.parent()
    assert parent is not None
    return parent


@pytest.mark.parametrize("victim", [_server, _actor])
def test_kill_9_brings_back_a_replica_that_serves_what_is_committed_and_no_traffic_before(
    fleet: Fleet, victim: Callable[[psutil.Process], psutil.Process]
) -> None:
    before, server = fleet.ready(), fleet.servers()[0]
    with asked_all_the_time(fleet) as answers:
        victim(server).kill()
        psutil.wait_procs([server], timeout=30)
        assert not server.is_running() or server.status() == psutil.STATUS_ZOMBIE
        until(lambda: len(fleet.ready() - before) == 1 and fleet.whole(), "it is back", START_SECONDS)
        served = len(answers)
        until(lambda: len(answers) > served + 10, "and serves")
    assert {release for status, _, release in answers if status == 200} == {"v000002"}
    counts = Counter(status for status, _, _ in answers)
    print(f"kill -9 of a replica's {victim.__name__.strip('_')}: answers by status {dict(counts)}")
    assert counts[200] > 0.9 * len(answers)
    assert all(ask(fleet)[0] == 200 for _ in range(10))


def _controllers(fleet: Fleet) -> list[psutil.Process]:
    return [one for one in fleet.processes() if "".join(_words(one)[:1]).startswith("ray::ServeController")]


def _doors(fleet: Fleet) -> list[psutil.Process]:
    return [one for one in fleet.processes() if "".join(_words(one)[:1]).endswith("/haproxy")]


def _door_actors(fleet: Fleet) -> list[psutil.Process]:
    return [parent for one in _doors(fleet) if (parent := one.parent()) is not None]


@contextmanager
def answered_in_the_end(fleet: Fleet) -> Iterator[list[Answered]]:
    """Searches of two clients until the block ends, each asked again under its key until it is answered."""
    answers: list[Answered] = []
    done = threading.Event()

    def work() -> None:
        while not done.is_set():
            ask_again = partial(keyed, fleet, next(SEEDS))
            answers.append(until(ask_again, "a search is answered", START_SECONDS))

    with ThreadPoolExecutor(2) as pool:
        clients = [pool.submit(work) for _ in range(2)]
        try:
            yield answers
        finally:
            done.set()
            for client in clients:
                client.result()


def keyed(fleet: Fleet, seed: int) -> Answered | None:
    """Search under a key of its own; `None` if it is to be asked again."""
    body, key = {"prompt": "?\n", "search": SHORT, "seed": seed}, {"Idempotency-Key": f"search {seed}"}
    try:
        reply = CLIENT.post(f"{fleet.url}/v1/search", json=body, headers=key)
    except httpx.HTTPError:
        return None
    if reply.status_code != 200:
        assert reply.status_code in (409, 429, 502, 503, 504), reply.text
        return None
    return Answered(seed, reply.json()["tree"]["id"], reply.json()["release"], time.time())


def test_kill_9_of_what_leads_the_fleet_loses_no_answer_and_brings_another(fleet: Fleet) -> None:
    with answered_in_the_end(fleet) as answers:
        for found in (_controllers, _doors, _door_actors):
            (victim,) = found(fleet)
            began, served = time.monotonic(), len(answers)
            victim.kill()
            until(lambda: {one.pid for one in found(fleet)} - {victim.pid}, "another", START_SECONDS)  # noqa: B023
            until(lambda: len(answers) > served + 10, "and searches are answered", START_SECONDS)  # noqa: B023
            until(fleet.whole, "by both replicas", START_SECONDS)
            print(f"kill -9 of {found.__name__.strip('_')}: whole after {time.monotonic() - began:.0f} s")
    epochs = asyncio.run(read_epochs(fleet.log))
    logged = asyncio.run(read_log(fleet.log, ObjectOptions()))
    assert list(faults(answers, logged, epochs)) == []


def test_what_does_not_fit_is_refused_and_the_fleet_is_unharmed(fleet: Fleet) -> None:
    before, servers = fleet.ready(), {one.pid for one in fleet.servers()}
    wrong = fleet.write("wrong.toml")
    wrong.write_text(wrong.read_text().replace("min = 2", "minimum = 2"))
    refused = fleet.command("up", "--config", wrong)
    assert refused.returncode == 2
    assert "replicas.minimum" in refused.stderr
    refused = fleet.command("up", "--config", fleet.write("large.toml", replicas=5))
    assert refused.returncode == 1
    assert "replicas.min is 5, each of 0.5 CPUs" in " ".join(refused.stderr.split())
    (fleet.folder / "weights" / "v000002").rename(fleet.folder / "away")
    try:
        refused = fleet.command("up", "--config", fleet.write("same.toml"))
    finally:
        (fleet.folder / "away").rename(fleet.folder / "weights" / "v000002")
    assert refused.returncode == 1
    assert "v000002" in refused.stderr
    assert (fleet.ready(), {one.pid for one in fleet.servers()}) == (before, servers)


def test_up_again_scales_by_reserved_tokens_and_starts_nothing_anew(fleet: Fleet) -> None:
    before, servers = fleet.ready(), {one.pid for one in fleet.servers()}
    done = fleet.command("up", "--config", fleet.write("more.toml", scaling="max = 3\ntokens = 1"))
    assert done.returncode == 0, done.stderr
    assert f"letters is served at {fleet.url}" in done.stdout
    assert (fleet.ready(), {one.pid for one in fleet.servers()}) == (before, servers)
    stopped = threading.Event()
    asking = [threading.Thread(target=_search_at_length, args=(fleet, stopped)) for _ in range(2)]
    for thread in asking:
        thread.start()
    try:
        until(lambda: len(fleet.ready()) == 3, "a third replica is ready", START_SECONDS)
    finally:
        stopped.set()
        for thread in asking:
            thread.join()
    assert before < fleet.ready()
    until(lambda: len(fleet.answering()) == 3, "it gets traffic")


def _search_at_length(fleet: Fleet, stopped: threading.Event) -> None:
    while not stopped.is_set():
        with suppress(httpx.HTTPError):
            body = {"prompt": "?\n", "search": {"budget": {"simulations": 2000}}}
            CLIENT.post(f"{fleet.url}/v1/search", json=body, timeout=120)


def test_down_drains_both_and_nothing_is_left(fleet: Fleet) -> None:
    path = fleet.write("down.toml")
    shown = fleet.command("status", "--config", path)
    assert shown.returncode == 0, shown.stderr
    assert "replica: 3 running" in shown.stdout
    assert "letters serves v000002 (epoch 2)" in shown.stdout
    left = fleet.processes()
    done = fleet.command("down", "--config", path)
    assert done.returncode == 0, done.stderr
    assert fleet.process.wait(120) == 0
    _, alive = psutil.wait_procs(left, timeout=60)
    assert not [one for one in alive if one.status() != psutil.STATUS_ZOMBIE]
    assert fleet.command("down", "--config", path).returncode == 1
