"""The base of every algorithm: a rule that says from which node to draw next, and what to make of the draws.

An algorithm is synchronous and owns no engine. `run.Search` asks it for plans, has them carried out (several at
once, if it may) and hands the results back; so concurrency, budget and cancellation are written once, elsewhere.
What others must know of an algorithm stands on its class: its parameters and their defaults, its answer rules, the most
that it can cost. Nothing outside compares algorithms by name.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from ramify.search.budget import Budget
from ramify.search.builder import TreeBuilder
from ramify.search.plans import Plan, PlanResult
from ramify.search.records import AnswerRule, Sampling, SearchParams
from ramify.search.selection import softmax
from ramify.search.tree import Node, Tree

COMMON = frozenset(
    {"algorithm", "parallel", "grader", "verifier_weight", "answer", "schedule", "budget"}
    | {"early_stop", "early_stop_threshold", "policies"}
)
"""The parameters of every algorithm."""
STEPWISE = COMMON | {"action", "width", "max_depth"}
"""The parameters of every algorithm that grows a tree step by step."""
PUCT = frozenset({"prior", "prior_temperature", "c_init", "c_base"})


class Algorithm(ABC):
    """One search's algorithm. An instance belongs to one tree.

    A subclass implements `select` and `land`, and sets those of the class attributes that differ. What it keeps in
    attributes of its own (numbers, texts, nodes, and containers of them) is kept with the tree, so that the search can
    be taken on later: see `state`.
    """

    parameters: ClassVar[frozenset[str]] = STEPWISE
    """The fields of `SearchParams` that it heeds. One that it lacks is refused by name."""
    defaults: ClassVar[Mapping[str, Any]] = {"expand": "step"}
    """Its defaults, if they differ from those of `SearchParams`."""
    needs: ClassVar[Mapping[str, tuple[str, tuple[Any, ...]]]] = {}
    """By parameter, what it needs to have an effect under this algorithm alone: see `records.param`."""
    answer_rules: ClassVar[tuple[AnswerRule, ...]] = ("majority", "orm_max", "orm_vote")
    """The rules by which it can choose its answer."""
    rounds: ClassVar[bool] = False
    """It comes to an end of its own, whatever the budget. The search then begins it anew on the same tree, round after
    round, until the budget is spent, and chooses over the complete answers of all of them. What a round draws, and
    where it goes on, must not depend on what an earlier one has expanded or pruned."""
    flat: ClassVar[bool] = False
    """It draws whole answers from the prompt and has no steps to judge."""
    refines: ClassVar[bool] = False
    """It can draw better answers below an answer: action `refine`."""

    def __init__(self, builder: TreeBuilder, rng: random.Random) -> None:
        self.builder, self.rng = builder, rng
        self.tree: Tree = builder.tree
        self.budget: Budget = builder.budget
        self.params = builder.tree.params

    # -- what it can cost ----------------------------------------------------------------------------------------

    @classmethod
    def most_draws(cls, params: SearchParams) -> int:
        """Return the most draws of one expansion."""
        return params.width

    @classmethod
    def worst_case(cls, params: SearchParams, sampling: Sampling) -> int:
        """Return the most tokens that its simulations can generate."""
        simulations, answer, draws = params.budget.simulations, sampling.max_tokens, cls.most_draws(params)
        if params.expand == "path":  # the first simulation makes all its draws, each later one a single one
            return (simulations - 1 + draws) * answer
        step = 1 if params.action.kind == "token" else draws * min(params.action.max_tokens, answer)
        return simulations * (step + (answer if params.leaf != "value" else 0))

    @classmethod
    def reads_off(cls, params: SearchParams) -> bool:
        """Tell whether what it does with its first b tokens is the same under every budget of at least b tokens: then
        the answers of smaller budgets can be read off one search.

        It is not for a search that grows a tree. Its first draws land together, and what is in flight at b under a
        larger budget has its tokens spent and no answer, while a search of b tokens would have drawn no more than it
        could finish."""
        return False

    @property
    def answers_per_simulation(self) -> int:
        """The most complete answers that one simulation after the first can bring."""
        return self.params.width

    # -- the search ----------------------------------------------------------------------------------------------

    @abstractmethod
    def select(self) -> Plan | None:
        """Return the plan of a new simulation, without changing any node: the caller drops it if the budget
        cannot pay for it. Return `None` if nothing can be done until something in flight lands; with nothing in flight,
        the search is exhausted."""

    def resume(self) -> Plan | None:
        """Return the next plan of a simulation that has begun before; `None` if there is none."""
        return None

    def assigned(self, plan: Plan) -> Plan:
        """Return a plan with the policy that is to draw, if the search names several."""
        policies = self.builder.policies
        if plan.kind == "revisit" or not policies.names:
            return plan
        return replace(plan, policy=policies.choose(plan.node, lambda name: self.news(plan.node, name)))

    def news(self, node: Node, policy: str) -> float:
        """Return the chance, in [0, 1], that a draw of a policy from `node` brings what the search looks for there: 1
        if a repeated draw counts as much as another, as a vote does."""
        return 1.0

    def begin(self, plan: Plan) -> None:
        """Mark a plan that is paid for as under way; `run.Search` sends it."""
        self.builder.begin(plan)

    @abstractmethod
    def land(self, plan: Plan, result: PlanResult) -> None:
        """Merge a plan's result into the tree and back its value up."""

    def rescale(self, factor: float) -> None:
        """Hear that the search goes on under larger limits: what was a share f of the budget is now f · factor."""
        return

    # -- shared by the algorithms --------------------------------------------------------------------------------

    @property
    def next_simulation(self) -> int:
        return self.budget.simulations + 1

    def one_step(self, path: Sequence[Node], n: int) -> Plan:
        """Plan to draw n actions at the end of `path` (under `token`: the n likeliest)."""
        action, node = self.params.action, path[-1]
        if action.kind == "token":
            return Plan(self.next_simulation, tuple(path), "token", n, 1)
        left = self.tree.sampling.max_tokens - node.length
        return Plan(self.next_simulation, tuple(path), "step", n, min(action.max_tokens, left))

    def to_end(self, path: Sequence[Node], n: int) -> Plan:
        """Plan to draw n continuations of `path` to the end of the answer."""
        left = self.tree.sampling.max_tokens - path[-1].begun
        return Plan(self.next_simulation, tuple(path), "path", n, left)

    def revisit(self, path: Sequence[Node]) -> Plan:
        """Plan to end at a finished answer, drawing nothing."""
        return Plan(self.next_simulation, tuple(path), "revisit", 0, 0)

    def land_step(self, plan: Plan, result: PlanResult) -> list[Node]:
        """Merge an expansion by one action and back its value up. Returns the children drawn, each once."""
        lines = self.builder.merge(plan, result)
        self.builder.set_priors(plan.node)
        children = [line[0] for line in lines[: len(result.samples)] if line]
        value = self.mean_value(children)
        if value is not None:
            self.builder.back_up(plan.path, value, fresh=(plan.node,))
        return list({child.id: child for child in children}.values())

    def land_revisit(self, plan: Plan) -> None:
        """Back the value of a finished answer up once more."""
        value = self.tree.leaf_value(plan.node)
        if value is not None:
            self.builder.back_up(plan.path, value)

    def mean_value(self, draws: Sequence[Node]) -> float | None:
        """Return the mean leaf value of draws, a child drawn twice counting twice: Σ m·v/Σ m. Enumerated token actions
        count by their exact probabilities. `None` if no draw could be judged."""
        valued = [(self.tree.leaf_value(c), c) for c in draws]
        known = [(v, c) for v, c in valued if v is not None]
        if not known:
            return None
        if self.params.action.kind != "token":
            return sum(v for v, _ in known) / len(known)
        weights = softmax([sum(c.logprobs) for _, c in known])
        return sum(w * v for w, (v, _) in zip(weights, known, strict=True))
