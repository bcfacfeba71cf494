"""Finished trees for the log's tests: `make_tree` builds a small one, `trees` is a strategy for any."""

from __future__ import annotations

import uuid
from typing import Any

from hypothesis import strategies as st

from ramify.search.records import Answer, Sampling, SearchParams, Usage
from ramify.search.tree import Completion, Tree


def make_tree(n_nodes: int = 4, *, value: float = 0.5, **fields: Any) -> Tree:
    """A complete search of one path of `n_nodes` nodes, the root included."""
    defaults: dict[str, Any] = {
        "id": f"tree_{uuid.uuid4().hex}",
        "created_at": 1_000_000.0,
        "model": "countdown-tiny",
        "prompt": "3 5 7 8 to 24\n",
        "prompt_tokens": (3, 5, 7, 8, 1, 24, 2),
        "params": SearchParams(),
        "sampling": Sampling(),
        "seed": 7,
        "status": "complete",
        "stop_reason": "budget.simulations",
    }
    tree = Tree(**(defaults | fields))
    node = tree.root
    for i in range(1, n_nodes):
        step = {"tokens": (i, i + 1), "logprobs": (-0.25, -1.5), "text": f"{i} + 1 = {i + 1}\n"}
        node = tree.add(node, **step, value=value, visits=1, value_sum=value, release="v000001", simulation=1)
    node.terminal = "eos"
    tree.completions = [Completion(node.id, 1, 2 * n_nodes)]
    tree.answer = Answer(node.id, tree.text(node), "24", value, 1, 1.0)
    tree.candidates = [tree.answer]
    tree.usage = Usage(7, 2 * n_nodes, n_nodes, 1, n_nodes, 0.5)
    return tree


_unit = st.floats(0, 1)
_text = st.text(st.characters(), max_size=20)  # NUL and lone surrogates among them
_problem = st.none() | st.dictionaries(
    _text, st.integers() | st.none() | _text | st.lists(_unit, max_size=2), max_size=2
)


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    """Any finished tree that the codec knows, odd texts included."""
    tree = Tree(
        id=f"tree_{uuid.uuid4().hex}",
        created_at=draw(st.floats(0, 4e9)),
        model=draw(_text),
        prompt=draw(_text),
        prompt_tokens=tuple(draw(st.lists(st.integers(0, 2**31), max_size=4))),
        params=SearchParams(algorithm=draw(st.sampled_from(["mcts", "gumbel", "best_of_n"]))),
        sampling=Sampling(temperature=draw(st.floats(0, 2)), stop=tuple(draw(st.lists(_text, max_size=2)))),
        seed=draw(st.integers(0, 2**64)),
        task=draw(st.none() | _text),
        problem=draw(_problem),
        train=draw(st.booleans()),
        status=draw(
            st.sampled_from(["complete", "cancelled", "deadline", "drained", "engine_dead", "failed"])
        ),
        error=draw(st.none() | _text),
    )
    for i in range(draw(st.integers(0, 5))):
        logprobs = tuple(draw(st.lists(st.floats(-50, 0), max_size=3)))
        tree.add(
            tree.nodes[draw(st.integers(0, i))],
            tokens=tuple(range(len(logprobs))),
            logprobs=logprobs,
            text=draw(_text),
            value=draw(st.none() | _unit),
            outcome=draw(st.none() | _unit),
            release=draw(st.sampled_from(["", "v000001", "v000002"])),
        )
    if draw(st.booleans()):
        final = draw(st.none() | _text)
        tree.answer = Answer(
            0, draw(_text), final, draw(st.none() | _unit), 3, draw(_unit), draw(st.none() | _unit)
        )
        tree.candidates = [tree.answer]
    return tree
