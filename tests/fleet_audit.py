"""Hold what clients of a fleet were answered against its log and its epochs: what is wrong, in words.

Nothing here asks a server. When an answer was made lies between the end of its search, which its tree tells, and its
arrival at the client; the epochs say which releases might be answered with then.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ramify.fleet import Epoch, FleetStore
from ramify.objects import ObjectOptions
from ramify.treelog import Entry, TreeLog

PATIENCE = 60.0
"""Seconds that the database may take to answer."""


@dataclass(frozen=True)
class Answered:
    """An answer as a client got it."""

    seed: int
    """Seed of the search: one for each that a client wanted, however often it had to ask."""
    tree: str
    """Id of its tree."""
    release: str
    arrived: float
    """Unix seconds."""


@dataclass(frozen=True)
class Logged:
    """A tree of the log."""

    id: str
    seed: int
    status: str
    releases: tuple[str, ...]
    """Those that drew its nodes."""
    ended: float
    """Unix seconds before which its search had not ended."""

    @property
    def owner(self) -> str:
        """Number of the replica that searched it, with which its id ends."""
        return self.id[-2:]


async def read_log(url: str, objects: ObjectOptions) -> list[Logged]:
    """The trees of a log. Every row and every body must be what was written."""
    async with await TreeLog.open(url, read_only=True, objects=objects) as log:
        report = await log.verify()
        assert report.ok, report.bad[:3]
        return [_logged(record) async for record in log.read() if isinstance(record, Entry)]


def _logged(entry: Entry) -> Logged:
    tree = entry.tree()
    ended = tree.created_at + tree.usage.seconds
    return Logged(tree.id, tree.seed, tree.status, tuple(tree.releases), ended)


async def read_epochs(url: str) -> list[Epoch]:
    """All epochs of a fleet, by number."""
    store = await FleetStore.open(url, PATIENCE)
    try:
        newest = (await store.view()).newest.number
        return [await store.epoch(number) for number in range(1, newest + 1)]
    finally:
        await store.close()


@dataclass(frozen=True)
class Reign:
    """When answers may be made with a release, in Unix seconds."""

    release: str
    since: float
    until: float


def reigns(epochs: Sequence[Epoch]) -> Iterator[Reign]:
    """The reigns of a fleet, of all its epochs in the order of their numbers.

    A release answers from its commit on, and, if it is rolled out, from when that was asked for; until the next one is
    committed, or it has gone back."""
    committed = [epoch for epoch in epochs if epoch.state == "committed"]
    for epoch in epochs:
        rolling = epoch.mode == "rolling"
        if epoch.state == "committed":
            assert epoch.ended_at is not None
            later = (other.ended_at for other in committed if other.number > epoch.number)
            since = epoch.created_at if rolling else epoch.ended_at
            yield Reign(epoch.release, since, next(later, None) or float("inf"))
        elif rolling:
            yield Reign(epoch.release, epoch.created_at, epoch.ended_at or float("inf"))


def faults(answers: Sequence[Answered], logged: Iterable[Logged], epochs: Sequence[Epoch]) -> Iterator[str]:
    """Say all that is wrong with the answers."""
    trees = list(logged)
    by_id, by_seed = {tree.id: tree for tree in trees}, defaultdict(list)
    for tree in trees:
        by_seed[tree.seed].append(tree)
    for name, times in Counter(tree.id for tree in trees).items():
        if times > 1:
            yield f"{name} is in the log {times} times"
    for seed, times in Counter(answer.seed for answer in answers).items():
        if times > 1:
            yield f"search {seed} was answered {times} times"
    periods = list(reigns(epochs))
    for answer in answers:
        tree = by_id.get(answer.tree)
        if tree is None or tree.seed != answer.seed:
            yield f"search {answer.seed} was answered, and {answer.tree} is not in the log"
            continue
        for other in again(by_seed[answer.seed], tree):
            if other.owner == tree.owner:
                yield f"search {answer.seed} was answered with {answer.tree}, and is in the log as {other.id} too"
        if set(tree.releases) != {answer.release}:
            yield f"{answer.tree} was answered as of {answer.release} and drawn by {', '.join(tree.releases)}"
        if not any(_made_in(reign, answer, tree) for reign in periods):
            yield (
                f"{answer.tree} was answered with {answer.release} between {tree.ended:.3f} and "
                f"{answer.arrived:.3f}, when it was not served"
            )


def again(trees: Iterable[Logged], answered: Logged) -> list[Logged]:
    """The others that searched to the end what was answered with one.

    A replica that was cut off as a search ended logs it once it is back, and nobody is answered with it: another
    replica has searched anew by then. Two of one replica there must never be."""
    whole = [tree for tree in trees if tree.status == "complete" and tree.seed == answered.seed]
    return [tree for tree in whole if tree is not answered]


def _made_in(reign: Reign, answer: Answered, tree: Logged) -> bool:
    return reign.release == answer.release and tree.ended <= reign.until and answer.arrived >= reign.since
