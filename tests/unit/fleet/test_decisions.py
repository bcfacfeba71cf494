"""A fleet's decisions under any order of looks, steps, deaths, partitions and lost answers."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from itertools import count

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)

from ramify.fleet.decisions import (
    LOOKS,
    MARGIN,
    TRIES,
    displaced,
    free_number,
    live,
    members,
    required,
    status,
    turn,
    until_next_look,
)
from ramify.fleet.records import Epoch, FleetError, Mode, Replica, Step, View

LEASE, DEADLINE = 10.0, 120.0


def epoch(number: int, **fields: object) -> Epoch:
    usual: dict[str, object] = {
        "release": f"v{number:06}",
        "content": "c",
        "state": "preparing",
        "mode": "rolling",
        "kind": "activate",
        "note": "",
        "asked_by": "a",
        "share": 0.5,
        "grace": 1.0,
        "created_at": 0.0,
        "deadline": DEADLINE,
    }
    return Epoch(number=number, **(usual | fields))  # type: ignore[arg-type]


def replica(name: str, **fields: object) -> Replica:
    return Replica(name, name, "1", 0.0, LEASE, **fields)  # type: ignore[arg-type]


@dataclass
class Process:
    """A replica as it knows itself, and what is on its way between it and the database."""

    mine: Replica
    step: Step | None = None
    until: float = 0.0
    """Time until which it may answer."""
    sent: float | None = None
    """When it began the look that is under way."""
    reply: tuple[Replica, Step | None] | None = None
    """The decision of the database of which it has not yet heard."""
    cut: bool = False

    def answers(self, now: float) -> int:
        """Return the epoch under which it can give an answer at this moment; 0: none."""
        return self.mine.serving if now < self.until else 0


class Fleet:
    """The database, the processes and one clock."""

    def __init__(self) -> None:
        first = epoch(1, state="committed")
        self.now = 1000.0
        self.view = View(self.now, {}, first, first)
        self.processes: dict[str, Process] = {}
        self.names = count()
        self.ended: list[str] = []

    def start(self) -> str:
        name = f"r{next(self.names)}"
        self.processes[name] = Process(replica(name, loaded=self.view.committed.number))
        return name

    def ask(self, mode: Mode, share: float = 0.5) -> None:
        number = self.view.newest.number + 1
        asked = epoch(number, mode=mode, share=share, created_at=self.now, deadline=self.now + DEADLINE)
        self.view = replace(self.view, newest=asked)

    def send(self, one: Process) -> None:
        if self.now >= one.until:  # its lease has run out: what ran was stopped, and is not answered
            one.mine = replace(one.mine, serving=0)
        one.sent = self.now

    def process(self, one: Process) -> None:
        before = self.view.committed
        self.view, step = turn(replace(self.view, now=self.now), one.mine)
        assert self.view.committed.number >= before.number
        one.reply = self.view.replicas[one.mine.id], step

    def hear(self, one: Process) -> None:
        assert one.reply is not None
        assert one.sent is not None
        one.mine, step = one.reply
        one.step = step or one.step
        one.until = one.sent + one.mine.lease
        one.sent = one.reply = None

    def look(self, one: Process) -> None:
        self.send(one)
        self.process(one)
        self.hear(one)

    def finish(self, one: Process, fails: bool) -> None:
        assert one.step is not None
        step, one.step, mine = one.step, None, one.mine
        if fails:
            one.mine = mine.failed(step.epoch.number, "told to")
        elif step.work == "preparing":
            one.mine = replace(mine, work=None, prepared=step.epoch.number, failures=0)
        elif step.work == "switching":
            one.mine = replace(mine, work=None, loaded=step.epoch.number, serving=0, failures=0)
        else:
            one.mine = replace(mine, work=None, serving=0)

    def check_answers(self) -> None:
        """Hold the promise: an answer is of the committed epoch or, if rolling, of the one on its way."""
        view = self.view
        for one in self.processes.values():
            number = one.answers(self.now)
            if not number:
                continue
            assert number == one.mine.loaded, "it answers with what its engines hold"
            rolls = view.newest.mode == "rolling" and view.newest.state in ("committing", "going_back")
            assert number in ({view.committed.number} | ({view.newest.number} if rolls else set()))

    def settle(self, rounds: int) -> None:
        for _ in range(rounds):
            self.now += 1.0
            for one in list(self.processes.values()):
                if one.cut or one.sent is not None:
                    continue
                if one.step is not None:
                    self.finish(one, fails=False)
                if one.mine.leaving:  # by now it has drained
                    one.mine = replace(one.mine, serving=0)
                self.look(one)
                self.check_answers()


class Interleavings(RuleBasedStateMachine):
    names = Bundle("names")

    def __init__(self) -> None:
        super().__init__()
        self.fleet = Fleet()

    def of(self, name: str) -> Process | None:
        return self.fleet.processes.get(name)

    @initialize(target=names, size=st.integers(1, 4))
    def begin(self, size: int) -> object:
        begun = [self.fleet.start() for _ in range(size)]
        self.fleet.settle(2)
        return multiple(*begun)

    @precondition(lambda self: len(self.fleet.processes) < 6)
    @rule(target=names)
    def start(self) -> str:
        return self.fleet.start()

    @rule(rounds=st.integers(1, 6))
    def go_on(self, rounds: int) -> None:
        self.fleet.settle(rounds)

    @rule()
    def go_on_a_little(self) -> None:
        self.fleet.settle(1)

    @precondition(lambda self: self.fleet.view.activation is None)
    @rule(mode=st.sampled_from(["rolling", "barrier"]), share=st.sampled_from([0.0, 0.5, 0.9]))
    def ask(self, mode: Mode, share: float) -> None:
        self.fleet.ask(mode, share)

    @rule(name=names)
    def look(self, name: str) -> None:
        if (one := self.of(name)) and one.sent is None and not one.cut:
            self.fleet.look(one)

    @rule(name=names)
    def send(self, name: str) -> None:
        if (one := self.of(name)) and one.sent is None:
            self.fleet.send(one)

    @rule(name=names)
    def arrive(self, name: str) -> None:
        if (one := self.of(name)) and one.sent is not None and one.reply is None and not one.cut:
            self.fleet.process(one)

    @rule(name=names, lost=st.booleans())
    def hear(self, name: str, lost: bool) -> None:
        if (one := self.of(name)) is None or one.sent is None:
            return
        if one.reply is None or lost:
            one.sent = one.reply = None
        else:
            self.fleet.hear(one)

    @rule(name=names, fails=st.booleans())
    def finish(self, name: str, fails: bool) -> None:
        if (one := self.of(name)) and one.step is not None and one.sent is None:
            self.fleet.finish(one, fails and one.step.work != "closing")

    @rule(name=names, fault=st.sampled_from(["cut", "cut", "dies", "leaves"]))
    def suffer(self, name: str, fault: str) -> None:
        one = self.of(name)
        if one is None:
            return
        if fault == "cut":
            one.cut = not one.cut
        elif len(self.fleet.processes) > 1 and fault == "dies":
            del self.fleet.processes[name]
        elif len(self.fleet.processes) > 1 and one.sent is None:
            one.mine = replace(one.mine, leaving=True)

    @rule(name=names)
    def restore(self, name: str) -> None:
        stored = self.fleet.view.replicas.get(name)
        if stored is not None:
            self.fleet.view = self.fleet.view.having(replace(stored, evicted=False))

    @rule(seconds=st.sampled_from([0.1, 1.0, 1.0, 5.0, LEASE, LEASE * MARGIN + 0.1, DEADLINE]))
    def wait(self, seconds: float) -> None:
        self.fleet.now += seconds

    @invariant()
    def answers_are_of_the_committed_epoch(self) -> None:
        self.fleet.check_answers()

    def teardown(self) -> None:
        """Once the faults cease, every activation ends, and whoever is not evicted and stays is in service."""
        self.fleet.start()
        for one in self.fleet.processes.values():
            one.cut, one.sent, one.reply = False, None, None
        rounds = 0
        while not self.rests() and rounds < DEADLINE + 60:
            self.fleet.settle(1)
            rounds += 1
        assert self.rests()

    def rests(self) -> bool:
        view, now = self.fleet.view, self.fleet.now
        staying = [
            one for one in self.fleet.processes.values() if not one.mine.evicted and not one.mine.leaving
        ]
        return view.activation is None and all(one.answers(now) == view.committed.number for one in staying)


TestInterleavings = pytest.mark.timeout(600)(Interleavings.TestCase)
TestInterleavings.settings = settings(
    max_examples=int(os.environ.get("RAMIFY_TEST_FLEETS", "150")), stateful_step_count=60, deadline=None
)


@pytest.mark.parametrize("mode", ["rolling", "barrier"])
@pytest.mark.parametrize("size", [1, 2, 3, 8])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_an_activation_that_nothing_disturbs_is_committed_everywhere_and_keeps_its_share_in_service(
    mode: Mode, size: int, share: float
) -> None:
    fleet = Fleet()
    for _ in range(size):
        fleet.start()
    fleet.settle(2)
    fleet.ask(mode, share)
    least = size
    for _ in range(4 * size + 8):
        fleet.settle(1)
        serving = [one for one in fleet.processes.values() if one.answers(fleet.now)]
        least = min(least, sum(one.mine.work != "switching" for one in serving))
    assert {one.answers(fleet.now) for one in fleet.processes.values()} == {2}
    if mode == "rolling":
        assert least >= required(share, size)


def failing(fleet: Fleet, *names: str, work: str) -> None:
    """Let `names` fail at a kind of step, and everybody else succeed, until nothing is under way."""
    for _ in range(60):
        fleet.now += 1.0
        for name, one in fleet.processes.items():
            if one.step is not None:
                newest = one.step.epoch.number == fleet.view.newest.number
                fleet.finish(one, fails=name in names and one.step.work == work and newest)
            fleet.look(one)
            fleet.check_answers()


@pytest.mark.parametrize("mode", ["rolling", "barrier"])
@pytest.mark.parametrize("work", ["preparing", "switching"])
def test_one_that_fails_again_and_again_is_evicted_and_the_others_go_on(mode: Mode, work: str) -> None:
    fleet = Fleet()
    names = [fleet.start() for _ in range(3)]
    fleet.settle(2)
    fleet.ask(mode)
    failing(fleet, names[2], work=work)
    assert fleet.view.newest.state == "committed"
    assert [fleet.view.replicas[name].evicted for name in names] == [False, False, True]
    assert fleet.processes[names[2]].answers(fleet.now) == 0
    fleet.view = fleet.view.having(replace(fleet.view.replicas[names[2]], evicted=False))
    fleet.settle(3)
    assert fleet.processes[names[2]].answers(fleet.now) == 2, "taken back, it catches up"


@pytest.mark.parametrize("mode", ["rolling", "barrier"])
@pytest.mark.parametrize("work", ["preparing", "switching"])
def test_a_release_that_nobody_can_take_goes_back_and_evicts_nobody(mode: Mode, work: str) -> None:
    fleet = Fleet()
    names = [fleet.start() for _ in range(3)]
    fleet.settle(2)
    fleet.ask(mode)
    failing(fleet, *names, work=work)
    assert (fleet.view.newest.state, fleet.view.committed.number) == ("gone_back", 1)
    assert "told to" in str(fleet.view.newest.error)
    assert not any(row.evicted for row in fleet.view.replicas.values())
    assert {one.answers(fleet.now) for one in fleet.processes.values()} == {1}


@pytest.mark.parametrize("work", ["preparing", "switching"])
def test_so_many_fail_that_too_few_would_be_left_and_the_activation_goes_back(work: str) -> None:
    fleet = Fleet()
    names = [fleet.start() for _ in range(4)]
    fleet.settle(2)
    fleet.ask("rolling", share=0.5)
    failing(fleet, *names[1:], work=work)
    assert fleet.view.newest.state == "gone_back"
    kept = [name for name in names if not fleet.view.replicas[name].evicted]
    assert len(kept) >= required(0.5, 4)
    assert {fleet.processes[name].answers(fleet.now) for name in kept} == {1}


def test_a_replica_that_cannot_catch_up_is_evicted_after_so_many_tries() -> None:
    fleet = Fleet()
    fleet.start()
    fleet.settle(2)
    late = fleet.start()
    fleet.ask("rolling")
    fleet.processes[late].cut = True
    for _ in range(10):
        fleet.now += 1.0
        one = fleet.processes["r0"]
        if one.step is not None:
            fleet.finish(one, fails=False)
        fleet.look(one)
    assert fleet.view.committed.number == 2
    failing(fleet, late, work="switching")
    assert fleet.view.replicas[late].failures == TRIES
    assert status(fleet.view, fleet.view.replicas[late]) == "evicted"
    assert fleet.processes[late].answers(fleet.now) == 0


def test_the_commit_waits_for_the_lease_of_a_replica_that_is_not_seen() -> None:
    fleet = Fleet()
    names = [fleet.start() for _ in range(2)]
    fleet.settle(2)
    fleet.ask("barrier")
    gone, there = (fleet.processes[name] for name in names)
    began = fleet.now
    while fleet.view.committed.number == 1:
        fleet.now += 0.5
        if there.step is not None:
            fleet.finish(there, fails=False)
        fleet.look(there)
        fleet.check_answers()
        assert fleet.now < began + 60
    assert fleet.now >= gone.until + (MARGIN - 1) * LEASE - 1e-9


def test_after_the_database_was_away_nobody_is_given_up_before_it_can_have_looked_again() -> None:
    fleet = Fleet()
    for _ in range(3):
        fleet.start()
    fleet.settle(2)
    fleet.ask("rolling")
    fleet.now += 100.0
    fleet.look(fleet.processes["r0"])
    assert len(live(fleet.view)) == len(members(fleet.view)) == 3
    fleet.settle(20)
    assert fleet.view.committed.number == 2


def test_a_number_is_given_again_only_if_no_other_is_left() -> None:
    late = 100.0
    rows = [
        replica("gone", number=0, seen_at=late - 1.25 * LEASE - 1),
        replica("here", number=1, seen_at=late),
    ]
    view = View(
        late,
        {row.id: row for row in rows},
        epoch(1, state="committed"),
        epoch(1, state="committed"),
        seen=late,
    )
    assert free_number(view) == 2
    others = [replica(str(number), number=number, seen_at=late) for number in range(2, 256)]
    assert free_number(view.having(*others)) == 0
    longer = replica("255", number=255, seen_at=late - 3 * LEASE)
    assert free_number(view.having(*others, longer)) == 255
    again = replace(replica("again", number=0, seen_at=late), started_at=late)
    assert displaced(view.having(again), rows[0])
    assert not displaced(view.having(again), again)
    everybody = [replica(str(number), number=number, seen_at=late) for number in range(256)]
    with pytest.raises(FleetError, match="all 256 numbers"):
        free_number(view.having(*everybody))


@pytest.mark.parametrize(
    ("replicas", "lease", "seconds"), [(1, 10.0, 0.5), (60, 10.0, 2.0), (256, 30.0, 256 / 30)]
)
def test_more_replicas_look_less_often_so_that_all_their_looks_fit(
    replicas: int, lease: float, seconds: float
) -> None:
    rows = {f"r{i}": replace(replica(f"r{i}", loaded=1), lease=lease, serving=1) for i in range(replicas)}
    first = epoch(1, state="committed")
    view = View(1000.0, rows, first, first)
    rest = until_next_look(view, rows["r0"], heartbeat=0.5)
    assert rest == pytest.approx(seconds)
    assert replicas / rest <= LOOKS + 1e-9
    assert rest <= lease / 3
