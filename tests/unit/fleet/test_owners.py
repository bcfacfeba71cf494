"""Whose search an id names, by the rows of a fleet."""

from __future__ import annotations

from ramify.fleet.records import Epoch, Replica, View
from ramify.service.owners import ended, not_here, owner_of
from ramify.service.search_view import SEARCH, TREE, uuid7

NOW, LONGEST = 10_000.0, 60.0
EPOCH = Epoch(1, "v1", "c", "committed", "rolling", "automatic", "", "a", 0.5, 0.0)
ME = Replica("me", "http://me", "1", 0.0, 10.0, seen_at=NOW, number=0)
OLD = Replica("old", "http://x", "1", 0.0, 10.0, seen_at=NOW - 3000, number=1)
NEW = Replica("new", "http://x", "1", NOW - 2000, 10.0, seen_at=NOW, number=1)
VIEW = View(NOW, {row.id: row for row in (ME, OLD, NEW)}, EPOCH, EPOCH)


def tree(born: float, number: int) -> str:
    return TREE + uuid7(born, number)


def said(tree_id: str) -> str | None:
    refusal = not_here(VIEW, ME, tree_id, LONGEST)
    return None if refusal is None else refusal.code


def test_the_owner_is_the_live_replica_of_the_ids_number():
    assert owner_of(VIEW, ME, SEARCH + uuid7(NOW, 1)) is NEW
    assert owner_of(VIEW, ME, SEARCH + uuid7(NOW, 0)) is None, "this one"
    assert owner_of(VIEW, ME, SEARCH + uuid7(NOW, 2)) is None
    assert ended(VIEW, ME) == {"old"}


def test_a_tree_that_is_nowhere_is_told_of_by_its_time_and_number():
    assert said(tree(NOW - 2500, 1)) == "not_found", "the one of that number before has died"
    assert said(tree(NOW - 10, 1)) == "conflict", "it may run"
    assert said(tree(NOW - 100, 1)) is None, "it would be in the log by now"
    assert said(tree(NOW - 10, 0)) is None, "this one knows"
    assert said(tree(NOW - 10, 2)) is None, "nobody has that number"
    assert said(tree(NOW + 2 * LONGEST, 1)) is None, "made up"
