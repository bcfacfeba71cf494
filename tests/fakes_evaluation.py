"""Trees of the fake language, for the tests of what is read off them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from fakes import FakePolicy, FakeScorer, FakeTask, encode, letters
from ramify.evaluation.budgets import Budget
from ramify.evaluation.metering import GrownTree
from ramify.evaluation.methods import Method
from ramify.evaluation.runner import ProblemRefused
from ramify.rewards.verifier import Example
from ramify.search.records import Sampling
from ramify.search.run import Search
from ramify.search.tree import Tree

PROMPT = "?\n"
CHOICES = {"a": 0.5, "b": 0.3, "c": 0.2}
TASK = FakeTask(right=lambda text: text == "a\nb\n")


def value(text: str) -> float:
    """Fond of b, and not sure of anything."""
    return (1 + text.count("b")) / (3 + len(text))


def tokens(amount: int) -> Budget:
    return Budget("tokens", amount)


def seconds(amount: float) -> Budget:
    return Budget("seconds", amount)


def grown(tree: Tree) -> GrownTree:
    return GrownTree(tree, policy_seconds=0.2, value_seconds=0.1)


async def grow(method: Method, budget: Budget, seed: int = 0, choices: Mapping[str, float] = CHOICES) -> Tree:
    """Search the two-line answers of three letters."""
    tree = Tree(
        id=f"tree_{seed}",
        created_at=0.0,
        model="fake",
        prompt=PROMPT,
        prompt_tokens=encode(PROMPT),
        params=method.params(budget),
        sampling=Sampling(**{"max_tokens": 8, **method.sampling}),
        seed=seed,
    )
    await Search(tree, FakePolicy(letters(choices, 2)), FakeScorer(value), TASK, clock=time.monotonic).run()
    return tree


def problem(index: int, answer: str = "b") -> Example:
    """Right where the last line is `answer`."""
    return Example(
        prompt=PROMPT,
        problem={"answer": answer},
        group="even" if index % 2 == 0 else "odd",
        id=f"p{index}",
        task="exact",
    )


@dataclass
class FakeBackend:
    """Grows trees of the fake language and remembers what was asked."""

    asked: list[tuple[int, str, Budget, int]] = field(default_factory=list)
    methods: list[Method] = field(default_factory=list)
    running: int = 0
    most_running: int = 0
    fail_on: int | None = None
    """Index of the problem whose search fails."""
    forgotten: list[int] = field(default_factory=list)
    """Searches before each time that the caches were cleared."""
    refuse: int | None = None
    """Index of the problem that is refused."""

    async def grow(self, problem: Example, method: Method, budget: Budget, seed: int) -> GrownTree:
        index = int(problem.id[1:])
        self.asked.append((index, method.name, budget, seed))
        self.methods.append(method)
        if index == self.refuse:
            raise ProblemRefused("prompt: too long")
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        tree = await grow(method, budget, seed)
        self.running -= 1
        if index == self.fail_on:
            tree.status, tree.error = "failed", "told to"
        return grown(tree)

    async def forget(self) -> None:
        self.forgotten.append(len(self.asked))


class Killed(Exception):
    """The end of a run in the middle of a search."""


@dataclass
class PlantedBackend:
    """Answers right as often as a method's parameters are near planted ones. A problem is as hard for all methods: one
    that solves more of them solves the same and others."""

    quality: Callable[[Method, Budget], float]
    """Share of the problems that a method gets right."""
    stop_after: int | None = None
    """Searches after which the next ends the run."""
    searches: int = 0
    refuse: int | None = None
    """Index of the problem that is refused."""
    trees: dict[bool, Tree] = field(default_factory=dict)
    """A tree that is right, and one that is wrong."""

    async def grow(self, problem: Example, method: Method, budget: Budget, seed: int) -> GrownTree:
        if self.searches == self.stop_after:
            raise Killed
        self.searches += 1
        if self.refuse is not None and problem.id == f"p{self.refuse}":
            raise ProblemRefused("prompt: too long")
        right = seed / 2**53 < self.quality(method, budget)
        if right not in self.trees:
            drawn = Method("drawn", "best_of_n", "majority", sampling={"temperature": 0.0}, simulations=1)
            self.trees[right] = await grow(drawn, tokens(40), choices={"b" if right else "a": 1.0})
        return grown(self.trees[right])

    async def forget(self) -> None:
        """There is nothing to forget."""
