"""Change the release that is served: activation, rollback, and the row that each of them leaves in the log.

An activation checks the files before anything is touched (hashes, same network and tokenizer, finite numbers, and
that the way back is still on disk), lets no new search in, waits for the running ones, puts the weights into both
engines, and believes only the canary. Its row is written last. Whatever goes wrong after the engines were touched,
the release before is loaded back and held against its own figures. If even that fails, the engines count as dead and
the process ends, so that its supervisor starts it on the last active release. A crash at any point does the same.

A LoRA adapter on the weights that are loaded, or these weights bare, wait for nobody: new searches begin under it, and
those that run end under the release that they lease. The canary asks by the adapter's name meanwhile.

An activation is a task of its own: a client that hangs up does not leave it half-way.

2026-11-24: what a rollback goes back to is found as on a stack: an activation pushes, a rollback pops. So a second
rollback, or one sent twice by mistake, goes further back and never forward again to the release that was left.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ramify.engines import (
    EngineError,
    EngineOptions,
    Measurement,
    Serving,
    Text,
    long_text,
    require_servable,
)
from ramify.fleet import View
from ramify.search.protocols import EngineDead
from ramify.service import canary
from ramify.service.catalogue import (
    ReleaseEntry,
    ReleaseListing,
    catalogue,
    fetched,
    in_store,
    lineage,
    resolve,
    way_back,
)
from ramify.service.errors import DRAINED, ActivationFailed, ServiceError
from ramify.service.metrics import Metrics
from ramify.service.ports import Engines
from ramify.service.searches import Searches
from ramify.treelog import LogError, TreeLog
from ramify.treelog.records import ActivationKind
from ramify.treelog.records import Release as ReleaseRecord
from ramify.treelog.releases import REJECTED
from ramify.weights import (
    Manifest,
    Release,
    ReleaseNotFound,
    ReleaseStore,
    WeightsError,
    load_release,
    require_alike,
)

logger = logging.getLogger(__name__)
IDLE_SECONDS = 30.0
"""Time for requests other than searches (values, probes) to end before an activation is given up."""
RELOAD_SECONDS = 300.0
"""Time for the engines to load weights and be checked."""
STORE_SECONDS = 10.0
"""Time for the object store to say what it has, before a listing does without."""
_WAYS_BACK = 4
"""Releases before the one that is served that stay in the folder, for rollbacks and for searches that lease them."""


@dataclass(frozen=True, slots=True)
class ActivationSeconds:
    """Duration of an activation and of its parts."""

    drain: float = 0.0
    reload: float = 0.0
    canary: float = 0.0
    total: float = 0.0


@dataclass(frozen=True, slots=True)
class ActivationResult:
    """A release that is now served, or was already."""

    release: str
    previous: str | None
    report: canary.CanaryReport = canary.NOT_ASKED
    seconds: ActivationSeconds = ActivationSeconds()
    """In a fleet, those of the slowest replica."""
    epoch: int | None = None
    """In a fleet: the number of the epoch that is served now."""
    fleet: View | None = None
    """All replicas; `None`: the server is in no fleet."""


@dataclass(frozen=True, slots=True)
class _Change:
    """An activation that was asked for, and whose files were checked."""

    release: Release
    before: Release
    """The release that is served until then."""
    note: str
    kind: ActivationKind

    def failed(self, now: str, error: Exception) -> ActivationFailed:
        return ActivationFailed(f"{self.release.id} was not activated, {now}: {said(error)}")


@dataclass(eq=False, slots=True)
class Releases:
    """The releases of one server. All calls on one event loop."""

    engines: Engines
    log: TreeLog
    searches: Searches
    metrics: Metrics
    clock: Callable[[], float]
    """Seconds, monotonic."""
    serving_of: Callable[[Release], Serving]
    """Makes of a release what is offered to callers."""
    root: Path | None = None
    """Folder of releases; `None`: there are none but the base."""
    store: ReleaseStore | None = None
    """Store of releases, from which the folder is filled; `None`: the folder has them all."""
    base: Release | None = None
    """The release served until another is activated; `None` if models are served that are no release."""
    judged_apart: bool = False
    """True if a scorer of the settings judges, and no release's own value model or head is served."""
    options: EngineOptions = field(default_factory=EngineOptions)
    """The options that the engines were started with."""
    alone: bool = True
    """False in a fleet, whose epochs keep the history, and which says when this server answers."""
    _task: asyncio.Task[ActivationResult] | None = field(default=None)
    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(2, "ramify-releases"))
    """Threads that list the store: one that hangs holds these alone, and not those that the log is asked with."""

    @property
    def busy(self) -> bool:
        """True while an activation is under way."""
        return self._task is not None and not self._task.done()

    async def listing(self) -> ReleaseListing:
        """List every release on disk or on record."""
        recorded = {row.release_id: row for row in await self.log.releases()}
        history = await self.log.activations()
        stored = await self._in_store()
        rows = await asyncio.to_thread(catalogue, self.root, stored, self.base, recorded)
        served = self.engines.serving.release
        rejected = {row.id for row in rows if row.state == REJECTED}
        return ReleaseListing(served, way_back(history, served, rejected), rows, history)

    async def _in_store(self) -> Mapping[str, Manifest | None]:
        """Return the store's releases; none while it is away or hangs, so that those at hand can be activated."""
        if self.store is None:
            return {}
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(STORE_SECONDS):
                return await loop.run_in_executor(self._pool, in_store, self.store, self.root)
        except (WeightsError, TimeoutError) as error:
            why = str(error) or f"no answer in {STORE_SECONDS:g} s"
            logger.error("the releases of the object store cannot be listed: %s", why)
            return {}

    async def record(self, release_id: str, state: str, figures: dict[str, Any]) -> ReleaseEntry:
        """Record a gate's decision. Raises `not_found` for a release that is neither on disk nor on record."""
        known = {row.id: row for row in (await self.listing()).rows}
        if release_id not in known:
            raise unknown(release_id)
        await self.log.record_release(release_id, state, figures)
        return ReleaseEntry(release_id, state, figures, known[release_id].manifest)

    async def activate(
        self, release_id: str, grace: float, note: str = "", kind: ActivationKind = "activate"
    ) -> ActivationResult:
        """Serve another release. `grace`: seconds that running searches may go on. Cancelling the call leaves the
        activation alone. Raises `ServiceError`; `ActivationFailed` if the release before is still served, or again."""
        if self.busy:
            raise ServiceError("activation_in_progress", "another release is being activated", retry_after=5)
        if self.searches.draining:
            raise ServiceError("server_full", DRAINED, retry_after=30)
        if self.engines.serving.remote:
            raise ServiceError(
                "conflict",
                "the policy is on another server, which alone replaces its weights: activate nothing here",
            )
        before = self.engines.serving.source
        if before is None:
            raise ServiceError(
                "conflict", "this server serves models that are no release, so it cannot activate one"
            )
        return await self._by_itself(self._activate(release_id, before, grace, note, kind), release_id)

    async def prepare(self, release_id: str) -> Release:
        """Check a release's files as an activation does, which brings them into memory; nothing stops meanwhile.

        Raises `ServiceError`."""
        before = self.engines.serving.source
        assert before is not None, "a fleet's server serves releases"
        return await self._checked(release_id, before)

    async def take(self, release: Release, grace: float) -> ActivationResult:
        """Serve a release that `prepare` has returned, as `activate` does; the fleet has recorded who asked for it.

        Raises `ServiceError`."""
        before = self.engines.serving.source
        assert before is not None, "a fleet's server serves releases"
        if release.id == before.id and release.content == before.content:
            return ActivationResult(release.id, None)
        change = _Change(release, before, "", "activate")
        return await self._by_itself(self._take(change, grace, self.clock()), release.id)

    async def _by_itself(
        self, work: Coroutine[Any, Any, ActivationResult], release_id: str
    ) -> ActivationResult:
        """Carry out an activation in a task of its own, which a cancelled call leaves alone."""
        self._task = asyncio.create_task(work, name=f"activate-{release_id[:10]}")
        self._task.add_done_callback(_seen)
        return await asyncio.shield(self._task)

    async def rollback(self, grace: float, note: str = "") -> ActivationResult:
        """Serve the release that was active before. Raises as `activate` does, and `conflict` if there is none."""
        previous = (await self.listing()).previous
        if previous is None:
            raise ServiceError("conflict", "no release was active before this one")
        return await self.activate(previous, grace, note, "rollback")

    async def settle(self, seconds: float) -> None:
        """Wait for an activation under way, then end it as a crash would."""
        if self._task is not None and self.busy:
            await asyncio.wait((self._task,), timeout=seconds)
            self._task.cancel()
            await asyncio.wait((self._task,))

    async def _activate(
        self, release_id: str, before: Release, grace: float, note: str, kind: ActivationKind
    ) -> ActivationResult:
        began = self.clock()
        recorded = {row.release_id: row for row in await self.log.releases()}
        require_not_rejected(release_id, recorded.get(release_id))
        if release_id == before.id:
            await self._as_recorded(before, note, kind)
            self._in_service()
            return ActivationResult(release_id, (await self.listing()).previous)
        release = await self._checked(release_id, before)
        return await self._take(_Change(release, before, note, kind), grace, began)

    async def _take(self, change: _Change, grace: float, began: float) -> ActivationResult:
        release, before = change.release, change.before
        logger.info("activating release=%s previous=%s", release.id, before.id)
        try:
            if release.stands_on_weights_of(before, judged_apart=self.judged_apart):
                report, seconds = await self._swap_beside(change)
            else:
                report, seconds = await self._swap(change, grace)
        except EngineDead as error:
            raise ServiceError(
                "engine_unavailable", "an engine died during the activation", retry_after=30
            ) from error
        except ActivationFailed as error:
            await self._failed(release.id, error.message)
            raise
        total = self.clock() - began
        self._in_service()
        self.metrics.activation("activated")
        logger.info(
            "activated release=%s previous=%s distinguishable=%d/%d drain=%.3f reload=%.3f canary=%.3f total=%.3f",
            *(release.id, before.id, report.distinguishable, report.probes),
            *(seconds.drain, seconds.reload, seconds.canary, total),
        )
        if not report.distinguishable:
            logger.warning("release=%s cannot be told from %s by its canary", release.id, before.id)
        return ActivationResult(release.id, before.id, report, replace(seconds, total=total))

    def _in_service(self) -> None:
        """Take requests, should an active release that could not be loaded have forbidden it."""
        if self.alone:
            self.searches.admission.standing.refusal = None

    # -- before anything is touched

    async def _checked(self, release_id: str, before: Release) -> Release:
        try:
            line = lineage(await self.log.activations())
            return await asyncio.to_thread(self._check, release_id, before, line[-_WAYS_BACK:])
        except ReleaseNotFound:
            raise unknown(release_id) from None
        except (WeightsError, OSError, EngineError) as error:
            message = f"{release_id} was not activated, {before.id} is served as before: {error}"
            self.metrics.activation("refused")
            await self._failed(release_id, message)
            raise ActivationFailed(message) from error

    def _check(self, release_id: str, before: Release, line: Sequence[str]) -> Release:
        bases = [self.base.id] if self.base is not None else []
        fetched(self.store, release_id, {before.id, *bases, *line})
        release = load_release(resolve(self.root, self.base, release_id))
        try:
            load_release(before.path, verify=False)
        except ReleaseNotFound as error:  # the asked one is there: this is no 404
            raise WeightsError(f"there would be no way back: {error}") from error
        require_servable(release, self.options)
        require_alike(before, release, judged_apart=self.judged_apart)
        self._check_adapters(release, before)
        return release

    def _check_adapters(self, release: Release, before: Release) -> None:
        """Raise `EngineError` if policies beside the one served are adapters on weights that would go."""
        adapters = [name for name, other in self.engines.others.items() if other.options.release is not None]
        if adapters and not release.stands_on_weights_of(before, judged_apart=True):
            raise EngineError(
                f"the policies {', '.join(adapters)} are adapters on the weights of {before.id}: start the server "
                "without them, or with adapters on the new weights (settings policies)"
            )

    # -- the swap

    async def _swap(self, change: _Change, grace: float) -> tuple[canary.CanaryReport, ActivationSeconds]:
        """Serve other weights, which no search may see being loaded."""
        admission, began = self.searches.admission, self.clock()
        # Drain: nobody is let in, what runs ends, and the engines are this task's alone.
        admission.pause()
        try:
            await self.searches.quiesce(grace)
            async with self.engines.exclusive(IDLE_SECONDS):
                drained = self.clock()
                texts, figures = await self._before(change)
                # Load, believe only the canary, commit. From here on a failure loads the release before again.
                try:
                    async with asyncio.timeout(RELOAD_SECONDS) as limit:
                        loading = self.clock()
                        await self._load(change.release)
                        loaded = self.clock()
                        emptied = self.engines.reset_prefix_caches
                        report, checked = await self._try(change, texts, figures, limit, emptied)
                except EngineDead:
                    raise
                except Exception as error:
                    await self._load_back(change, texts, figures, error)
                    raise change.failed(f"{change.before.id} is loaded again and served", error) from error
        except (EngineDead, ActivationFailed):
            raise
        except Exception as error:
            self.metrics.activation("refused")
            raise change.failed(f"{change.before.id} is served as before", error) from error
        finally:
            if not self.engines.dead.is_set():  # else the server ends, and nobody may search what they hold
                admission.resume()
        self.metrics.reloaded(loaded - loading)
        return report, ActivationSeconds(drained - began, loaded - loading, checked - loaded)

    async def _swap_beside(self, change: _Change) -> tuple[canary.CanaryReport, ActivationSeconds]:
        """Serve another adapter on the weights that are loaded, or none, while searches go on under the one before."""
        try:
            texts, figures = await self._before(change)
            async with asyncio.timeout(RELOAD_SECONDS) as limit:
                loading = self.clock()
                # The engine keeps cached prefixes by adapter, and requests of others are in its caches.
                report, checked = await self._try(change, texts, figures, limit, _leave)
        except EngineDead:
            raise
        except Exception as error:
            self.metrics.activation("refused")
            raise change.failed(f"{change.before.id} is served as before", error) from error
        return report, ActivationSeconds(canary=checked - loading)

    async def _before(self, change: _Change) -> tuple[list[Text], list[Measurement]]:
        """Return the texts of the canary, and their figures under what is served, to tell the two apart; this warms
        every prefix, so that a stale one shows."""
        texts = canary.texts_of(change.release.manifest.canary)
        long = long_text(texts, self.engines.max_model_len)
        if long is not None:
            texts.append(long)
        async with asyncio.timeout(RELOAD_SECONDS):
            return texts, await self.engines.measure(texts, self.engines.serving.calibration)

    async def _load(self, release: Release) -> None:
        await self.engines.reload(release.policy_path, release.value_path, release.value_head)

    async def _try(
        self,
        change: _Change,
        texts: Sequence[Text],
        before: Sequence[Measurement],
        limit: asyncio.Timeout,
        empty_caches: Callable[[], Awaitable[None]],
    ) -> tuple[canary.CanaryReport, float]:
        """Lease the release, whose weights are loaded, and commit if the canary agrees, whose time `limit` is. Return
        its report and its end."""
        serving = self.serving_of(change.release)
        async with self.engines.trying(serving):
            report = await canary.ask(
                self.engines, change.release, texts, before, serving.calibration, empty_caches
            )
            limit.reschedule(None)
            checked = self.clock()
            await self._commit(change, serving, report)
        return report, checked

    async def _commit(self, change: _Change, serving: Serving, report: canary.CanaryReport) -> None:
        release, note = change.release, change.note
        if not self.alone:
            self.engines.serving = serving
            return
        await self._as_recorded(change.before, "served until now", "automatic")
        if not (note or report.distinguishable):
            note = "its canary cannot tell it from the release before"
        await self.log.commit_activation(release.id, note, change.kind)
        self.engines.serving = serving

    async def _load_back(
        self,
        change: _Change,
        texts: Sequence[Text],
        figures: Sequence[Measurement],
        error: Exception,
    ) -> None:
        """Load the release before again. Raises `EngineDead` if that fails too: the engines may hold anything."""
        release, before = change.release, change.before
        logger.error("release=%s failed (%s): loading %s again", release.id, said(error), before.id)
        try:
            async with asyncio.timeout(RELOAD_SECONDS):
                await self._load(before)
                await self.engines.reset_prefix_caches()
                again = await self.engines.measure(texts, self.engines.serving.calibration)
            canary.same(figures, again, self.engines.tolerance, f"{before.id} does not give its own figures")
        except Exception as worse:
            reason = f"{release.id} failed and {before.id} could not be loaded again: {said(worse)}"
            self.metrics.activation("fatal")
            logger.critical("%s", reason)
            self.engines.give_up(reason)
            raise EngineDead(reason) from worse
        self.metrics.activation("rolled_back")
        with suppress(LogError):  # without this row the log still names the release that is served
            await self._as_recorded(
                before, f"{release.id} failed: {said(error)}"[:500], "automatic", always=True
            )

    # -- the log

    async def _as_recorded(
        self, release: Release, note: str, kind: ActivationKind, *, always: bool = False
    ) -> None:
        """Have the log name what is served: write a row if it names another release, or `always`."""
        if not self.alone:
            return
        active = await self.log.active_release()
        if active is not None and active.release_id == release.id and not always:
            return
        if release.id not in {row.release_id for row in await self.log.releases()}:
            await self.log.record_release(release.id, "available", {})
        await self.log.activate(release.id, note, kind)

    async def _failed(self, release_id: str, message: str) -> None:
        logger.error("activation failed: %s", message)
        if not self.alone:
            return
        try:
            await self.log.activation_failed(release_id, message)
        except LogError as error:
            logger.error("the failure of %s could not be recorded: %s", release_id, error)


def require_not_rejected(release_id: str, record: ReleaseRecord | None) -> None:
    """Raise `ServiceError` for a release that the gate has rejected."""
    if record is not None and record.state == REJECTED:
        raise ServiceError(
            "release_rejected", f"the gate has rejected {release_id}: record another decision of it first"
        )


def unknown(release_id: str) -> ServiceError:
    return ServiceError("not_found", f"no release {release_id[:40]!r} here", param="release")


def said(error: BaseException) -> str:
    return str(error) or type(error).__name__


async def _leave() -> None:
    """Empty no caches."""


def _seen(task: asyncio.Task[ActivationResult]) -> None:
    if not task.cancelled():
        task.exception()
