"""A refined tree as the trees that it is made of: one for each prompt, with the answers that were drawn after it.

A better answer follows nothing above it in the tree but a prompt of its own, which the tree holds token by token
(`Node.revision`). Cut there, what is left are ordinary trees of depth 1, exact for every objective: siblings are draws
from one distribution, and an answer is compared with those that were drawn after the same prompt.

A value head reads what the policy reads. A value model of its own was asked about each answer as one to the problem,
whatever it betters, and learns so (`as_judged`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ramify.search.tree import Node, Tree
from ramify_trainer.learning.labels import LabelledTree

__all__ = ["as_judged", "by_prompt"]


def by_prompt(trees: Iterable[LabelledTree]) -> list[LabelledTree]:
    """Return the trees, each that was refined as one for each of its prompts."""
    parts: list[LabelledTree] = []
    for labelled in trees:
        above = [node for node in labelled.tree.nodes if node.children]
        if labelled.tree.params.action.kind == "refine" and above:
            parts += [_part(labelled, node) for node in above]
        else:
            parts.append(labelled)
    return parts


def as_judged(labelled: LabelledTree) -> LabelledTree:
    """Return a tree after the prompt with which a value model of its own was asked about its answers."""
    if labelled.problem is None:
        return labelled
    return replace(labelled, tree=replace(labelled.tree, prompt_tokens=labelled.problem))


def _part(labelled: LabelledTree, above: Node) -> LabelledTree:
    """Return the answers drawn from one node as a tree of their own."""
    tree, drawn = labelled.tree, labelled.tree.children(above)
    ids = {node.id: i for i, node in enumerate(drawn, 1)}
    answer = tree.answer if tree.answer is not None and tree.answer.node in ids else None
    part = replace(
        tree,
        prompt_tokens=tree.prefix(above),
        nodes=[_root(tree, above, ids.values()), *(_alone(tree, node, ids[node.id]) for node in drawn)],
        completions=[replace(one, node=ids[one.node]) for one in tree.completions if one.node in ids],
        answer=None if answer is None else replace(answer, node=ids[answer.node]),
        candidates=[replace(one, node=ids[one.node]) for one in tree.candidates if one.node in ids],
    )
    learned = {ids[i] for i in labelled.learned if i in ids}
    return replace(
        labelled,
        tree=part,
        outcomes={ids[i]: outcome for i, outcome in labelled.outcomes.items() if i in ids},
        problem=None if above.parent is None else tree.prompt_tokens,
        learned=frozenset(learned | {0} if learned else ()),
    )


def _root(tree: Tree, above: Node, children: Iterable[int]) -> Node:
    """Return the root of a part. The value of the answer above says nothing of what follows the request to better
    it."""
    value = tree.root.value if above.parent is None else None
    return Node(id=0, parent=None, depth=0, value=value, expanded=True, children=list(children))


def _alone(tree: Tree, node: Node, new_id: int) -> Node:
    """Return an answer without those that better it. Its visits are its own draws: a search goes on from what is wrong,
    and `visits` must not teach that in place of what is right."""
    value = tree.leaf_value(node)
    visits = 0 if value is None else node.multiplicity
    worth = visits * (value or 0.0)
    return replace(
        node, id=new_id, parent=0, depth=1, children=[], revision=None, visits=visits, value_sum=worth
    )
