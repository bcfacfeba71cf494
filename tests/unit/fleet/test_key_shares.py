"""Shares of an API key's limit: never more than the limit together, and soon all that is demanded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from hypothesis import given
from hypothesis import strategies as st

from ramify.fleet.records import Replica
from ramify.fleet.shares import EACH, asking, granted, lowered, share

LIMIT, KEYS = 100, ("alice", "bob")


@dataclass
class Process:
    """A replica as it knows itself, on one look after another."""

    mine: Replica
    goes_by: dict[str, int] = field(default_factory=lambda: {EACH: 0})
    demands: dict[str, int] = field(default_factory=dict)
    held: dict[str, int] = field(default_factory=dict)
    known: list[Replica] = field(default_factory=list)
    """The others, as the last look showed them."""
    reply: tuple[Replica, list[Replica]] | None = None
    """A look that was committed and that this replica has not heard of yet."""

    def ask(self) -> None:
        demands = {key: tokens for key, tokens in self.demands.items() if tokens}
        self.mine = asking(self.mine, self.known, LIMIT, demands, self.held)
        assert self.mine.shares is not None
        self.goes_by = dict(lowered(self.goes_by, self.mine.shares))

    def hear(self) -> None:
        if self.reply is not None:
            self.mine, self.known = self.reply
            assert self.mine.shares is not None
            self.goes_by, self.reply = dict(self.mine.shares), None

    def demand(self, key: str, tokens: int) -> None:
        self.demands[key] = max(tokens, self.held.get(key, 0))

    def let_in(self, key: str) -> None:
        """Let in as much of what is demanded as the share allows."""
        may = min(self.demands.get(key, 0), share(self.goes_by, key))
        self.held[key] = max(may, self.held.get(key, 0))

    def end(self, key: str) -> None:
        self.held[key] = self.demands[key] = 0


@dataclass
class Fleet:
    rows: dict[str, Replica] = field(default_factory=dict)
    processes: dict[str, Process] = field(default_factory=dict)

    def join(self, name: str) -> None:
        row = Replica(name, name, "1", 0.0, 10.0)
        self.rows[name] = row
        self.processes[name] = Process(row, known=self.others(name))

    def leave(self, name: str) -> None:
        """It is gone, and its row no longer counts."""
        del self.rows[name], self.processes[name]

    def others(self, name: str) -> list[Replica]:
        return [row for row in self.rows.values() if row.id != name]

    def commit(self, name: str) -> None:
        """The transaction of a look, whose answer is on its way."""
        process = self.processes[name]
        process.reply = None  # the one before was given up
        process.ask()
        me = replace(process.mine, evicted=self.rows[name].evicted)
        self.rows[name] = granted(me, self.others(name))
        process.reply = self.rows[name], self.others(name)

    def look(self, name: str) -> None:
        self.commit(name)
        self.processes[name].hear()

    def evict(self, name: str) -> None:
        """Another's look decides so; this one hears of it by its own."""
        self.rows[name] = replace(self.rows[name], evicted=True)

    def settle(self) -> None:
        """Have everybody look a few times, each look answered at once."""
        for name in [*self.processes] * 5:
            self.look(name)

    def shares(self, key: str) -> list[int]:
        return [share(process.goes_by, key) for process in self.processes.values()]


def a_fleet(names: Sequence[str]) -> Fleet:
    fleet = Fleet()
    for name in names:
        fleet.join(name)
    fleet.settle()
    return fleet


STEP = st.tuples(
    st.sampled_from(("commit", "hear", "demand", "let_in", "end", "join", "leave", "drain", "evict")),
    st.sampled_from("abcd"),
    st.sampled_from(KEYS),
    st.integers(0, LIMIT),
)


@given(st.lists(STEP, max_size=80))
def test_replicas_never_let_in_more_than_a_keys_limit_together(
    steps: list[tuple[str, str, str, int]],
) -> None:
    """Whatever the order of looks, whose answers may be late or lost, and whoever joins, drains, is evicted or goes."""
    fleet = Fleet()
    for what, name, key, tokens in steps:
        if name not in fleet.processes:
            if what == "join":
                fleet.join(name)
            continue
        process = fleet.processes[name]
        if what == "commit":
            fleet.commit(name)
        elif what in ("leave", "evict"):
            getattr(fleet, what)(name)
        elif what == "drain":
            process.mine = replace(process.mine, leaving=True)
        elif what == "demand":
            process.demand(key, tokens)
        elif what in ("let_in", "end"):
            getattr(process, what)(key)
        else:
            process.hear()
        for each in KEYS:
            held = [process.held.get(each, 0) for process in fleet.processes.values()]
            assert sum(held) <= LIMIT, each
            assert all(a <= b for a, b in zip(held, fleet.shares(each), strict=True))


@given(st.lists(st.integers(0, LIMIT), min_size=1, max_size=4))
def test_after_a_few_looks_each_has_what_it_demands_if_that_is_not_too_much(demands: list[int]) -> None:
    fleet = a_fleet("abcd"[: len(demands)])
    for process, tokens in zip(fleet.processes.values(), demands, strict=True):
        process.demand("alice", tokens)
    fleet.settle()
    enough = [share >= tokens for share, tokens in zip(fleet.shares("alice"), demands, strict=True)]
    assert all(enough) if sum(demands) <= LIMIT else enough[0]  # else the first by id has its own


def test_a_key_that_nobody_uses_has_equal_shares_and_one_that_one_uses_all_of_it_there() -> None:
    fleet = a_fleet("abcd")
    assert fleet.shares("alice") == [25, 25, 25, 25]
    fleet.processes["c"].demand("alice", LIMIT)
    fleet.settle()
    assert fleet.shares("alice") == [0, 0, 100, 0]
    assert fleet.shares("bob") == [25, 25, 25, 25]
    fleet.processes["c"].demand("alice", 0)
    fleet.settle()
    assert fleet.shares("alice") == [25, 25, 25, 25]
    assert all(set(row.shares or ()) == {EACH} for row in fleet.rows.values())


def test_a_replica_that_is_gone_leaves_its_share_and_one_that_drains_keeps_what_it_holds() -> None:
    fleet = a_fleet("ab")
    for name in "ab":
        fleet.processes[name].demand("alice", 50)
        fleet.processes[name].let_in("alice")
    fleet.processes["b"].mine = replace(fleet.processes["b"].mine, leaving=True)
    fleet.settle()
    assert fleet.shares("alice") == [50, 50]
    assert fleet.shares("bob") == [100, 0]
    fleet.leave("b")
    fleet.settle()
    assert fleet.shares("alice") == [100]


def test_a_replica_goes_by_no_more_than_its_row_says_until_it_hears_of_that() -> None:
    """A key comes to rest in the look in which the replica first knows that another is evicted: its equal part is
    larger by then, but not free yet."""
    fleet = a_fleet("abc")
    fleet.processes["a"].demand("alice", LIMIT)
    fleet.settle()
    fleet.evict("b")
    fleet.look("a")
    fleet.processes["a"].demand("alice", 0)
    fleet.commit("a")
    fleet.processes["c"].demand("alice", LIMIT)
    fleet.look("c")
    fleet.look("c")
    assert sum(fleet.shares("alice")) <= LIMIT
