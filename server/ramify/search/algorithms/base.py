"""What every algorithm is: a rule that says where to draw next, and what to make of what came back.

An algorithm is synchronous and owns no engine. `run.Search` asks it for plans, has them carried out (several at
once, if it may) and hands the results back; so concurrency, budget and cancellation are written once, elsewhere.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Sequence

from ramify.search.budget import Budget
from ramify.search.builder import TreeBuilder
from ramify.search.plans import Plan, PlanResult
from ramify.search.selection import softmax
from ramify.search.tree import Node, Tree


class Algorithm(ABC):
    judges_steps = True
    """Whether the value model judges unfinished steps."""

    def __init__(self, builder: TreeBuilder, rng: random.Random) -> None:
        self.builder, self.rng = builder, rng
        self.tree: Tree = builder.tree
        self.budget: Budget = builder.budget
        self.params = builder.tree.params

    @abstractmethod
    def select(self, may_begin: bool) -> Plan | None:
        """The next plan, no statistics changed, since it may be found too dear and never sent; `None` where nothing
        can be done until something in flight lands, or, with nothing in flight, ever. Unless `may_begin`, only
        simulations begun before may go on."""

    @abstractmethod
    def land(self, plan: Plan, result: PlanResult) -> bool:
        """Merge a plan's result into the tree; True where that ends the plan's simulation."""

    def begin(self, plan: Plan) -> None:
        """A selected plan is paid for and goes out."""
        self.builder.begin(plan)

    @property
    def answers_per_simulation(self) -> int:
        """The most complete answers that one simulation after the first can bring."""
        return self.params.width

    @property
    def next_simulation(self) -> int:
        return self.budget.simulations + 1

    def one_step(self, path: Sequence[Node], n: int, simulation: int | None = None) -> Plan:
        """A plan to draw n actions at the end of `path` (under `token`: the n likeliest)."""
        action, node = self.params.action, path[-1]
        left = self.tree.sampling.max_tokens - node.length
        simulation = simulation or self.next_simulation
        if action.kind == "token":
            return Plan(simulation, tuple(path), "token", n, 1)
        return Plan(simulation, tuple(path), "step", n, min(action.max_tokens, left))

    def to_end(self, path: Sequence[Node], n: int) -> Plan:
        """A plan to draw n continuations to the end of the answer."""
        left = self.tree.sampling.max_tokens - path[-1].length
        return Plan(self.next_simulation, tuple(path), "path", n, left)

    def revisit(self, path: Sequence[Node], simulation: int | None = None) -> Plan:
        return Plan(simulation or self.next_simulation, tuple(path), "revisit", 0, 0)

    def land_step(self, plan: Plan, result: PlanResult) -> list[Node]:
        """Merge an expansion by one action, back its value up; the children drawn, each once."""
        lines = self.builder.merge(plan, result)
        self.builder.set_priors(plan.node)
        children = [line[0] for line in lines[: len(result.samples)] if line]
        value = self.mean_value(children)
        if value is not None:
            self.builder.back_up(plan.path, value, fresh=(plan.node,))
        return list({child.id: child for child in children}.values())

    def mean_value(self, draws: Sequence[Node]) -> float | None:
        """The mean leaf value of draws, a child drawn twice counting twice: Σ m·v/Σ m. Enumerated token actions
        count by their exact probabilities. `None` where no draw could be judged."""
        valued = [(self.tree.leaf_value(c), c) for c in draws]
        known = [(v, c) for v, c in valued if v is not None]
        if not known:
            return None
        if self.params.action.kind != "token":
            return sum(v for v, _ in known) / len(known)
        weights = softmax([sum(c.logprobs) for _, c in known])
        return sum(w * v for w, (v, _) in zip(weights, known, strict=True))
