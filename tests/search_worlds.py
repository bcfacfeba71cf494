"""Small worlds to search in, and the laws that every finished tree must keep."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import math
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fakes import FakePolicy, FakeReviser, FakeScorer, FakeTask, Rule, encode, letters
from ramify.search.batch import Batch
from ramify.search.builder import TreeBuilder
from ramify.search.codec import check_structure, tree_from_dict, tree_to_dict
from ramify.search.crowd import Crowd
from ramify.search.cutting import action_ends
from ramify.search.params import search_params
from ramify.search.protocols import Scorer
from ramify.search.records import NO_ANSWER, Action, BudgetLimits, Continuation, Hurdle, Sampling
from ramify.search.run import Progress, Search
from ramify.search.scorers import NamedScorer, Scorers
from ramify.search.tree import Node, Tree

PROMPT = "?\n"
FLAT = ("best_of_n", "self_consistency")


def parity(text: str) -> float:
    """A value model that likes an even share of `a`: in (0, 1), the same for the same text."""
    return (1 + text.count("a")) / (3 + text.count("a") + 2 * text.count("b"))


def words(text: str) -> Mapping[str, float]:
    """Answers of one to four characters, `a` or `b`: for token and chunk actions."""
    return {"a": 0.5, "b": 0.3, "": 0.2} if len(text) < 4 else {"": 1.0}


def lines(text: str) -> Mapping[str, float]:
    """Answers of one to four lines, `a` or `b`: for steps."""
    if text.count("\n") == 4:
        return {"": 1.0}
    return {"a\n": 0.5, "b\n": 0.3, "": 0.2} if text else {"a\n": 0.6, "b\n": 0.4}


class ListingPolicy(FakePolicy):
    """Leaves nothing to chance: draw i of a request takes the i-th of the texts that its rule allows next, and after
    that always the first."""

    def _draws(self, text: str, sampling: Sampling, seeds: Sequence[int]) -> list[Continuation]:
        choices = list(self.rule(text))
        return [self._listed(text, choices[i % len(choices)], sampling) for i in range(len(seeds))]

    def _listed(self, text: str, first: str, sampling: Sampling) -> Continuation:
        def listed(answer: str) -> Mapping[str, float]:
            return {first if answer == text else next(iter(self.rule(answer))): 1.0}

        return FakePolicy(listed, self.prompt)._one(text, sampling, random.Random(0))


@dataclass
class JudgingFake(FakePolicy):
    """Judges each token that it writes by a function of the answer so far. It writes `surplus` tokens more before it
    notices that a draw is to be given up."""

    value: Callable[[str], float | None] = parity
    surplus: int = 0
    given_up: int = 0
    past: int = 0
    """Tokens written past the actions at which draws were given up."""

    async def write_on(
        self,
        prefix: Sequence[int],
        sampling: Sampling,
        seeds: Sequence[int],
        *,
        action: Action,
        hurdle: Hurdle,
        length: int,
    ) -> list[Continuation]:
        def draws(text: str, sampling: Sampling, seeds: Sequence[int]) -> list[Continuation]:
            return [self._cut(one, action, hurdle, length) for one in self._draws(text, sampling, seeds)]

        return await self._written(prefix, sampling, seeds, draws)

    def _draws(self, text: str, sampling: Sampling, seeds: Sequence[int]) -> list[Continuation]:
        drawn = super()._draws(text, sampling, seeds)
        return [
            replaced(one, values=tuple(self.value(text + one.text[:end]) for end in one.ends))
            for one in drawn
        ]

    def _cut(self, one: Continuation, action: Action, hurdle: Hurdle, length: int) -> Continuation:
        for end in action_ends(one.text, one.ends, action)[:-1]:
            value = one.values[end - 1]
            if value is not None and value < hurdle.at(length + end):
                self.given_up += 1
                written = min(end + self.surplus, len(one.token_ids) - 1)
                self.past += written - end
                return _as_far_as(one, written)
        return one


def _as_far_as(one: Continuation, end: int) -> Continuation:
    return replaced(
        one,
        token_ids=one.token_ids[:end],
        text=one.text[: one.ends[end - 1]],
        logprobs=one.logprobs[:end],
        ends=one.ends[:end],
        values=one.values[:end],
        finish="abandoned",
    )


def new_tree(
    *,
    budget: BudgetLimits | None = None,
    action: Action | None = None,
    sampling: Sampling | None = None,
    seed: int = 7,
    **params: Any,
) -> Tree:
    given = {"budget": budget, "action": action, **params}
    return Tree(
        id=f"tree_{seed:032x}",
        created_at=0.0,
        model="fake",
        prompt=PROMPT,
        prompt_tokens=encode(PROMPT),
        params=search_params(**{name: value for name, value in given.items() if value is not None}),
        sampling=sampling or Sampling(),
        seed=seed,
    )


def grow(builder: TreeBuilder, parent: Node, text: str, **fields: Any) -> Node:
    """A node added by hand."""
    node = builder.tree.add(
        parent,
        tokens=encode(text),
        logprobs=(0.0,) * len(text),
        text=text,
        length=parent.length + len(text),
        **fields,
    )
    builder._index[(parent.id, node.tokens)] = node
    parent.expanded = True
    return node


@dataclass
class World:
    """One search, everything that it meets, and the times at which it said how far it was."""

    tree: Tree
    policy: FakePolicy
    scorer: FakeScorer
    task: FakeTask
    search: Search
    seen: list[Progress]
    reviser: FakeReviser
    beside: Mapping[str, FakeScorer]
    """The scorers beside the value model."""

    async def run(self) -> Tree:
        await self.search.run()
        return self.tree

    def at(self, *texts: str) -> Node:
        """The node at the end of these actions."""
        node = self.tree.root
        for text in texts:
            (node,) = [c for c in self.tree.children(node) if c.text == text]
        return node


def world(
    rule: Rule | None = None,
    value: Callable[[str], float] | None = parity,
    *,
    policy: FakePolicy | None = None,
    others: Mapping[str, FakePolicy] | None = None,
    task: FakeTask | None = None,
    reviser: FakeReviser | None = None,
    clock: Callable[[], float] = lambda: 0.0,
    batch: Batch | None = None,
    crowd: Crowd | None = None,
    weights: Mapping[str, tuple[Callable[[str], float], float]] | None = None,
    prunes: Mapping[str, tuple[Callable[[str], float], float]] | None = None,
    keeps_state: bool = False,
    goes_on: Tree | None = None,
    **tree: Any,
) -> World:
    """A world by its rule and its value model, `None` for none; `batch` makes it one of several, `crowd` one of those
    that share the policy. weights, prunes: scorers beside the value model, whose weight is 1, by name: each a function
    of the answer and its weight, or the value below which it prunes. others: policies beside it, by name. goes_on: the
    tree of a search that is taken on. The rest are the search's parameters."""
    policy = policy or FakePolicy(rule or letters({"a": 0.6, "b": 0.4}, 3))
    scorer, task, seen = FakeScorer(value or parity), task or FakeTask(lambda text: text.startswith("a")), []
    grown = goes_on or new_tree(**tree)
    named = {"value": NamedScorer(scorer)} if value is not None else {}
    named |= {
        name: NamedScorer(FakeScorer(of), weight=weight) for name, (of, weight) in (weights or {}).items()
    }
    named |= {name: NamedScorer(FakeScorer(of), prune_below=t) for name, (of, t) in (prunes or {}).items()}
    judge: Scorer | None = Scorers(named) if weights or prunes else scorer if value is not None else None
    reviser = reviser or FakeReviser()
    search = Search(
        *(grown, {"policy": policy, **(others or {})}, judge, task),
        clock=clock,
        reviser=reviser,
        observe=seen.append,
        batch=batch,
        crowd=crowd,
        keeps_state=keeps_state,
    )
    beside = {name: one.scorer for name, one in named.items() if isinstance(one.scorer, FakeScorer)}
    beside.pop("value", None)
    return World(grown, policy, scorer, task, search, seen, reviser, beside)


def ran(*args: Any, **kwargs: Any) -> World:
    """A world whose search is over."""
    found = world(*args, **kwargs)
    asyncio.run(found.run())
    return found


def shape(tree: Tree) -> dict[str, Any]:
    """All of a tree but the seconds it took."""
    document = tree_to_dict(tree)
    document["usage"].pop("seconds")
    return document


def check(found: World) -> None:
    """Every law that a finished tree keeps, however its search ended."""
    check_books(found)
    check_nodes(found.tree)
    check_visits(found.tree)
    check_answers(found.tree)


def check_books(found: World) -> None:
    """Check that the counts are those of the fakes, within the budget."""
    tree, usage = found.tree, found.tree.usage
    assert found.policy.running == 0
    assert usage.completion_tokens == found.policy.generated
    assert usage.scored_sequences == found.scorer.scored + sum(one.scored for one in found.beside.values())
    revisions = [node.revision for node in tree.nodes if node.revision is not None]
    assert usage.prompt_tokens == len(tree.prompt_tokens) + sum(len(one.prompt) for one in revisions)
    assert usage.nodes == len(tree.nodes)
    limits = tree.params.budget
    assert usage.simulations <= limits.simulations
    assert limits.tokens is None or usage.completion_tokens <= limits.tokens
    assert limits.nodes is None or usage.nodes <= limits.nodes + 1  # the root is nobody's draw
    assert sum(node.tokens_spent for node in tree.nodes) <= usage.completion_tokens
    assert not found.seen or found.seen[-1].simulations <= usage.simulations


def check_nodes(tree: Tree) -> None:
    check_structure(tree)
    assert tree_from_dict(json.loads(json.dumps(tree_to_dict(tree)))) == tree
    answers = Counter(completion.node for completion in tree.completions)
    for node in tree.nodes:
        assert node.in_flight == 0
        assert node.expanding == 0
        assert 0 <= node.value_sum <= node.visits + 1e-9
        if not tree.params.replacement:
            assert 0 <= node.tokens_spent <= len(node.tokens) * node.multiplicity
        elif tree.params.action.kind != "token":
            assert node.tokens_spent == len(node.tokens) * node.multiplicity
        assert node.length <= tree.sampling.max_tokens
        assert node.depth <= tree.params.max_depth
        children = tree.children(node)
        assert len({child.tokens for child in children}) == len(children)
        if children:
            assert node.terminal is None or node.revision is not None
            assert math.isclose(sum(child.prior for child in children), 1)
        if node.terminal in ("eos", "stop"):
            assert answers[node.id] == node.multiplicity
        if node.terminal in NO_ANSWER:
            assert node.value == 0


def check_visits(tree: Tree) -> None:
    """Check that the visits of a node come from its children, under `step` the draws from the node itself, and under
    `abandon` the draws that were given up there."""
    params = tree.params
    above = {n.id for i in tree.committed for n in tree.lineage(tree.nodes[i])[:-1]}
    drawn_here = params.expand == "step" and params.algorithm != "rap"
    for node in tree.nodes:
        below = sum(child.visits for child in tree.children(node))
        if node.id in above:
            continue
        if node.revision is not None and node.value is not None:
            assert node.visits == below + node.multiplicity  # each draw of it, and of those that better it
        if node.terminal is None:
            given_up = node.visits - below if params.abandon else 0
            assert given_up >= 0
            assert node.visits == below + given_up + (node.fresh_visits if drawn_here else 0)
            values = sum(child.value_sum for child in tree.children(node)) + given_up * (node.value or 0.0)
            values += node.fresh_value_sum if drawn_here else 0
            assert math.isclose(node.value_sum, values, abs_tol=1e-9)


def check_answers(tree: Tree) -> None:
    tokens = [completion.tokens for completion in tree.completions]
    assert tokens == sorted(tokens)
    assert not tokens or tokens[-1] <= tree.usage.completion_tokens
    if tree.status == "cancelled" and tree.answer is None:
        return  # its own task was cancelled: there was no time to choose
    if tree.completions:
        assert tree.answer is not None
        assert tree.answer == tree.candidates[0]
        assert len({answer.final for answer in tree.candidates}) == len(tree.candidates)
        assert math.isclose(sum(a.votes for a in tree.candidates), 1) or not any(
            a.votes for a in tree.candidates
        )
    elif tree.truncated:
        assert tree.answer is not None
    elif tree.pruned and tree.status == "complete":
        assert tree.stop_reason == "pruned"


STEP = Action("step", ("\n",), 4)
CHUNK = Action("chunk", (), 2)
TOKEN = Action("token", (), 1)
REFINE = Action("refine")


def variants() -> list[dict[str, Any]]:
    """Every algorithm with every kind of action, expansion and leaf that it has."""
    found: list[dict[str, Any]] = [{"algorithm": name} for name in FLAT]
    for action in (STEP, CHUNK, TOKEN):
        base: dict[str, Any] = {"action": action, "max_depth": 6}
        found += [{"algorithm": name, **base} for name in ("rap", "beam", "dvts", "dfs", "particle")]
        for select in ("puct", "thompson"):
            tree = {"algorithm": "mcts", "select": select, **base}
            found.append({**tree, "expand": "step"})
            found.append({**tree, "expand": "step", "leaf": "rollout"})
            found.append({**tree, "expand": "step", "leaf": "mixed"})
            found.append({**tree, "expand": "step", "commit": "step"})
            if action is not TOKEN:
                found.append({**tree, "expand": "path"})
                found.append({**tree, "expand": "path", "commit": "step"})
                found.append({**tree, "expand": "step", "widen": True})
            if action is not TOKEN and select == "thompson":
                found.append({**tree, "expand": "path", "abandon": True})
                found.append({**tree, "expand": "path", "replacement": False, "answer": "orm_max"})
                found.append({**tree, "expand": "path", "abandon": True, "commit": "step"})
        gumbel = {"algorithm": "gumbel", "considered": 4, **base}
        found.append({**gumbel, "expand": "step", "width": 2})
        found.append({**gumbel, "expand": "step", "width": 2, "leaf": "mixed"})
        if action is not TOKEN:
            found.append({**gumbel, "expand": "path", "gumbel_scale": 1.0})
    found += [
        {"algorithm": "mcts", "select": select, "action": REFINE, "max_depth": 4}
        for select in ("puct", "thompson")
    ]
    return found


def rule_for(params: Mapping[str, Any]) -> Rule:
    return lines if params.get("action", STEP) is STEP else words


def described(params: Mapping[str, Any]) -> str:
    """A test's id."""
    said = {k: v.kind if isinstance(v, Action) else v for k, v in params.items() if k != "max_depth"}
    return "-".join(str(v) if not isinstance(v, bool) else k for k, v in said.items())


def sequence(values: Sequence[float]) -> Callable[[], float]:
    """A clock that reads these times, the last one for ever."""
    times = iter(values)
    last = [0.0]

    def clock() -> float:
        last[0] = next(times, last[0])
        return last[0]

    return clock


def replaced(step: Continuation, **fields: Any) -> Continuation:
    return dataclasses.replace(step, **fields)


ONE_AT_A_TIME = {"parallel": 1, "schedule": "waves"}
AB = letters({"a": 0.6, "b": 0.4}, 3)
"""Answers of three lines, each `a` or `b`."""
WORTH = {"a": 0.9, "b": 0.6, "c": 0.3, "d": 0.05}


def first(text: str) -> float:
    """A value model that looks at the first letter only."""
    return WORTH.get(text[:1], 0.5)


def last(text: str) -> float:
    """A value model that looks at the last letter only."""
    return WORTH.get(text.rstrip("\n")[-1:], 0.5)


def listing(depth: int, letters_: str = "abcd") -> ListingPolicy:
    """Draws that list their letters in turn, a line each."""
    return ListingPolicy(letters(dict.fromkeys(letters_, 1 / len(letters_)), depth))


def texts(nodes: list[Node]) -> list[str]:
    return [node.text.strip() for node in nodes]
