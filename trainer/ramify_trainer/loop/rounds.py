"""One round after another: collect → pull → train → gate → publish → activate → advance.

A candidate that the gate rejects is published too, recorded as rejected, and never served; the next round goes on from
the incumbent's weights and optimizer, and learns from the rejected round's trees again. The log's cursor moves last, so
a run that is killed reads again what it had not yet learned from.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ramify import weights
from ramify.files import remove
from ramify_client import AsyncAdmin, AsyncClient, Conflict
from ramify_trainer.compute_thread import ComputeThread
from ramify_trainer.config import LoopConfig
from ramify_trainer.errors import TrainerError
from ramify_trainer.gate.candidate import Gate
from ramify_trainer.gate.policy_scores import PolicyScores, require_askable, require_sampler, score_policy
from ramify_trainer.learning import checkpoint
from ramify_trainer.learning.config import LearningConfig
from ramify_trainer.learning.labels import LabelledTree
from ramify_trainer.learning.trainee import require_optimizer
from ramify_trainer.loop.collection import at_temperature, collect
from ramify_trainer.loop.processes import train
from ramify_trainer.loop.puller import Puller
from ramify_trainer.loop.release import (
    candidate_base,
    compare_with_parent,
    copy_base,
    is_published,
    publish_candidate,
    release_store,
)
from ramify_trainer.loop.replay import keep_right, replayed
from ramify_trainer.loop.round_trees import (
    TREES,
    freeze,
    label_trees,
    read_trees,
    solved_share,
    unlearned,
)
from ramify_trainer.loop.state import STATE, RoundRecord, State, finite, lease_owner, round_folder
from ramify_trainer.loop.teacher import require_same_tokens
from ramify_trainer.loop.training import CANDIDATE, Job, begun_phases
from ramify_trainer.progress import Progress, RunProgress

logger = logging.getLogger(__name__)
PhaseSummary = dict[str, Any]
"""Figures of a phase, for the log."""
PhaseProgress = Callable[[str, int, int], None]
"""Called with a phase, how much of it is done, and of how much."""
SHOWN = (
    "policy/kl",
    "policy/clip_share",
    "policy/log_ratio_squared",
    "policy/entropy",
    "draws/entropy",
    "draws/pass_at_1",
    "draws/pass_at_8",
    "lessons/dropped_share",
    "lessons/right_answers",
    "value/explained_variance",
    "staleness",
    "solved",
    "phases_begun",
)
"""Training figures that the log shows, and the server's page of releases."""
NEEDS_A_CANDIDATE = ("gate", "publish", "activate")


class Loop:
    """A run. `start` it once, then `round` until `done`, within `puller.holding`, which keeps the lease.

    teacher: the server of a teacher, if there is one."""

    def __init__(
        self,
        config: LoopConfig,
        client: AsyncClient,
        admin: AsyncAdmin,
        tell: PhaseProgress,
        progress: RunProgress | None = None,
        teacher: AsyncClient | None = None,
    ) -> None:
        self.config, self.client, self.admin, self.tell = config, client, admin, tell
        self.teacher = teacher
        self.searching = teacher or client
        """The server that searches, and whose log is read."""
        self.progress = progress or RunProgress()
        self.folder = config.state
        self.folder.mkdir(parents=True, exist_ok=True)
        self.worker = ComputeThread()
        self.gate = Gate(
            config.gate,
            config.sampler,
            config.seed,
            self.folder / "gate",
            self.worker,
            self._told("measured"),
        )
        self.puller = Puller(
            self.searching,
            config.name,
            lease_owner(self.folder, config.name),
            self.folder / "quarantine",
            config.server.lease_seconds,
        )
        self.store = release_store(config)
        self._checked: set[str] = set()
        """Releases whose every byte was held against the manifest: they never change, so once a run is enough."""
        self.state: State

    async def start(self) -> None:
        """Take the lease, copy the base into the folder of weights and the object store, and make sure that the
        incumbent is served.

        Raises `TrainerError`, `ramify.weights.WeightsError`, `ramify_client.RamifyError`, and `BadDataset` or
        `ValueError` if the gate's problems cannot be read or asked."""
        # Before anything is paid for: the base is there, and the gate can ask it its problems.
        base = copy_base(self.config.base, self.config.weights)
        gate = self.config.gate
        require_sampler(self.config.sampler)
        require_optimizer(self.config.learning)
        await asyncio.to_thread(require_askable, self._release(base).policy_path, gate, self.config.seed)
        if self.teacher is not None:
            await require_same_tokens(self.teacher, self._release(base).policy_path)
        # A run that was stopped goes on from its state, on the cursor and the release that the state knows.
        state = State.load(self._state_path)
        if state is not None and state.run != self.config.name:
            raise TrainerError(
                f"{self.folder} is of the run {state.run!r}; give this one another state folder"
            )
        self.state = state or State.begin(self.config.name, base)
        await self._share(base)
        await self.puller.open()
        await self._catch_up()
        await self._settle()
        self._require_learner()
        self._save()
        await asyncio.to_thread(self._tidy)

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
        # The state is written after every phase, so that a run that is killed goes on with the phase it was in.
        for name in names[names.index(state.phase) :]:
            if state.current.steps or name not in NEEDS_A_CANDIDATE:
                await self._do(name, phases[name])
            if name != "advance":
                state.phase = names[names.index(name) + 1]  # type: ignore[assignment]
                self._save()
        record = state.current
        state.end_round()
        self._save()
        await asyncio.to_thread(self._tidy)
        return record

    async def held_out(self, release: str) -> PolicyScores:
        """Score a release on the held-out problems, without search. For the report only."""
        kept, models = self.folder / "held_out" / f"{release}.json", self._release(release).models
        return await score_policy(
            models.policy,
            self.config.held_out,
            self.config.seed,
            kept,
            self.worker,
            sampler=self.config.sampler,
            told=self._told("measured"),
            adapter=models.adapter,
        )

    def _require_learner(self) -> None:
        """Raise `TrainerError` if training could not go on from the incumbent's learner; nothing is searched then."""
        if self.state.learner is None:
            return
        try:
            checkpoint.facts_for(checkpoint.settled(self.folder / self.state.learner), self.config.learning)
        except (FileNotFoundError, ValueError) as error:
            raise TrainerError(f"the run {self.state.run} cannot go on: {error}") from error

    def _tidy(self) -> None:
        """Remove what ended rounds have left and none will need: models, which are in releases now, and learners but
        for the configured ones. Only after the state is on disk, which names what is needed; a removal that a kill has
        cut short is done again."""
        kept = self.state.kept_learners(self.config.keep_learners)
        for record in self.state.history:
            here = self.folder / round_folder(record.round)
            for part in CANDIDATE if record.round in kept else (*CANDIDATE, "learner"):
                try:
                    remove(here / part)
                except OSError as error:  # no reason to end a run: the next round tries again
                    logger.warning("%s was not removed: %s", here / part, error)

    async def _do(self, name: str, phase: Callable[[], Awaitable[PhaseSummary]]) -> None:
        """Do one phase under a lease that was renewed before it, and log what came of it."""
        with self.progress.during(name) as seconds:
            await self.puller.renew()
            said = await phase()
            self.state.current.seconds[name] = round(seconds(), 3)
            told = " ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in said.items())
            logger.info("round %d %s %.1f s %s", self.state.round, name, seconds(), told)

    # The phases. Each may be done again from its beginning.

    async def _collect(self) -> PhaseSummary:
        """Have the server search the round's problems."""
        c, state = self.config, self.state
        asked = at_temperature(c.collect, state.history)
        result = await collect(self.searching, asked, c.name, state.round, c.seed, self._told("searched"))
        state.current.tokens, state.current.collected = result.tokens, sorted(result.trees)
        said = {} if c.collect.temperature is None else {"temperature": asked.first_temperature}
        return {"searches": result.searches, "tokens": result.tokens, **said, **result.ended}

    async def _pull(self) -> PhaseSummary:
        """Read the log from the cursor on, and freeze the round's trees on disk."""
        self._here.mkdir(parents=True, exist_ok=True)
        records, current = self.puller.read(self.config.most_records), self.state.current
        carried = await asyncio.to_thread(self._carried)
        counts = await freeze(
            records, self._trees, self.puller.tree_with_feedback, round_=current.round, carried=carried
        )
        current.records, current.verdicts = counts.records, counts.verdicts
        current.revisited, current.carried = counts.revisited, counts.carried
        self.state.upto = max(self.puller.cursor, self.puller.last_read)
        return {**asdict(counts), "quarantined": self.puller.quarantined}

    def _carried(self) -> list[bytes]:
        """Return the lines of trees that the round before learned from in vain: its candidate was not served.

        Trees stay for `max_staleness` rounds, so that rounds that fail one after another stay bounded."""
        state = self.state
        if not state.history or state.history[-1].result not in ("rejected", "refused"):
            return []
        before = self.folder / round_folder(state.round - 1) / self._trees.name
        return unlearned(before, state.round - self.config.learning.max_staleness)

    async def _train(self) -> PhaseSummary:
        """Label the trees, and learn from them if there is anything to learn."""
        state, config, record = self.state, self.config, self.state.current
        collected = frozenset(record.collected)
        trees = await label_trees(self._trees, config.outcomes, self._staleness, collected=collected)
        record.trees, record.steps = len(trees), 0
        if not trees:
            record.reason = "nothing to learn from: the log held no tree since the last round"
            return {"trees": 0}
        # Training goes on from the incumbent's learner; the first release served is the reference of the KL term.
        begun = None if state.learner is None else self.folder / state.learner
        seeds = config.seed, config.seed * 1_000_003 + state.round
        incumbent, first = self._release(state.incumbent), self._release(state.served[0])
        phase = begun_phases(config.learning, state.history)
        learning = config.learning.after(phase)
        again = await asyncio.to_thread(self._replayed, learning, trees)
        job = Job(learning, begun, incumbent, first, [*trees, *again], self._here, seeds)
        try:
            metrics, steps = await self.worker.run(
                train, job, config.distributed, self._told("trained"), self.worker.check
            )
        except FloatingPointError as error:
            record.reason = f"not trained: {error}"
            return {"failed": str(error)}
        if metrics.steps:
            record.steps = steps
            await self._require_servable()
        else:
            record.reason = f"nothing to learn from: none of {len(trees)} trees serves an objective"
        temperature = at_temperature(config.collect, state.history).first_temperature
        also = {"solved": solved_share(trees), "phases_begun": phase, "temperature": temperature}
        record.training = finite({**metrics.figures(), **also})
        return {"trees": len(trees), "steps": metrics.steps} | {
            k: v for k, v in record.training.items() if k in SHOWN
        }

    def _replayed(self, learning: LearningConfig, trees: Sequence[LabelledTree]) -> list[LabelledTree]:
        """Keep the round's right answers, if a round will ever imitate them again, and return those of the rounds
        before."""
        if any(own.replay_rounds for own in self.config.learning.over_run):
            keep_right(trees, learning.correct, self._here)
        if not learning.imitates:
            return []
        return replayed(self.folder, self.state.round, learning, trees)

    async def _require_servable(self) -> None:
        """Hold the candidate against the incumbent as the server will. Raises `TrainerError`: nothing is gated that
        could never be served, and the next start trains again."""
        incumbent = self._release(self.state.incumbent)
        try:
            await self.worker.run(weights.require_alike, incumbent, self._candidate())
        except weights.WeightsError as error:
            raise TrainerError(f"the server would refuse round {self.state.round}: {error}") from error

    async def _gate(self) -> PhaseSummary:
        """Decide on the candidate, and choose the id that it is published under."""
        state, record = self.state, self.state.current
        incumbent, best = self._release(state.incumbent), self._release(state.best)
        decision, figures = await self.gate.decide(
            self._candidate(), self._here / "gate.json", incumbent, best
        )
        record.promoted, record.reason, record.gate = decision.promoted, decision.reason, finite(figures)
        record.release = record.release or await asyncio.to_thread(self._next_id)
        return {"release": record.release, "decision": decision.reason}

    async def _publish(self) -> PhaseSummary:
        """Make a release of the candidate, promoted or rejected, and have the server record the decision."""
        record = self.state.current
        while True:
            if record.release is None:
                record.release = await asyncio.to_thread(self._next_id)
            release = record.release
            if not is_published(self.config.weights, release):
                await self._write_release(release)
            try:
                await self._share(release)
                break
            except weights.ReleaseTaken as error:
                logger.warning("round %d: %s", record.round, error)
                await asyncio.to_thread(self._withdraw, release)
                record.release = None
                self._save()
        await self._record("promoted" if record.promoted else "rejected")
        return {"release": record.release, "canary_seconds": record.canary_seconds}

    async def _write_release(self, release_id: str) -> None:
        """Compare the candidate with its parent, and write the release."""
        state, record = self.state, self.state.current
        facts = {"training_step": record.steps, "metrics": record.gate, "log_cursor": state.upto}
        models, parent = self._candidate(), self._release(state.incumbent)
        trees, _ = await self.worker.run(read_trees, self._trees)
        began = self.progress.clock()
        compared = await self.worker.run(
            compare_with_parent,
            models.policy,
            models.value,
            parent,
            trees,
            self._told("probed"),
            models.adapter,
        )
        record.canary_seconds = round(self.progress.clock() - began, 3)
        await self.worker.run(
            publish_candidate, self.config.weights, release_id, models, parent, compared, facts
        )

    async def _serve(self) -> PhaseSummary:
        """Have the server load a promoted candidate, which is the incumbent then."""
        state, record = self.state, self.state.current
        assert record.release is not None
        if not record.promoted:
            return {"served": state.incumbent}
        # A server whose checks or canary fail has gone back to the incumbent by itself.
        try:
            await self._activate(record.release)
        except Conflict as error:
            if error.code not in ("activation_failed", "release_rejected"):
                raise
            record.promoted, record.refused = False, True
            record.reason = f"not served: {error}"
            await self._record("rejected")
            return {"served": state.incumbent, "refused": error}
        # Done again after a kill, the candidate may be the incumbent already.
        if state.incumbent != record.release:
            best = await self.gate.scores_of(self._release(state.best))
            state.incumbent, state.learner = record.release, f"{self._here.name}/learner"
            state.served.append(record.release)
            self.gate.keep(self._here / "gate.json", record.release)
            if (await self.gate.scores_of(self._release(record.release))).level > best.level:
                state.best = record.release
        return {"served": record.release}

    async def _advance(self) -> PhaseSummary:
        """Move the log's cursor past what the round has read."""
        if self.puller.cursor < self.state.upto:
            await self.puller.advance(self.state.upto)
        return {"cursor": self.state.upto, "backlog": self.puller.backlog}

    # Steps of several phases

    async def _record(self, decision: str) -> None:
        """Have the server keep the gate's decision."""
        record = self.state.current
        shown = {name: value for name, value in record.training.items() if name in SHOWN}
        figures = {**record.gate, "training": shown, "round": record.round, "reason": record.reason}
        await self.admin.record(str(record.release), decision, figures)

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
        """Make sure that the server serves the incumbent, or go on from what an operator has gone back to."""
        state, served = self.state, (await self.admin.releases()).active
        if served in (state.incumbent, state.current.release):
            return
        if served not in state.served:
            await self._activate(state.incumbent)
        elif state.phase == "collect":
            logger.warning("the server was taken back to %s: going on from there", served)
            state.adopt(served)
            if state.learner is not None and not (self.folder / state.learner).exists():
                logger.warning("its learner is gone (keep_learners): training begins anew from its weights")
                state.learner = None

    async def _activate(self, release: str) -> None:
        await self.admin.activate(
            release, deadline_seconds=self.config.server.activate_seconds, note=f"run {self.config.name}"
        )
        served = (await self.client.version()).release
        if served != release:
            raise TrainerError(f"{release} was activated, but the server serves {served}")

    def _staleness(self, release: str) -> int:
        """Return the number of served releases since `release`; 0 for a teacher's, which are none of this server's."""
        return 0 if self.teacher is not None else self.state.staleness(release)

    def _candidate(self) -> weights.ModelFiles:
        """Return the models that the round has trained."""
        adapter = self._here / weights.ADAPTER
        if not adapter.exists():
            return weights.models_of(self._here)
        incumbent = self._release(self.state.incumbent)
        base = candidate_base(adapter, incumbent, self.config.weights)
        return weights.ModelFiles(base.policy_path, self._here / "value", adapter)

    def _next_id(self) -> str:
        return weights.next_id(self.config.weights) if self.store is None else self.store.next_id()

    async def _share(self, release: str) -> None:
        """Put a release into the object store, if there is one, for servers elsewhere. Raises `ReleaseTaken` if another
        publisher was faster."""
        if self.store is not None:
            await asyncio.to_thread(self.store.publish, self._release(release))

    def _withdraw(self, release: str) -> None:
        """Remove a release whose id another publisher has taken, or it would be served here under that id."""
        remove(self.config.weights / release)
        self._checked.discard(release)

    def _release(self, release: str) -> weights.Release:
        checked = weights.load_release(self.config.weights / release, verify=release not in self._checked)
        self._checked.add(release)
        return checked

    def _told(self, phase: str) -> Progress:
        def told(done: int, total: int) -> None:
            self.worker.check()
            self.progress.progressed(done, total)
            self.tell(phase, done, total)

        return told

    @property
    def _here(self) -> Path:
        return self.folder / round_folder(self.state.round)

    @property
    def _trees(self) -> Path:
        return self._here / TREES

    @property
    def _state_path(self) -> Path:
        return self.folder / STATE

    def _save(self) -> None:
        self.state.save(self._state_path)
