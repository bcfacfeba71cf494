"""The release that is served, and older ones that work under way still uses.

A search leases the release that it begins with, so that its tree is of one release even if another is activated
meanwhile. The lease is the task's own (a context variable): policy, scorers and whatever an extension puts around them
ask `mine` and need not be told.

An adapter is in the policy's engine from its trial until it is neither served nor leased. vLLM loads an adapter that
was removed under a request again, and lets requests wait in silence if more adapters are named than fit; so the last
user's end removes it, and one too many is refused.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from ramify.engine_options import EngineOptions
from ramify.engines.config import Serving
from ramify.engines.errors import EngineError
from ramify.engines.ports import Engine
from ramify.search.protocols import EngineDead

if TYPE_CHECKING:
    from ramify.weights import Release

logger = logging.getLogger(__name__)


def require_servable(release: Release, options: EngineOptions) -> None:
    """Raise `EngineError` if engines with these options hold no adapter such as the release's."""
    from ramify.weights import adapter_rank  # reads files with numpy, which only adapters need here

    if release.adapter is None:
        return
    if not options.adapters:
        raise EngineError(
            f"{release.id} is a LoRA adapter, for which the server must be started with engine.adapters 2 or more"
        )
    if (rank := adapter_rank(release.adapter)) > options.adapter_rank:
        raise EngineError(
            f"{release.id} is an adapter of rank {rank}, above engine.adapter_rank {options.adapter_rank}"
        )


class Leases:
    """The releases in use on one policy's engine. All calls on one event loop."""

    def __init__(self, serving: Serving, engine: Engine) -> None:
        self.serving = serving
        """The release that is offered; changed by `serve`."""
        self._engine = engine
        self._leased: ContextVar[Serving] = ContextVar("leased")
        self._users: Counter[str] = Counter()
        """By adapter: leases, and one while it is served."""
        self._dropping: set[asyncio.Task[None]] = set()
        self._hold(serving)

    async def load_served(self) -> None:
        """Load the adapter of the release that is served from the start. Raises `EngineError`."""
        await self._load(self.serving)

    async def keep(self, serving: Serving) -> None:
        """Load the adapter of a release and hold it for as long as the engine runs. Raises `EngineError`."""
        if serving.adapter not in self._users:
            await self._load(serving)
        self._hold(serving)

    def mine(self) -> Serving:
        """Return the release that the calling task leases; the one served if it leases none."""
        return self._leased.get(self.serving)

    def serve(self, serving: Serving) -> None:
        """Offer a release from now on, whose whole weights or adapter are loaded."""
        before, self.serving = self.serving, serving
        self._hold(serving)
        self._let_go(before)

    @contextmanager
    def lease(self, serving: Serving | None = None) -> Iterator[Serving]:
        """Have `mine` be a release in this task and those that it starts, for as long as the block runs: the one served
        now, unless another is given."""
        leased = serving or self.serving
        self._hold(leased)
        token = self._leased.set(leased)
        try:
            yield leased
        finally:
            self._leased.reset(token)
            self._let_go(leased)

    @asynccontextmanager
    async def trying(self, serving: Serving) -> AsyncIterator[None]:
        """Load the adapter of a release if it is one, and lease it. One task at a time.

        Raises `EngineError` if there is no room for it, or if the engine refuses it."""
        while self._dropping:  # they give room, and go on if this is cancelled
            await asyncio.wait(self._dropping)
        if serving.adapter not in self._users:
            await self._load(serving)
        with self.lease(serving):
            yield

    async def _load(self, serving: Serving) -> None:
        release = serving.source
        if release is None or release.adapter is None:
            return
        require_servable(release, self._engine.launch.options)
        most = self._engine.launch.options.adapters
        if len(self._users.keys() | {release.id}) > most:
            raise EngineError(
                f"the engine holds {most} adapters (engine.adapters), and all are in use: {', '.join(self._users)}. "
                "Try again when searches have ended"
            )
        await self._engine.load_adapter(release.id, release.adapter)

    def _hold(self, serving: Serving) -> None:
        if serving.adapter is not None:
            self._users[serving.adapter] += 1

    def _let_go(self, serving: Serving) -> None:
        adapter = serving.adapter
        if adapter is None:
            return
        self._users[adapter] -= 1
        if not self._users[adapter]:
            del self._users[adapter]
            task = asyncio.create_task(self._drop(adapter), name=f"drop-{adapter}")
            self._dropping.add(task)
            task.add_done_callback(self._dropping.discard)

    async def _drop(self, adapter: str) -> None:
        try:
            await self._engine.drop_adapter(adapter)
        except (EngineError, EngineDead) as error:  # its room is taken until the engine needs it
            logger.warning("the adapter %s was not dropped: %s", adapter, error)
