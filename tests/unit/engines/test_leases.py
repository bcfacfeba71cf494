"""The release that a task's requests are of, and how long an adapter stays in the engine."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ramify.engines import EngineError, EngineOptions, Serving
from ramify.engines.leases import Leases
from ramify.weights import Manifest, Release

pytestmark = pytest.mark.anyio


@dataclass
class AdapterEngine:
    """Holds adapters."""

    launch: Any = field(
        default_factory=lambda: SimpleNamespace(options=EngineOptions(adapters=2, adapter_rank=8))
    )
    held: list[str] = field(default_factory=list)
    refuses: bool = False

    async def load_adapter(self, name: str, path: Path) -> None:
        await asyncio.sleep(0)
        if self.refuses:
            raise EngineError("no such adapter")
        assert name not in self.held
        self.held.append(name)

    async def drop_adapter(self, name: str) -> None:
        await asyncio.sleep(0)
        self.held.remove(name)


def release(folder: Path, number: int, base: Release | None) -> Release:
    release_id = f"v{number:06d}"
    manifest = Manifest.model_construct(id=release_id, files={})
    return Release(folder / release_id, manifest, base)


@pytest.fixture
def offered(tmp_path: Path) -> Callable[[int], Serving]:
    base = release(tmp_path, 1, None)

    def offer(number: int, rank: int = 8) -> Serving:
        source = release(tmp_path, number, None if number == 1 else base)
        if source.adapter is not None:
            source.adapter.mkdir(parents=True, exist_ok=True)
            config = {"r": rank, "lora_alpha": 8}
            (source.adapter / "adapter_config.json").write_text(json.dumps(config))
        return Serving(release=source.id, source=source)

    return offer


Offered = Callable[..., Serving]


async def settled(engine: AdapterEngine, *held: str) -> None:
    """Wait until the engine holds these adapters alone."""
    async with asyncio.timeout(5):
        while engine.held != list(held):  # noqa: ASYNC110
            await asyncio.sleep(0)


async def test_work_goes_on_under_the_release_that_it_began_with(offered: Offered) -> None:
    engine = AdapterEngine()
    leases, (one, two) = Leases(offered(1), engine), (offered(2), offered(3))  # type: ignore[arg-type]
    go_on = asyncio.Event()

    async def work() -> list[str]:
        with leases.lease():
            seen = [leases.mine().release]
            await go_on.wait()
            return [*seen, leases.mine().release, await asyncio.create_task(asked())]

    async def asked() -> str:
        return leases.mine().release

    async with leases.trying(one):
        assert leases.mine() is one
        assert leases.serving is not one
        leases.serve(one)
    worker = asyncio.create_task(work())
    await asyncio.sleep(0)
    async with leases.trying(two):
        leases.serve(two)
    assert leases.mine() is two
    await settled(engine, "v000002", "v000003")
    go_on.set()
    assert await worker == ["v000002"] * 3
    await settled(engine, "v000003")
    async with leases.trying(offered(1)):
        leases.serve(offered(1))
    await settled(engine)


async def test_a_trial_that_fails_leaves_nothing_in_the_engine(offered: Offered) -> None:
    engine = AdapterEngine()
    leases = Leases(offered(1), engine)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="the canary"):
        async with leases.trying(offered(2)):
            raise RuntimeError("the canary")
    async with leases.trying(offered(2)):  # waits for the drop of its own name
        assert engine.held == ["v000002"]
        leases.serve(offered(2))
    engine.refuses = True
    with pytest.raises(EngineError, match="no such adapter"):
        async with leases.trying(offered(3)):
            raise AssertionError("it was not loaded")
    await settled(engine, "v000002")
    assert leases.serving.release == "v000002"


async def test_a_trial_that_is_cancelled_while_it_waits_for_a_drop_leaves_nothing_either(
    offered: Offered,
) -> None:
    go_on = asyncio.Event()

    class SlowEngine(AdapterEngine):
        async def drop_adapter(self, name: str) -> None:
            await go_on.wait()
            await super().drop_adapter(name)

    engine = SlowEngine()
    leases = Leases(offered(1), engine)  # type: ignore[arg-type]
    async with leases.trying(offered(2)):
        pass

    async def second() -> None:
        async with leases.trying(offered(3)):
            raise AssertionError("it did not wait")

    trial = asyncio.create_task(second())
    await asyncio.sleep(0)
    trial.cancel()
    await asyncio.wait([trial])
    assert trial.cancelled()
    go_on.set()
    await settled(engine)


async def test_one_adapter_more_than_fit_is_refused_by_names_until_a_search_ends(offered: Offered) -> None:
    engine = AdapterEngine()
    first = offered(2)
    leases = Leases(first, engine)  # type: ignore[arg-type]
    await leases.load_served()
    with leases.lease():
        async with leases.trying(offered(3)):
            leases.serve(offered(3))
        with pytest.raises(EngineError, match=r"holds 2 adapters .*v000002, v000003"):
            async with leases.trying(offered(4)):
                raise AssertionError("it was not loaded")
        async with leases.trying(first):  # it is there: a search still has it
            assert engine.held == ["v000002", "v000003"]
    async with leases.trying(offered(4)):
        assert engine.held == ["v000003", "v000004"]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (EngineOptions(), r"v000002 is a LoRA adapter.*engine\.adapters 2 or more"),
        (EngineOptions(adapters=2, adapter_rank=4), r"rank 8, above engine\.adapter_rank 4"),
    ],
)
async def test_an_adapter_that_the_engine_has_no_room_for_is_refused_by_option(
    offered: Offered, options: EngineOptions, complaint: str
) -> None:
    engine = AdapterEngine(SimpleNamespace(options=options))
    leases = Leases(offered(1), engine)  # type: ignore[arg-type]
    with pytest.raises(EngineError, match=complaint):
        async with leases.trying(offered(2)):
            raise AssertionError("it was not loaded")


def test_room_for_one_adapter_is_none_to_change_it() -> None:
    with pytest.raises(ValueError, match="adapters is 1"):
        EngineOptions(adapters=1)
