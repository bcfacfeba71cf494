"""The rows of a fleet, what one look at all of them shows, and what is refused.

Times are Unix seconds of the database's clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from ramify.treelog import ActivationKind

State = Literal["preparing", "committing", "committed", "going_back", "gone_back"]
Mode = Literal["rolling", "barrier"]
Work = Literal["preparing", "switching", "closing"]
UNDER_WAY = ("preparing", "committing", "going_back")
"""States of an activation that has not ended."""


@dataclass(frozen=True, slots=True)
class Epoch:
    """One activation of a release in the whole fleet; the committed one of the highest number is what is served.

    One that is only asked for has no number and no times yet: they are 0."""

    number: int
    """From 1 on, rising."""
    release: str
    content: str
    """sha256 over the release's files: the same id with other weights is another release."""
    state: State
    mode: Mode
    kind: ActivationKind
    note: str
    asked_by: str
    """Address of the replica that was asked."""
    share: float
    """Least share of the replicas that stays in service meanwhile, if rolling."""
    grace: float
    """Seconds that running searches may go on before a replica takes the release."""
    created_at: float = 0.0
    """Unix seconds."""
    deadline: float = 0.0
    """Time after which it goes back."""
    ended_at: float | None = None
    error: str | None = None
    """Why it went back."""

    @property
    def under_way(self) -> bool:
        return self.state in UNDER_WAY


@dataclass(frozen=True, slots=True)
class Replica:
    """One process that serves, from its start to its end: started again, it is another replica."""

    id: str
    address: str
    """Address at which the others and people reach it."""
    version: str
    """Ramify's."""
    started_at: float
    lease: float
    """Seconds for which it may answer after it began a look at the fleet that succeeded."""
    seen_at: float = 0.0
    loaded: int = 0
    """Number of the epoch whose release its engines hold; 0: they are starting."""
    prepared: int = 0
    """Number of the last epoch whose files it has checked; 0: none."""
    serving: int = 0
    """Number of the epoch under which it may be answering; 0: it answers nothing. Written before it opens and after it
    has closed, so that it never claims too little."""
    work: Work | None = None
    """The step that it is taking."""
    failing: int = 0
    """Number of the epoch that it last failed to prepare or load; 0: none."""
    failures: int = 0
    """Times that it failed so in a row."""
    error: str | None = None
    """How it failed last."""
    evicted: bool = False
    leaving: bool = False
    """True once it drains."""
    report: Mapping[str, Any] | None = None
    """How long its last change of release took, and what its canary found."""
    number: int | None = None
    """Number that its answers and ids name, 0 to 255. `None` before it has joined."""
    admin: str | None = None
    """Address of its admin listener; `None`: it has none."""
    key_tokens: int | None = None
    """Tokens that one API key may hold in the whole fleet, by its settings; `None`: no limit."""
    demands: Mapping[str, int] = field(default_factory=dict)
    """Tokens that each API key in use holds and waits for here."""
    shares: Mapping[str, int] | None = None
    """Tokens that each API key may hold here (`shares`); `None`: it lets nobody in yet, or there is no limit."""

    def failed(self, epoch: int, error: str) -> Replica:
        """Return the row after a step for an epoch has failed."""
        failures = self.failures + 1 if self.failing == epoch else 1
        return replace(self, work=None, failing=epoch, failures=failures, error=error[:500])


@dataclass(frozen=True, slots=True)
class Step:
    """The next thing that a replica has to do."""

    work: Work
    epoch: Epoch
    """The epoch to prepare or to switch to; the committed one if it only closes."""


@dataclass(frozen=True, slots=True)
class View:
    """The rows at one moment."""

    now: float
    replicas: Mapping[str, Replica]
    """By id."""
    committed: Epoch
    newest: Epoch
    """The last activation that was asked for: the committed epoch, one under way, or one that went back."""
    seen: float = 0.0
    """When any replica last looked."""
    since: float = 0.0
    """When replicas began to look again after none had, as when the database was away."""

    @property
    def activation(self) -> Epoch | None:
        """The activation under way."""
        return self.newest if self.newest.under_way else None

    def having(self, *rows: Replica) -> View:
        return replace(self, replicas={**self.replicas, **{row.id: row for row in rows}})

    def ending(self, state: State, error: str | None = None) -> View:
        """Return the view once the activation under way has come to another state."""
        ended = self.now if state in ("committed", "gone_back") else None
        newest = replace(self.newest, state=state, ended_at=ended, error=error or self.newest.error)
        return replace(self, newest=newest, committed=newest if state == "committed" else self.committed)


class FleetError(Exception):
    """A replica may not join, or a fleet does not start or end: the message says what to change."""


class ActivationUnderWay(Exception):
    """Another activation has not ended; `epoch` is its row."""

    def __init__(self, epoch: Epoch) -> None:
        super().__init__(f"{epoch.release} is being activated")
        self.epoch = epoch
