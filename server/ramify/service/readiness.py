"""Tell whether the server can search: its engines answer a real request in time, which is more than a running process.

One probe's result is used again for about a second, and whoever asks while a probe is under way shares it.

A server asks its engines all the while, whether or not anybody asks it: one that makes no step for `hang_seconds`
counts as dead, so that searches end and whatever supervises the server starts another. It is asked twice: a server that
was frozen with its engines and resumed finds the first deadline passed, and nothing wrong.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from ramify.engines.errors import EngineHeld, PolicyUnreachable
from ramify.service.errors import DRAINED
from ramify.service.ports import Engines
from ramify.service.standing import Standing
from ramify.settings import ProbeSettings

logger = logging.getLogger(__name__)
LOOK_EVERY = 0.1
"""Seconds."""
WATCH_EVERY = 0.1
"""Between two looks for a hang, as a share of `hang_seconds`."""


@dataclass(eq=False, slots=True)
class Readiness:
    """Probes the engines when somebody asks, and all the while for hangs."""

    engines: Engines
    settings: ProbeSettings
    clock: Callable[[], float]
    draining: Callable[[], bool]
    standing: Standing = field(default_factory=Standing)
    _known: tuple[float, str | None] | None = None
    """Time at which the last probe ended, and what was wrong."""
    _probe: asyncio.Task[str | None] | None = field(default=None)

    async def problem(self) -> str | None:
        """Return why the server is not ready; `None` if it is. A probe under way does not hide what else is known."""
        if known := self._known_problem():
            return known
        if self._known and self.clock() - self._known[0] <= self.settings.cache_seconds:
            return self._known[1]
        if self._probe is None:
            self._probe = asyncio.create_task(self._ask(), name="readiness-probe")
        probe = self._probe
        while not probe.done():
            await asyncio.wait((probe,), timeout=LOOK_EVERY)
            if known := self._known_problem():
                return known
        return probe.result()

    def _known_problem(self) -> str | None:
        if self.engines.dead.is_set():
            return "an engine has died"
        if self.draining():
            return DRAINED
        return self.standing.problem() or self.standing.waiting

    async def watch(self) -> None:
        """Give the engines up once one makes no step for `hang_seconds` twice in a row; return when they are dead.

        An engine whose weights are being replaced does not hang: an activation has deadlines of its own.
        """
        seconds, stuck = self.settings.hang_seconds, False
        while not self.engines.dead.is_set():
            try:
                await self.engines.probe(seconds)
                stuck = False
            except EngineHeld:
                stuck = False
                continue
            except TimeoutError as error:
                if stuck:
                    self.engines.give_up(
                        f"an engine made no progress for {seconds:g} s, asked twice: {error}"
                    )
                stuck = True
                continue
            except Exception as error:  # for readiness to report
                logger.warning("the engines' watch: a probe failed: %s", type(error).__name__)
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds * WATCH_EVERY):
                    await self.engines.dead.wait()

    async def _ask(self) -> str | None:
        problem = None
        try:
            await self.engines.probe(self.settings.deadline_seconds)
        except TimeoutError as error:
            problem = str(error) or f"an engine made no step within {self.settings.deadline_seconds:g} s"
        except PolicyUnreachable as error:
            problem = "the policy's server is away"
            logger.warning("%s: %s", problem, error)
        except Exception as error:
            problem = f"an engine failed its probe: {type(error).__name__}"
            logger.warning("%s: %s", problem, error)
        finally:
            self._probe = None
        self._known = (self.clock(), problem)
        return problem
