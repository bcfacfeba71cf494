"""A running tree, told in pieces."""

from __future__ import annotations

from ramify.service.search_view import TreeDelta
from treelog_trees import make_tree


def test_every_node_is_told_once_parents_first_and_no_more_at_once_than_allowed() -> None:
    tree = make_tree(10)
    growing = TreeDelta(tree)
    pieces = [growing.news(most=4) for _ in range(4)]
    assert [len(piece) for piece in pieces] == [4, 4, 2, 0]
    assert [node.id for piece in pieces for node in piece] == list(range(10))


def test_a_node_that_changed_is_told_again_after_new_ones() -> None:
    tree = make_tree(3)
    growing = TreeDelta(tree)
    growing.news()
    tree.nodes[1].visits += 1
    new = tree.add(tree.nodes[0], text="x")
    assert [node.id for node in growing.news()] == [new.id, 1]
    assert growing.news() == []


def test_a_change_that_found_no_room_is_told_next_time() -> None:
    tree = make_tree(6)
    growing = TreeDelta(tree)
    growing.news()
    for node in tree.nodes:
        node.visits += 1
    assert [len(growing.news(most=4)) for _ in range(3)] == [4, 2, 0]
