"""A whole server around a fake model: real routes, real searches, a real log."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from starlette.types import ASGIApp

from empty_log import empty_log
from fakes import FakePolicy, FakeScorer, decode, encode, letters
from fakes_openai import FakePlain
from ramify.api.app import application
from ramify.api.context import Context, assemble
from ramify.engines import NamedPolicy, Serving
from ramify.objects import ObjectOptions
from ramify.search.crowd import Crowd
from ramify.search.protocols import Policy
from ramify.search.records import Action
from ramify.settings import Settings
from ramify.treelog import TreeLog

PROMPT = "?\n"
SERVING = Serving("letters", "fake", created=1_700_000_000, action=Action(), max_tokens=8, vocabulary=256)
KEYS = [
    {"name": "alice", "key": "alice-alice-alice", "scopes": ["search", "feedback"]},
    {
        "name": "bob",
        "key": "bob-of-the-tests",
        "scopes": ["search", "feedback"],
        "train": True,
        "train_feedback": True,
    },
    {"name": "trainer", "key": "trainer-trainer-tr", "scopes": ["log"]},
]


ALPHABET = letters({chr(97 + i): 1 / 26 for i in range(26)}, 3)
FOUR_ANSWERS = letters({"a": 0.5, "b": 0.5}, 2)


class FakeTokenizer:
    """One token a character."""

    def encode(self, text: str) -> list[int]:
        return list(encode(text))

    def encode_continuation(self, text: str) -> list[int]:
        return list(encode(text))

    def encode_chat(
        self, messages: Sequence[Mapping[str, str]], template: Mapping[str, Any] | None = None
    ) -> list[int]:
        """The texts, and what else the template was told, written out at their end."""
        told = "".join(f"{name}={value};" for name, value in (template or {}).items())
        return self.encode("".join(m["content"] for m in messages) + told)

    def decode(self, token_ids: Sequence[int]) -> str:
        return decode(token_ids)

    def spell(self, prefix: Sequence[int], tokens: Sequence[int]) -> tuple[str, tuple[int, ...]]:
        texts = [decode([token]) for token in tokens]
        return "".join(texts), tuple(accumulate(map(len, texts)))


@dataclass
class FakeEngines:
    """Answers are three lines of any letter: more than a search exhausts. The value of a text is its share of `a`."""

    policy: FakePolicy = field(default_factory=lambda: FakePolicy(ALPHABET))
    scorer: FakeScorer = field(default_factory=lambda: FakeScorer(lambda t: t.count("a") / max(1, len(t))))
    tokenizer: FakeTokenizer = field(default_factory=FakeTokenizer)
    max_model_len: int = 512
    serving: Serving = SERVING
    dead: asyncio.Event = field(default_factory=asyncio.Event)
    hung: bool = False
    probes: int = 0
    dead_reason: str | None = None
    crowd: Crowd = field(default_factory=lambda: Crowd(lambda: None))
    others: dict[str, NamedPolicy] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.plain = FakePlain(self.policy)

    @property
    def policies(self) -> dict[str, Policy]:
        return {"policy": self.policy, **{name: other.policy for name, other in self.others.items()}}

    def memory(self) -> list[str]:
        return ["letters: nothing"]

    def stats(self) -> dict[str, float]:
        return {"requests_running": float(self.policy.running)}

    async def probe(self, deadline: float) -> None:
        self.probes += 1
        if self.hung:
            async with asyncio.timeout(deadline):
                await asyncio.Event().wait()

    def give_up(self, reason: str) -> None:
        """Whoever waits gets on, and finds the engines dead."""
        self.dead_reason = reason
        self.policy.die_after = 0
        release(self)
        self.dead.set()

    @contextmanager
    def lease(self) -> Iterator[Serving]:
        yield self.serving

    @asynccontextmanager
    async def trying(self, serving: Serving) -> AsyncIterator[None]:
        yield

    async def reset_prefix_caches(self) -> None:
        pass  # it caches nothing

    async def close(self) -> None:
        pass


@dataclass
class World:
    """One server and a client without a network."""

    context: Context
    engines: FakeEngines
    log: TreeLog
    http: httpx.AsyncClient

    def as_key(self, name: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {next(k['key'] for k in KEYS if k['name'] == name)}"}

    async def search(self, **body: Any) -> httpx.Response:
        headers = body.pop("headers", {})
        return await self.http.post("/v1/search", json={"prompt": PROMPT, **body}, headers=headers)

    async def logged(self) -> list[Any]:
        return list(await self.log.list(limit=100))


@asynccontextmanager
async def a_world(folder: Path, engines: FakeEngines | None = None, **settings: Any) -> AsyncIterator[World]:
    engines = engines or FakeEngines()
    if "log" not in settings:
        settings["log"] = empty_log(folder / "trees.db")
    log = await TreeLog.open(settings["log"], objects=ObjectOptions(**settings.get("objects", {})))
    context = assemble(Settings(**settings), engines, log)
    transport = httpx.ASGITransport(application(context), raise_app_exceptions=False)
    try:
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as http:
            yield World(context, engines, log, http)
    finally:
        release(engines)
        await context.searches.drain(0)
        await context.completions.drain(0)
        await log.close()


def hold(engines: FakeEngines) -> None:
    """From now on no engine request ends before `release`."""
    engines.policy.gate = asyncio.Event()


def release(engines: FakeEngines) -> None:
    if engines.policy.gate is not None:
        engines.policy.gate.set()


@asynccontextmanager
async def over_network(world: World) -> AsyncIterator[httpx.AsyncClient]:
    """The same server behind a real socket, where a client can hang up."""
    async with (
        serving(application(world.context)) as url,
        httpx.AsyncClient(base_url=url, timeout=10) as http,
    ):
        yield http


@asynccontextmanager
async def serving(app: ASGIApp) -> AsyncIterator[str]:
    """An application behind a real socket; its address."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen()  # from now on a client that is quicker than the server waits for it
    config = uvicorn.Config(app, log_config=None, lifespan="off", access_log=False)
    server = uvicorn.Server(config)
    task = asyncio.create_task(server._serve(sockets=[sock]))
    try:
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task
        sock.close()


async def until(condition: Any, seconds: float = 60.0) -> None:
    """Wait for something that has no event of its own, failing after longer than a busy machine needs."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


def events(text: str) -> list[tuple[str, Any]]:
    """(name, data) of each event; comments are left out."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            found.append((fields["event"], json.loads(fields["data"])))
    return found
