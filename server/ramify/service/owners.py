"""Whose search an id names: the replica of a fleet that runs it, or that died with it. Pure functions of the rows."""

from __future__ import annotations

from ramify.fleet import Replica, View
from ramify.fleet.decisions import live, others
from ramify.service.errors import ServiceError
from ramify.service.search_view import numbered, search_id, time_of
from ramify.service.searches import elsewhere


def owner_of(view: View, me: Replica, given: str) -> Replica | None:
    """Return the other live replica whose number ends an id; `None` if there is none."""
    number = numbered(given)
    if number is None or number == me.number:
        return None
    rows = [row for row in others(view, me) if row.number == number]
    return max(rows, key=lambda row: row.started_at, default=None)


def ended(view: View, me: Replica) -> set[str]:
    """Return the ids of other replicas that have ended without a word, or may answer no more."""
    alive = {row.id for row in live(view)} | {me.id}
    return set(view.replicas) - alive


def not_here(view: View, me: Replica, tree_id: str, longest: float) -> ServiceError | None:
    """Tell of a tree that is not in the log, by its id, if another replica may run it or has died with it.

    longest: seconds after which a search is in the log, if it will ever be."""
    number, born = numbered(tree_id), time_of(tree_id)
    if born > view.now + longest:
        return None  # a made-up id: clocks need not agree, but so much they do
    rows = [row for row in view.replicas.values() if row.number == number and row.started_at <= born]
    giver = max(rows, key=lambda row: row.started_at, default=me)
    if giver.id in ended(view, me):
        return _lost(tree_id, giver)
    runs = giver.id != me.id and born + longest > view.now
    return elsewhere(tree_id) if runs else None


def _lost(tree_id: str, giver: Replica) -> ServiceError:
    return ServiceError(
        "not_found",
        f"{search_id(tree_id)} is not in the log, and replica {giver.number} ({giver.address}), which gave this id, "
        "has ended without a word: what it ran and had not committed is lost",
        param="search_id",
    )
