"""The whole server but for vLLM: its checks before it starts, its door, its end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from fakes_releases import write_release
from ramify.api.server import (
    ENGINE_DIED,
    REFUSED,
    STOPPED,
    _Server,
    admin_listener,
    preflight,
    serve,
)
from ramify.connections import ListenError, bind
from ramify.engines import EngineConfig
from ramify.engines.errors import EngineHeld
from ramify.races import beside
from ramify.service.readiness import Readiness
from ramify.service.serving import engine_config, vocabulary
from ramify.settings import BadSettings, ProbeSettings, Settings, load
from ramify.treelog import TreeLog

from .world import KEYS, PROMPT, FakeEngines, hold, release, until

LARGE = {"budget": {"simulations": 10_000, "tokens": 200_000}}


@asynccontextmanager
async def serving(
    folder: Path, engines: FakeEngines, **settings: Any
) -> AsyncIterator[tuple[httpx.AsyncClient, asyncio.Task[int]]]:
    async def start(config: EngineConfig, tell: Any) -> FakeEngines:
        return engines

    chosen = Settings(log=f"{folder}/trees.db", port=0, **settings)
    with preflight(chosen) as listener, admin_listener(chosen) as admin:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        server = _Server(chosen, EngineConfig(folder), listener, start, admin=admin)
        run = asyncio.create_task(server.run())
        async with httpx.AsyncClient(base_url=url, timeout=20) as http:
            async with asyncio.timeout(10):
                while not listening(url):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            yield http, run
            release(engines)
            if not run.done():
                os.kill(os.getpid(), signal.SIGTERM)
            await run


def listening(url: str) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(url.rpartition(":")[2]))) == 0


async def rows(folder: Path) -> list[str]:
    async with await TreeLog.open(f"sqlite:///{folder}/trees.db", read_only=True) as log:
        return [row.status for row in await log.list()]


@pytest.mark.anyio
async def test_sigterm_drains_answers_and_ends_with_0(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engines = FakeEngines()
    async with serving(tmp_path, engines, drain_seconds=0.2) as (http, run):
        asked = asyncio.create_task(http.post("/v1/search", json={"prompt": PROMPT, "search": LARGE}))
        await until(lambda: engines.policy.generated > 50)
        hold(engines)
        os.kill(os.getpid(), signal.SIGTERM)
        reply = (await asked).json()
        assert await run == STOPPED
    assert (reply["status"], reply["stop_reason"]) == ("drained", "drain")
    assert await rows(tmp_path) == ["drained"]
    said = capsys.readouterr().out
    assert "serves letters (fake) at http://127.0.0.1:" in said
    assert "curl -s http://127.0.0.1:" in said


@pytest.mark.anyio
async def test_a_second_signal_stops_at_once(tmp_path: Path) -> None:
    engines = FakeEngines()
    async with serving(tmp_path, engines, drain_seconds=600) as (http, run):
        hold(engines)
        asked = asyncio.create_task(http.post("/v1/search", json={"prompt": PROMPT}))
        await until(lambda: engines.policy.running)
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(0)
        os.kill(os.getpid(), signal.SIGINT)
        assert (await asked).status_code == 503
        assert await run == STOPPED
    assert await rows(tmp_path) == ["drained"]


@pytest.mark.anyio
async def test_an_engine_that_dies_ends_the_server_with_3(tmp_path: Path) -> None:
    engines = FakeEngines()
    async with serving(tmp_path, engines) as (http, run):
        assert (await http.post("/v1/search", json={"prompt": PROMPT})).status_code == 200
        engines.dead.set()
        assert await run == ENGINE_DIED
    assert await rows(tmp_path) == ["complete"]


@pytest.mark.anyio
async def test_a_signal_while_the_engines_start_ends_the_start(tmp_path: Path) -> None:
    from ramify.api.server import StopRequested

    begun = asyncio.Event()

    async def start(config: EngineConfig, tell: Any) -> FakeEngines:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    settings = Settings(log=f"{tmp_path}/trees.db", port=0)
    with preflight(settings) as listener:
        run = asyncio.create_task(_Server(settings, EngineConfig(tmp_path), listener, start).run())
        await begun.wait()
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(StopRequested):
            await run
    async with await TreeLog.open(settings.log):
        pass  # the log was let go of


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::"])
def test_without_a_key_only_loopback_is_listened_on(host: str) -> None:
    with pytest.raises(BadSettings, match="without an API key"):
        preflight(Settings(host=host, port=0))


@pytest.mark.anyio
async def test_operators_are_answered_on_a_port_of_their_own_and_drain_the_server(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with serving(tmp_path, FakeEngines()) as (http, run):
        await http.get("/livez")
        said = capsys.readouterr().out  # the banner comes before the first answer
        address = next(line for line in said.splitlines() if "  admin  " in line).split()[1]
        async with httpx.AsyncClient(base_url=address, timeout=20) as admin:
            assert (await admin.get("/admin/releases")).json()["active"] == "fake"
            assert (await admin.post("/admin/drain", json={})).json()["drained"] is True
            assert (await admin.get("/v1/models")).status_code == 404
        assert (await http.get("/admin/releases")).status_code == 404
        assert (await http.get("/readyz")).status_code == 503
    assert run.result() == STOPPED


def test_an_admin_port_in_use_is_refused_naming_the_setting() -> None:
    with bind("127.0.0.1", 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ListenError, match=rf"127.0.0.1:{port}.*admin.port"):
            admin_listener(Settings(admin={"port": port}))


def test_without_an_admin_key_only_loopback_is_administered() -> None:
    with pytest.raises(BadSettings, match=r"admin\.key_file"):
        admin_listener(Settings(admin={"host": "0.0.0.0", "port": 0}))
    admin_listener(Settings(admin={"host": "0.0.0.0", "port": 0, "key": "a-key-of-the-tests"})).close()


def test_the_admin_port_is_a_free_one_where_the_public_one_is() -> None:
    assert (Settings().admin_port, Settings(port=0).admin_port) == (8001, 0)
    assert Settings(port=0, admin={"port": 9}).admin_port == 9


def test_with_a_key_any_address_may_be_listened_on() -> None:
    preflight(load(host="0.0.0.0", port=0, auth={"keys": KEYS})).close()


def test_a_port_in_use_is_refused_naming_the_settings(capsys: pytest.CaptureFixture[str]) -> None:
    with bind("127.0.0.1", 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ListenError, match=rf"127.0.0.1:{port}.*settings: host, port"):
            bind("127.0.0.1", port)
        assert serve(Settings(port=port)) == REFUSED
    assert str(port) in capsys.readouterr().err


@pytest.mark.anyio
async def test_of_two_servers_that_start_at_once_the_slower_is_refused(tmp_path: Path) -> None:
    async def start(config: EngineConfig, tell: Any) -> FakeEngines:
        return FakeEngines()

    with bind("127.0.0.1", 0) as first, bind("127.0.0.1", first.getsockname()[1]) as second:
        first.listen()
        settings = Settings(log=f"{tmp_path}/trees.db")
        with pytest.raises(ListenError, match="Address already in use"):
            await _Server(settings, EngineConfig(tmp_path), second, start).run()


def test_what_cannot_be_served_is_refused_before_the_engines_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for settings, said in (
        (Settings(port=0, release=tmp_path / "v000009"), "v000009"),
        (Settings(port=0, task="chess"), "chess"),
        (Settings(port=0, host="no.such.host.invalid"), "without an API key"),
    ):
        assert serve(settings) == REFUSED
        assert said in capsys.readouterr().err


def test_a_log_that_another_server_writes_is_refused_before_the_engines_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model").mkdir()

    async def beside() -> int:
        async with await TreeLog.open(f"sqlite:///{tmp_path}/trees.db"):
            settings = Settings(port=0, policy=str(tmp_path / "model"), log=f"{tmp_path}/trees.db")
            return await asyncio.to_thread(serve, settings)

    with pytest.MonkeyPatch.context() as patch:
        # Signals belong to the main thread; this one only has to fail.
        patch.setattr(asyncio.SelectorEventLoop, "add_signal_handler", lambda *_: None)
        patch.setattr(asyncio.SelectorEventLoop, "remove_signal_handler", lambda *_: True)
        assert asyncio.run(beside()) == REFUSED
    assert "is writing" in capsys.readouterr().err


def test_models_by_path_are_served_under_their_folders_name(tmp_path: Path) -> None:
    for part, size in (("my-model", 100), ("judge", 90)):
        (tmp_path / part).mkdir()
        (tmp_path / part / "config.json").write_text(json.dumps({"vocab_size": size}))
    config = engine_config(
        load(policy=str(tmp_path / "my-model"), value=str(tmp_path / "judge"), engine={"max_num_seqs": 7})
    )
    serving = config.serving
    assert (serving.name, serving.release, serving.vocabulary) == ("my-model", "local", 90)
    assert (config.policy, config.options.max_num_seqs) == (tmp_path / "my-model", 7)
    assert (config.value, config.value_head, config.serving.value) == (tmp_path / "judge", None, "model")
    (tmp_path / "judge" / "config.json").write_text("{}")
    assert vocabulary(tmp_path / "my-model", tmp_path / "judge") == 0


@pytest.mark.parametrize(
    ("flags", "value"), [({"value_head": "head.safetensors"}, "trunk"), ({}, None)], ids=["head", "none"]
)
def test_a_policy_is_judged_by_a_head_on_its_trunk_or_by_nothing(
    tmp_path: Path, flags: dict[str, str], value: str | None
) -> None:
    config = engine_config(load(policy=str(tmp_path), **flags))
    assert (config.value, config.serving.value, config.serving.judged) == (None, value, value is not None)
    assert (config.value_head is not None) == (value == "trunk")


def test_the_engines_of_a_trunks_release_are_told_its_head(tmp_path: Path) -> None:
    release = write_release(tmp_path, 1.0, 0.1, head=True)
    config = engine_config(load(release=release.path))
    assert (config.value, config.value_head) == (None, release.path / "value" / "head.safetensors")
    assert config.serving.value == "trunk"


@pytest.mark.anyio
async def test_an_engine_that_hangs_longer_than_the_setting_ends_searches_with_their_best_and_the_server_with_3(
    tmp_path: Path,
) -> None:
    engines = FakeEngines()
    async with serving(tmp_path, engines, probe=ProbeSettings(hang_seconds=0.3)) as (http, run):
        asked = asyncio.create_task(http.post("/v1/search", json={"prompt": PROMPT, "search": LARGE}))
        await until(lambda: engines.policy.generated > 50)
        hold(engines)
        engines.hung = True
        reply = (await asked).json()
        assert await run == ENGINE_DIED
    assert reply["status"] == "engine_dead"
    assert reply["answer"] is not None
    assert await rows(tmp_path) == ["engine_dead"]
    assert "no progress for 0.3 s, asked twice" in str(engines.dead_reason)


@asynccontextmanager
async def watched(engines: FakeEngines) -> AsyncIterator[None]:
    """Probe `engines`, again and again, for as long as the block runs."""
    readiness = Readiness(engines, ProbeSettings(hang_seconds=0.01), time.monotonic, lambda: False)
    async with beside(asyncio.create_task(readiness.watch())):
        yield


@pytest.mark.anyio
async def test_an_engine_whose_weights_are_being_replaced_does_not_hang() -> None:
    class Held(FakeEngines):
        async def probe(self, deadline: float) -> None:
            self.probes += 1
            await asyncio.sleep(0)
            raise EngineHeld("told to")

    engines = Held()
    async with watched(engines):
        await until(lambda: engines.probes > 20)
        assert not engines.dead.is_set()


@pytest.mark.anyio
async def test_one_probe_that_finds_no_step_is_asked_again_before_the_engines_are_given_up() -> None:
    class Resumed(FakeEngines):
        """Frozen and resumed with the server: every other probe finds its deadline passed."""

        async def probe(self, deadline: float) -> None:
            self.probes += 1
            await asyncio.sleep(0)
            if self.probes % 2:
                raise TimeoutError("its deadline has passed")

    engines = Resumed()
    async with watched(engines):
        await until(lambda: engines.probes > 6)
        assert not engines.dead.is_set()


@pytest.mark.anyio
async def test_a_probe_that_fails_otherwise_is_no_hang() -> None:
    class Refusing(FakeEngines):
        async def probe(self, deadline: float) -> None:
            self.probes += 1
            raise RuntimeError("refused")

    engines = Refusing()
    async with watched(engines):
        await until(lambda: engines.probes > 3)
        assert not engines.dead.is_set()
