"""One round after another: collect → pull → train → gate → publish → activate → advance.

A candidate that the gate rejects is published too, recorded as rejected, and never served; the next round goes on from
the incumbent's weights and optimizer. The log's cursor moves last, so a run that is killed reads again what it had not
yet learned from.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

from ramify import weights
from ramify_client import AsyncAdmin, AsyncClient, Conflict
from ramify_trainer.collecting import collect
from ramify_trainer.errors import TrainerError
from ramify_trainer.gating import Measured, decide
from ramify_trainer.learning.learner import Learner
from ramify_trainer.loop.batch import freeze, labelled, right_answers
from ramify_trainer.loop.config import LoopConfig
from ramify_trainer.loop.measure import measured
from ramify_trainer.loop.release import published
from ramify_trainer.loop.state import RoundRecord, State, plain
from ramify_trainer.pulling import Puller

logger = logging.getLogger(__name__)
Tell = Callable[[str, int, int], None]
"""Told a phase, how much of it is done, and of how much."""


class Loop:
    """A run. `start` it once, then `round` until `done`."""

    def __init__(self, config: LoopConfig, client: AsyncClient, admin: AsyncAdmin, tell: Tell) -> None:
        self.config, self.client, self.admin, self.tell = config, client, admin, tell
        self.folder = config.state
        self.puller = Puller(client, config.name, f"trainer-{config.name}", self.folder / "quarantine")
        self.state: State

    async def start(self) -> None:
        """Take the lease, seed the folder of weights, and see to it that the incumbent is served.

        Raises `TrainerError`, `ramify.weights.WeightsError` and `ramify_client.RamifyError`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        base = self._seed()
        found = State.load(self._state_path)
        if found is not None and found.run != self.config.name:
            raise TrainerError(
                f"{self.folder} is of the run {found.run!r}; give this one another state folder"
            )
        self.state = found or State.begin(self.config.name, base)
        await self.puller.open()
        if (await self.admin.releases()).active != self.state.incumbent:
            await self._activate(self.state.incumbent)
        self._save()

    @property
    def done(self) -> bool:
        return self.state.round > self.config.rounds

    async def round(self) -> RoundRecord:
        """Do what is left of the present round."""
        state = self.state
        phases = {
            "collect": self._collect,
            "pull": self._pull,
            "train": self._train,
            "gate": self._gate,
            "publish": self._publish,
            "activate": self._serve,
            "advance": self._advance,
        }
        names = list(phases)
        for name in names[names.index(state.phase) :]:
            logger.info("round %d: %s", state.round, name)
            await self.puller.renew()
            await phases[name]()
            if name != "advance":
                state.phase = names[names.index(name) + 1]  # type: ignore[assignment]
                self._save()
        record = state.current
        state.end_round()
        self._save()
        return record

    async def held_out(self, release: str) -> Measured:
        """A release on the held-out problems, without search. For the report only."""
        kept = self.folder / "held_out" / f"{release}.json"
        return await measured(
            self._release(release).policy_path, self.config.held_out, self.config.seed, kept
        )

    # The phases. Each may be done again from its beginning.

    async def _collect(self) -> None:
        c, state = self.config, self.state
        found = await collect(self.client, c.collect, c.name, state.round, c.seed, self._told("searched"))
        state.current.tokens = found.tokens

    async def _pull(self) -> None:
        self._here.mkdir(parents=True, exist_ok=True)
        await freeze(self.puller.read(), self._here / "trees.ndjson")
        self.state.upto = max(self.puller.cursor, self.puller.last_read)

    async def _train(self) -> None:
        state, config = self.state, self.config
        trees = await labelled(self._here / "trees.ndjson", config.outcomes, state.staleness)
        if not trees:
            raise TrainerError(
                f"round {state.round} has no tree to learn from: the log held none since the last round"
            )
        learner = self._learner()
        found = learner.round(
            trees, seed=config.seed * 1_000_003 + state.round, progress=self._told("trained")
        )
        learner.save(self._here / "learner")
        for part in ("policy", "value"):
            shutil.rmtree(self._here / part, ignore_errors=True)
        learner.export(self._here / "policy", self._here / "value")
        learner.close()
        state.current.trees, state.current.steps = len(trees), learner.steps
        state.current.training = plain({**found.figures(), "solved": right_answers(trees)})

    async def _gate(self) -> None:
        state, gate, seed = self.state, self.config.gate, self.config.seed
        candidate = await measured(self._here / "policy", gate, seed, self._here / "gate.json")
        incumbent, best = await self._gated(state.incumbent), await self._gated(state.best)
        decision = decide(candidate, incumbent, best, gate.margin, seed)
        state.current.promoted, state.current.reason = decision.promoted, decision.reason
        state.current.gate = plain({**candidate.figures(), **decision.figures()})
        state.current.release = state.current.release or self._next_id()

    async def _publish(self) -> None:
        state, record = self.state, self.state.current
        assert record.release is not None
        trees = await labelled(self._here / "trees.ndjson", self.config.outcomes, state.staleness)
        published(
            self.config.weights,
            record.release,
            (self._here / "policy", self._here / "value"),
            self._release(state.incumbent),
            trees,
            training_step=record.steps,
            metrics=record.gate,
            log_cursor=state.upto,
        )
        verdict = "promoted" if record.promoted else "rejected"
        await self.admin.record(
            record.release, verdict, {**record.gate, "round": record.round, "reason": record.reason}
        )

    async def _serve(self) -> None:
        state, record = self.state, self.state.current
        assert record.release is not None
        if not record.promoted:
            return
        try:
            await self._activate(record.release)
        except Conflict as error:  # the server has gone back to the one before by itself
            record.promoted, record.reason = False, f"not served: {error}"
            await self.admin.record(record.release, "rejected", {**record.gate, "reason": record.reason})
            return
        if state.incumbent != record.release:
            best = await self._gated(state.best)
            state.incumbent, state.learner = record.release, f"{self._here.name}/learner"
            state.served.append(record.release)
            (self.folder / "gate").mkdir(exist_ok=True)
            shutil.copyfile(self._here / "gate.json", self.folder / "gate" / f"{record.release}.json")
            if (await self._gated(record.release)).level > best.level:
                state.best = record.release

    async def _advance(self) -> None:
        if self.puller.cursor < self.state.upto:
            await self.puller.advance(self.state.upto)

    # What they stand on

    def _learner(self) -> Learner:
        config, state = self.config, self.state
        reference = self._release(state.served[0])
        if state.learner is not None:
            return Learner.resume(config.learning, self.folder / state.learner, reference.policy_path)
        calibration = reference.manifest.calibration
        return Learner.start(
            config.learning,
            reference.policy_path,
            reference.value_path,
            reference.policy_path,
            calibration=(calibration.a, calibration.b),
            seed=config.seed,
        )

    async def _gated(self, release: str) -> Measured:
        kept = self.folder / "gate" / f"{release}.json"
        return await measured(self._release(release).policy_path, self.config.gate, self.config.seed, kept)

    async def _activate(self, release: str) -> None:
        await self.admin.activate(
            release, deadline_seconds=self.config.server.activate_seconds, note=f"run {self.config.name}"
        )
        served = (await self.client.version()).release
        if served != release:
            raise TrainerError(f"{release} was activated, but the server serves {served}")

    def _seed(self) -> str:
        """Copy the base into the folder of weights, unless it is there; its id."""
        base = weights.load_release(
            weights.shipped() if self.config.base == "shipped" else Path(self.config.base)
        )
        target = self.config.weights / base.id
        if not target.exists():
            self.config.weights.mkdir(parents=True, exist_ok=True)
            draft = self.config.weights / f".seeding-{base.id}"
            shutil.rmtree(draft, ignore_errors=True)
            shutil.copytree(base.path, draft)
            draft.rename(target)
        return base.id

    def _next_id(self) -> str:
        return weights.next_id(self.config.weights)

    def _release(self, release: str) -> weights.Release:
        return weights.load_release(self.config.weights / release)

    def _told(self, phase: str) -> Callable[[int, int], None]:
        return lambda done, total: self.tell(phase, done, total)

    @property
    def _here(self) -> Path:
        return self.folder / f"round-{self.state.round:04d}"

    @property
    def _state_path(self) -> Path:
        return self.folder / "state.json"

    def _save(self) -> None:
        self.state.save(self._state_path)
