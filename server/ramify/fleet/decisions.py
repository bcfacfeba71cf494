"""Decide what is to be done next, as pure functions of the rows: `turn` is all that a replica runs at each look.

There is no coordinator. Each replica looks in a transaction that locks the fleet's row, so looks happen one after
another, and whichever looks first after something has become possible decides it: `advance` moves the activation on,
`decide` chooses the replica's own next step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from ramify.fleet.records import Epoch, FleetError, Replica, Step, View
from ramify.fleet.shares import granted

MARGIN = 1.25
"""Leases after which a replica that was not seen is taken to answer no more: clocks do not run quite alike."""
TRIES = 3
"""Failures in a row after which a replica, or the activation, is given up."""
NUMBERS = 256
"""Numbers that replicas may have: two hexadecimal digits."""
FORGOTTEN = 3600.0
"""Seconds after which a replica that is gone is no longer listed."""
QUICK = 0.1
"""Seconds between two looks while something is under way."""
LOOKS = 30.0
"""Looks a second of all replicas together: more replicas look less often. A third of what fits, as each holds the
fleet's row for 11 ms (`look_cpu`, `look_turns`, `turn` and `flush` of `research.scale`)."""


def turn(view: View, mine: Replica) -> tuple[View, Step | None]:
    """Return the rows after one look of a replica, and what it has to do. mine: its state, whatever its row says."""
    away = view.now - view.seen > mine.lease
    view = replace(view, seen=view.now, since=view.now if away else view.since)
    me = replace(_pardoned(mine, view.replicas.get(mine.id)), seen_at=view.now)
    me = granted(me, others(view, me))
    view = advance(view.having(me))
    me, step = decide(view, view.replicas[mine.id])
    return view.having(me), step


def _pardoned(mine: Replica, stored: Replica | None) -> Replica:
    """Return a replica's own state with what others decide of it: whether it is evicted."""
    if stored is None or stored.evicted == mine.evicted:
        return mine
    if stored.evicted:
        return replace(mine, evicted=True)
    return replace(mine, evicted=False, failures=0, failing=0, error=None)


# -- who counts --------------------------------------------------------------------------------------------------


def live(view: View) -> list[Replica]:
    """Return the replicas that may be answering, in the order of their ids: those whose lease may not have run out."""
    rows = sorted(view.replicas.values(), key=lambda row: row.id)
    return [row for row in rows if view.now <= max(row.seen_at, view.since) + MARGIN * row.lease]


def others(view: View, me: Replica) -> list[Replica]:
    """Return the live replicas but one."""
    return [row for row in live(view) if row.id != me.id]


def present(view: View) -> list[Replica]:
    """Return the live replicas that stay, evicted ones too: what a share is a share of."""
    return [row for row in live(view) if not row.leaving]


def free_number(view: View) -> int:
    """Return the lowest number that no replica has; if there is none, that of the replica seen least recently of those
    that are gone, since its ids are the oldest. Raises `FleetError` if all are taken."""
    rows = view.replicas.values()
    unused = set(range(NUMBERS)) - {row.number for row in rows}
    taken = {row.number for row in live(view)}
    gone = {row.number: row.seen_at for row in sorted(rows, key=lambda row: row.seen_at)}
    free = [number for number in gone if number is not None and number not in taken]
    if not unused and not free:
        raise FleetError(f"replica: all {NUMBERS} numbers of this fleet are taken")
    return min(unused) if unused else min(free, key=lambda number: gone[number])


def displaced(view: View, me: Replica) -> bool:
    """Tell whether a replica's number was given to another while it was away."""
    return any(row.number == me.number and row.started_at > me.started_at for row in others(view, me))


def members(view: View) -> list[Replica]:
    """Return the replicas that the activation under way waits for.

    While it is prepared, those that hold what is committed. From then on those that have prepared it: who comes later
    waits, and loads whatever is committed in the end."""
    epoch = view.newest
    rows = [row for row in present(view) if not row.evicted]
    if epoch.state == "preparing":
        return [row for row in rows if row.loaded == view.committed.number]
    return [row for row in rows if epoch.number in (row.prepared, row.loaded)]


def required(share: float, replicas: int) -> int:
    """Return how many of `replicas` stay in service during a rolling activation: one may leave in any case."""
    return max(0, min(math.ceil(share * replicas - 1e-9), replicas - 1))


def exhausted(row: Replica, epoch: int) -> bool:
    """Tell whether a replica has failed at an epoch for good."""
    return row.failing == epoch and row.failures >= TRIES


# -- the activation ----------------------------------------------------------------------------------------------


def advance(view: View) -> View:
    """Return the view after all that has become possible has happened to the activation under way."""
    while (after := _advanced(view)) is not view:
        view = after
    return view


def _advanced(view: View) -> View:
    epoch = view.activation
    if epoch is None:
        return view
    if epoch.state == "going_back":
        return view.ending("gone_back") if _is_back(view, epoch) else view
    counted = members(view)
    if view.now > epoch.deadline:
        late = [row.address for row in counted if epoch.number not in (row.prepared, row.loaded)] or [
            row.address for row in counted if row.loaded != epoch.number
        ]
        return view.ending("going_back", f"not in time at {', '.join(late) or 'any replica'}")
    if not counted:
        return view.ending("going_back", "no replica is left that could take it")
    return _prepared(view, counted) if epoch.state == "preparing" else _committed(view, counted)


def _prepared(view: View, counted: Sequence[Replica]) -> View:
    number = view.newest.number
    able = [row for row in counted if row.prepared == number]
    failed = [row for row in counted if exhausted(row, number)]
    if len(able) + len(failed) < len(counted):
        return view
    return _without(view, able, failed) if failed else view.ending("committing")


def _committed(view: View, counted: Sequence[Replica]) -> View:
    """Commit once every member has the release and nobody, member or not, can be answering under another."""
    number = view.newest.number
    able = [row for row in counted if row.loaded == number]
    tried = [row for row in counted if row.loaded != number and row.failing == number]
    failed = [row for row in tried if exhausted(row, number)]
    if not able and any(row.work == "switching" for row in counted):
        return view  # whether the release is at fault is still being found out
    if failed or (not able and len(tried) > 1):
        return _without(view, able, failed or tried)
    done = len(able) == len(counted) and all(row.serving in (0, number) for row in live(view))
    return view.ending("committed") if done else view


def _without(view: View, able: Sequence[Replica], failed: Sequence[Replica]) -> View:
    """Go on without those that failed if the fault is theirs and enough are left, else go back.

    A release that no replica could take, and more than one has tried, is at fault itself."""
    everyone, failures = present(view), {row.id for row in failed}
    left = [row for row in everyone if not row.evicted and row.id not in failures]
    if able and len(left) >= max(1, required(view.newest.share, len(everyone))):
        return view.having(*(replace(row, evicted=True) for row in failed))
    said = "; ".join(f"{row.address}: {row.error}" for row in failed)
    return view.ending("going_back", said[:1000])


def _is_back(view: View, epoch: Epoch) -> bool:
    """Tell whether no replica that counts holds the epoch or is about to, and none answers under it."""
    if any(row.serving == epoch.number for row in live(view)):
        return False
    holds = [row for row in present(view) if row.loaded == epoch.number or row.work == "switching"]
    return all(row.evicted for row in holds)


# -- a replica's own step ----------------------------------------------------------------------------------------


def decide(view: View, me: Replica) -> tuple[Replica, Step | None]:
    """Return the replica's row once it has begun its next step, and the step; `None` if there is none."""
    if me.work is not None or not me.loaded or (me.leaving and not me.evicted):
        return me, None
    target = _target(view, me)
    if exhausted(me, target.number) and target is view.committed and me.loaded != target.number:
        me = replace(me, evicted=True)
    if me.evicted:
        return _begun(me, Step("closing", view.committed)) if me.serving else (me, None)
    me = replace(me, serving=me.serving or _opens(view, me))
    epoch = view.activation
    if epoch and epoch.state == "preparing" and me.loaded == view.committed.number:
        wanted = me.prepared != epoch.number and not exhausted(me, epoch.number)
        return _begun(me, Step("preparing", epoch)) if wanted else (me, None)
    if me.loaded != target.number and not exhausted(me, target.number) and _may_leave(view, me):
        return _begun(me, Step("switching", target))
    return me, None


def _begun(me: Replica, step: Step) -> tuple[Replica, Step]:
    return replace(me, work=step.work), step


def _target(view: View, me: Replica) -> Epoch:
    """Return the epoch whose release the replica should hold."""
    epoch = view.activation
    commits = epoch is not None and epoch.state == "committing" and me.prepared == epoch.number
    return view.newest if commits else view.committed


def _opens(view: View, me: Replica) -> int:
    """Return the epoch under which a replica that answers nothing may begin to answer; 0: none."""
    epoch = view.activation
    committing = epoch is not None and epoch.state == "committing"
    allowed = 0 if committing else view.committed.number
    if epoch is not None and committing and epoch.mode == "rolling":
        allowed = epoch.number
    return me.loaded if me.loaded == allowed else 0


def _may_leave(view: View, me: Replica) -> bool:
    """Tell whether a replica may go out of service to take another release."""
    if not me.serving or view.newest.mode == "barrier":
        return True
    counted, number = members(view), view.newest.number
    untried = [row for row in counted if row.loaded != number and row.failing != number and row.id != me.id]
    if me.failing == number and untried:
        return False  # the others first: they show whether the fault is the release's
    others = [row for row in counted if row.serving and row.work != "switching" and row.id != me.id]
    return len(others) >= required(view.newest.share, len(counted))


def holds(view: View, me: Replica) -> bool:
    """Tell whether a replica lets requests wait: it is about to answer, under another release."""
    epoch = view.activation
    awaits = epoch is not None and me.loaded == epoch.number and not me.serving
    return not me.evicted and (awaits or (me.work == "switching" and me.serving > 0))


def until_next_look(view: View, me: Replica, heartbeat: float) -> float:
    """Return the seconds that a replica rests after a look. heartbeat: those if nothing is under way."""
    least = min(len(view.replicas) / LOOKS, me.lease / 3)
    rests = me.serving == view.committed.number or me.evicted or me.leaving or not me.loaded
    if rests and view.activation is None:
        return max(heartbeat, least)
    return max(min(heartbeat, QUICK), least)


def status(view: View, row: Replica) -> str:
    """Return in a word or two where a replica stands."""
    if row not in live(view):
        return "lost"
    if row.evicted:
        return "evicted"
    if row.leaving:
        return "leaving"
    if not row.loaded:
        return "starting"
    if row.work is not None and row.work != "closing":
        return row.work
    if row.serving:
        return "ready"
    return "waiting" if row.loaded == view.newest.number else "behind"
