"""Searching on from a node of a logged tree.

The prompt of a branch is the old one and the answer as far as the node, token for token as it was sampled, never
written again from text. The task judges whole answers, so the new tree remembers the text that its prompt already
holds (`Origin`); its budget counts new tokens only. What the parent may not teach, its branches may not teach either.
"""

from __future__ import annotations

from dataclasses import replace

from ramify.engines import Serving
from ramify.search.records import Origin
from ramify.service.errors import BadRequest, ServiceError
from ramify.service.search_spec import Branch, SearchSpec


def inherited(spec: SearchSpec, branch: Branch, serving: Serving) -> SearchSpec:
    """Give a branch the task and the problem of its parent. Raises `ServiceError`."""
    tree, node = branch.tree, branch.node
    if node >= len(tree.nodes):
        raise BadRequest(f"is {node}; the tree has nodes 0 to {len(tree.nodes) - 1}", param="node")
    if tree.nodes[node].terminal in ("eos", "stop"):
        raise BadRequest(
            f"is {node}, at which the answer is finished: branch from a node above it", param="node"
        )
    if tree.nodes[node].depth and tree.params.action.kind == "refine":
        raise BadRequest(
            f"is {node}, a whole answer with a prompt of its own: branch from node 0", param="node"
        )
    if tree.model != serving.name:
        raise ServiceError(
            "conflict",
            f"the tree was searched with the model {tree.model[:100]!r} and this server has {serving.name!r}: "
            "token ids of one mean nothing to the other",
            param="tree",
        )
    problem = tree.problem if tree.task not in (None, "none") else None
    return replace(spec, task=tree.task or "none", problem=problem, train=spec.train and tree.train)


def branch_prompt(branch: Branch, max_model_len: int) -> tuple[str, list[int]]:
    """Return a branch's prompt, as text and as token ids. Raises `BadRequest`."""
    tree = branch.tree
    lineage = tree.lineage(tree.nodes[branch.node])
    tokens = tree.sequence(lineage[-1])
    if len(tokens) >= max_model_len:
        raise BadRequest(
            f"has {len(tokens)} tokens up to it; the model takes {max_model_len}, the answer included",
            param="node",
        )
    return tree.prompt + "".join(node.text for node in lineage), list(tokens)


def branch_origin(branch: Branch) -> Origin:
    """Return what a branch's prompt already holds of the answer."""
    tree = branch.tree
    node = tree.nodes[branch.node]
    before = tree.origin.tokens if tree.origin else 0
    return Origin(branch.node, tree.text(node), before + len(tree.answer_tokens(node)))
