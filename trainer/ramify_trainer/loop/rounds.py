"""One round after another: collect → pull → train → gate → publish → activate → advance.

A candidate that the gate rejects is published too, recorded as rejected, and never served; the next round goes on from
the incumbent's weights and optimizer, and learns from the rejected round's trees again. The log's cursor moves last, so
a run that is killed reads again what it had not yet learned from.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ramify import weights
from ramify_client import AsyncAdmin, AsyncClient, Conflict
from ramify_trainer.config import LoopConfig
from ramify_trainer.errors import TrainerError
from ramify_trainer.gate.candidate import Gate
from ramify_trainer.gate.policy_scores import PolicyScores, require_askable, score_policy
from ramify_trainer.loop.collection import collect
from ramify_trainer.loop.progress import ComputeThread, RunProgress
from ramify_trainer.loop.puller import Puller
from ramify_trainer.loop.release import published, seeded
from ramify_trainer.loop.round_trees import freeze, label_trees, read_trees, solved_share, unlearned
from ramify_trainer.loop.state import RoundRecord, State, folder, lease_owner, plain
from ramify_trainer.loop.training import Team

logger = logging.getLogger(__name__)
PhaseSummary = dict[str, Any]
"""Figures of a phase, for the log."""
PhaseProgress = Callable[[str, int, int], None]
"""Called with a phase, how much of it is done, and of how much."""
SHOWN = (
    "policy/kl",
    "policy/clip_share",
    "policy/entropy",
    "value/explained_variance",
    "staleness",
    "solved",
)
"""Training figures that the log shows."""
NEEDS_A_CANDIDATE = ("gate", "publish", "activate")


class Loop:
    """A run. `start` it once, then `round` until `done`, within `puller.holding`, which keeps the lease."""

    def __init__(
        self,
        config: LoopConfig,
        client: AsyncClient,
        admin: AsyncAdmin,
        tell: PhaseProgress,
        watch: RunProgress | None = None,
        team: Team | None = None,
    ) -> None:
        self.config, self.client, self.admin, self.tell = config, client, admin, tell
        self.watch, self.team = watch or RunProgress(), team or Team()
        self.folder = config.state
        self.folder.mkdir(parents=True, exist_ok=True)
        self.worker = ComputeThread()
        self.gate = Gate(config.gate, config.seed, self.folder / "gate", self.worker)
        self.puller = Puller(
            client,
            config.name,
            lease_owner(self.folder, config.name),
            self.folder / "quarantine",
            config.server.lease_seconds,
        )
        self.state: State

    async def start(self) -> None:
        """Take the lease, seed the folder of weights, and see to it that the incumbent is served.

        Raises `TrainerError`, `ramify.weights.WeightsError`, `ramify_client.RamifyError`, and `BadDataset` or
        `ValueError` if the gate's problems cannot be read or asked."""
        base = seeded(self.config.base, self.config.weights)
        gate = self.config.gate
        await asyncio.to_thread(require_askable, self._release(base).policy_path, gate, self.config.seed)
        found = State.load(self._state_path)
        if found is not None and found.run != self.config.name:
            raise TrainerError(
                f"{self.folder} is of the run {found.run!r}; give this one another state folder"
            )
        self.state = found or State.begin(self.config.name, base)
        await self.puller.open()
        await self._catch_up()
        await self._settle()
        self._save()

    @property
    def done(self) -> bool:
        return self.config.rounds is not None and self.state.round > self.config.rounds

    async def round(self) -> RoundRecord:
        """Do what is left of the present round."""
        state = self.state
        phases: dict[str, Callable[[], Awaitable[PhaseSummary]]] = {
            "collect": self._collect,
            "pull": self._pull,
            "train": self._train,
            "gate": self._gate,
            "publish": self._publish,
            "activate": self._serve,
            "advance": self._advance,
        }
        names = list(phases)
        if state.phase == "collect":
            await self._settle()
        for name in names[names.index(state.phase) :]:
            if state.current.steps or name not in NEEDS_A_CANDIDATE:
                await self._do(name, phases[name])
            if name != "advance":
                state.phase = names[names.index(name) + 1]  # type: ignore[assignment]
                self._save()
        record, here = state.current, self._here
        state.end_round()
        self._save()
        for part in ("policy", "value") if record.promoted else ("policy", "value", "learner"):
            shutil.rmtree(here / part, ignore_errors=True)  # released, or never needed again
        return record

    async def held_out(self, release: str) -> PolicyScores:
        """A release on the held-out problems, without search. For the report only."""
        kept = self.folder / "held_out" / f"{release}.json"
        return await score_policy(
            self._release(release).policy_path, self.config.held_out, self.config.seed, kept, self.worker
        )

    async def _do(self, name: str, phase: Callable[[], Awaitable[PhaseSummary]]) -> None:
        """One phase, under a lease that was renewed before it, with a line in the log."""
        with self.watch.during(name) as seconds:
            await self.puller.renew()
            said = await phase()
            self.state.current.seconds[name] = round(seconds(), 3)
            told = " ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in said.items())
            logger.info("round %d %s %.1f s %s", self.state.round, name, seconds(), told)

    # The phases. Each may be done again from its beginning.

    async def _collect(self) -> PhaseSummary:
        c, state = self.config, self.state
        found = await collect(self.client, c.collect, c.name, state.round, c.seed, self._told("searched"))
        state.current.tokens = found.tokens
        return {"searches": found.searches, "tokens": found.tokens, **found.ended}

    async def _pull(self) -> PhaseSummary:
        self._here.mkdir(parents=True, exist_ok=True)
        records, current = self.puller.read(self.config.most_records), self.state.current
        carried = await asyncio.to_thread(self._carried)
        found = await freeze(
            records, self._trees, self.puller.tree_with_feedback, round_=current.round, carried=carried
        )
        current.records, current.verdicts = found.records, found.verdicts
        current.revisited, current.carried = found.revisited, found.carried
        self.state.upto = max(self.puller.cursor, self.puller.last_read)
        return {**asdict(found), "quarantined": self.puller.quarantined}

    def _carried(self) -> list[bytes]:
        """Lines that the round before has learned in vain: its candidate was not served. Trees stay for `max_staleness`
        rounds, so that rounds that fail one after another stay bounded."""
        state = self.state
        if not state.history or state.history[-1].result not in ("rejected", "refused"):
            return []
        before = self.folder / folder(state.round - 1) / self._trees.name
        return unlearned(before, state.round - self.config.learning.max_staleness)

    async def _train(self) -> PhaseSummary:
        state, config, record = self.state, self.config, self.state.current
        trees = await label_trees(self._trees, config.outcomes, state.staleness)
        record.trees, record.steps = len(trees), 0
        if not trees:
            record.reason = "nothing to learn from: the log held no tree since the last round"
            return {"trees": 0}
        begun = None if state.learner is None else self.folder / state.learner
        seeds = config.seed, config.seed * 1_000_003 + state.round
        job = config.learning, begun, self._release(state.served[0]), trees, self._here, seeds
        try:
            found, record.steps = await self.worker.run(self.team.learn, job, self._told("trained"))
        except FloatingPointError as error:
            record.reason = f"not trained: {error}"
            return {"failed": str(error)}
        if not found.steps:
            record.steps, record.reason = (
                0,
                f"nothing to learn from: none of {len(trees)} trees serves an objective",
            )
        if record.steps:
            await self._require_servable()
        record.training = plain({**found.figures(), "solved": solved_share(trees)})
        return {"trees": len(trees), "steps": found.steps} | {
            k: v for k, v in record.training.items() if k in SHOWN
        }

    async def _require_servable(self) -> None:
        """Hold the candidate against the incumbent as the server will. Raises `TrainerError`: nothing is gated that
        could never be served, and the next start trains again."""
        incumbent = self._release(self.state.incumbent)
        try:
            await self.worker.run(weights.require_alike, incumbent.path, self._here)
        except weights.WeightsError as error:
            raise TrainerError(f"the server would refuse round {self.state.round}: {error}") from error

    async def _gate(self) -> PhaseSummary:
        state, record = self.state, self.state.current
        incumbent, best = self._release(state.incumbent), self._release(state.best)
        decision, figures = await self.gate.decide(self._here, incumbent, best)
        record.promoted, record.reason, record.gate = decision.promoted, decision.reason, plain(figures)
        record.release = record.release or weights.next_id(self.config.weights)
        return {"release": record.release, "decision": decision.reason}

    async def _publish(self) -> PhaseSummary:
        state, record = self.state, self.state.current
        assert record.release is not None
        facts = {"training_step": record.steps, "metrics": record.gate, "log_cursor": state.upto}
        parts, parent = (self._here / "policy", self._here / "value"), self._release(state.incumbent)
        trees, _ = await self.worker.run(read_trees, self._trees)
        await self.worker.run(published, self.config.weights, record.release, parts, parent, trees, facts)
        await self._record("promoted" if record.promoted else "rejected")
        return {"release": record.release}

    async def _serve(self) -> PhaseSummary:
        state, record = self.state, self.state.current
        assert record.release is not None
        if not record.promoted:
            return {"served": state.incumbent}
        try:
            await self._activate(record.release)
        except Conflict as error:
            if error.code not in ("activation_failed", "release_rejected"):
                raise
            record.promoted, record.refused = False, True  # the server has gone back by itself
            record.reason = f"not served: {error}"
            await self._record("rejected")
            return {"served": state.incumbent, "refused": error}
        if state.incumbent != record.release:
            best = await self.gate.scores_of(self._release(state.best))
            state.incumbent, state.learner = record.release, f"{self._here.name}/learner"
            state.served.append(record.release)
            self.gate.keep(self._here / "gate.json", record.release)
            if (await self.gate.scores_of(self._release(record.release))).level > best.level:
                state.best = record.release
        return {"served": record.release}

    async def _advance(self) -> PhaseSummary:
        if self.puller.cursor < self.state.upto:
            await self.puller.advance(self.state.upto)
        return {"cursor": self.state.upto, "backlog": self.puller.backlog}

    # What they stand on

    async def _record(self, verdict: str) -> None:
        """Have the server keep the gate's verdict."""
        record = self.state.current
        figures = {**record.gate, "round": record.round, "reason": record.reason}
        await self.admin.record(str(record.release), verdict, figures)

    async def _catch_up(self) -> None:
        """If the log has forgotten the cursor, move it to what was learned from already; another log begins anew."""
        state, consumer = self.state, self.puller.consumer
        if consumer is None or state.phase not in ("collect", "pull") or consumer.cursor >= state.upto:
            return
        if consumer.high_water >= state.upto:
            logger.warning("the cursor is at %d and goes on at %d", consumer.cursor, state.upto)
            await self.puller.advance(state.upto)
        else:
            logger.warning(
                "the log ends at %d, before %d: it is another one", consumer.high_water, state.upto
            )
            state.upto = consumer.cursor

    async def _settle(self) -> None:
        """See to it that the server serves the incumbent, or go on from what an operator has gone back to."""
        state, served = self.state, (await self.admin.releases()).active
        if served in (state.incumbent, state.current.release):
            return
        if served not in state.served:
            await self._activate(state.incumbent)
        elif state.phase == "collect":
            logger.warning("the server was taken back to %s: going on from there", served)
            state.adopt(served)

    async def _activate(self, release: str) -> None:
        await self.admin.activate(
            release, deadline_seconds=self.config.server.activate_seconds, note=f"run {self.config.name}"
        )
        served = (await self.client.version()).release
        if served != release:
            raise TrainerError(f"{release} was activated, but the server serves {served}")

    def _release(self, release: str) -> weights.Release:
        return weights.load_release(self.config.weights / release)

    def _told(self, phase: str) -> Callable[[int, int], None]:
        def told(done: int, total: int) -> None:
            self.worker.check()
            self.watch.progressed(done, total)
            self.tell(phase, done, total)

        return told

    @property
    def _here(self) -> Path:
        return self.folder / folder(self.state.round)

    @property
    def _trees(self) -> Path:
        return self._here / "trees.ndjson"

    @property
    def _state_path(self) -> Path:
        return self.folder / "state.json"

    def _save(self) -> None:
        self.state.save(self._state_path)
