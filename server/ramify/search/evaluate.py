"""Carry a plan out: draw from the policy, cut the draws into actions, judge what is new. The tree is only read."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from ramify.search.cutting import Piece, cut
from ramify.search.plans import Drawn, Grown, Plan, Spent
from ramify.search.protocols import GradingFailed, Policy, SampleAborted, Scorer, Task
from ramify.search.records import Draw, SearchParams, Step, Terminal
from ramify.search.seeds import derive
from ramify.search.tree import Node, Tree


@dataclass(frozen=True, slots=True)
class Judging:
    """Which new nodes are judged, and by whom."""

    steps: bool
    """The value model judges unfinished steps."""
    ends: bool
    """The value model, as outcome model, judges complete answers."""
    verifier: bool
    """The task's verifier judges complete answers."""

    @classmethod
    def of(cls, params: SearchParams, steps: bool) -> Judging:
        """Complete answers have one judge, never both; a vote over flat answers needs none."""
        votes_only = not steps and params.answer in ("majority", "most_visited")
        by_model = params.grader == "model"
        return cls(steps=steps, ends=by_model and not votes_only, verifier=not by_model)


class BadSteps(RuntimeError):
    """A policy that gives another number of continuations than was asked for, or one that cannot be used."""


class BadScores(RuntimeError):
    """A scorer that answers with too few values, too many, or none that is a number in [0, 1]."""


class Evaluator:
    """The engine side of one search."""

    def __init__(
        self,
        tree: Tree,
        policy: Policy,
        scorer: Scorer,
        task: Task,
        judging: Judging,
        known: Callable[[Node, tuple[int, ...]], Node | None],
    ) -> None:
        self.tree, self.policy, self.scorer, self.task = tree, policy, scorer, task
        self.judging, self.known = judging, known
        self.flat = tree.params.algorithm in ("best_of_n", "self_consistency")

    async def evaluate(self, plan: Plan, expansion: int, spent: Spent) -> Drawn:
        """`expansion` numbers the requests sent from the plan's node, for the seeds. `spent` is kept up to date also
        where this raises what the engines raise."""
        if plan.kind == "revisit":
            return Drawn(samples=[])
        prefix = self.tree.sequence(plan.node)
        if plan.kind == "token":
            steps = await self.policy.next_tokens(prefix, plan.n, self.tree.sampling.temperature or 1.0)
            spent.tokens += 1
            if not 0 < len(steps) <= plan.n:
                raise BadSteps(
                    f"the policy gave {len(steps)} next tokens where up to {plan.n} were asked for"
                )
            _check_steps(steps, 1)
        else:
            steps = await self._sample(prefix, plan, plan.kind == "path", expansion, spent)
        samples = [self._actions(plan.node, step, to_end=plan.kind == "path") for step in steps]
        if not plan.rollout_tokens:
            return await self._judge(plan.node, samples, None, spent)
        (end,) = await self._sample(prefix, replace(plan, n=1), True, expansion, spent)
        return await self._judge(plan.node, samples, self._actions(plan.node, end, to_end=True), spent)

    async def _sample(
        self, prefix: tuple[int, ...], plan: Plan, to_end: bool, expansion: int, spent: Spent
    ) -> list[Step]:
        draw = self._draw(plan, to_end)
        place = (*self._place(plan.node), expansion, "end" if to_end else "step")
        seeds = [derive(self.tree.seed, "draw", *place, i) for i in range(plan.n)]
        try:
            steps = await self.policy.sample(prefix, draw, seeds)
        except SampleAborted as aborted:
            spent.tokens += aborted.tokens
            raise
        spent.tokens += sum(len(step.token_ids) for step in steps)
        if len(steps) != plan.n:
            raise BadSteps(f"the policy gave {len(steps)} continuations where {plan.n} were asked for")
        _check_steps(steps, draw.max_tokens)
        return steps

    def _draw(self, plan: Plan, to_end: bool) -> Draw:
        sampling, action = self.tree.sampling, self.tree.params.action
        left = sampling.max_tokens - plan.node.length
        stop = sampling.stop if to_end or action.kind != "step" else (*action.stop, *sampling.stop)
        return Draw(
            n=plan.n,
            max_tokens=left if to_end else min(action.max_tokens, left),
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            stop=tuple(dict.fromkeys(stop)),
        )

    def _place(self, node: Node) -> list[int]:
        """The child indices that lead to `node`."""
        lineage = self.tree.lineage(node)
        return [a.children.index(b.id) for a, b in pairwise(lineage)]

    def _actions(self, node: Node, step: Step, *, to_end: bool) -> list[Grown]:
        """A continuation of `node` as actions, the one that ends the answer marked."""
        whole = Piece(step.token_ids, step.logprobs, step.text)
        pieces = cut(step, self.tree.params.action) if to_end and not self.flat else [whole]
        grown: list[Grown] = []
        length, text = node.length, self.tree.text(node)
        for i, piece in enumerate(pieces):
            length += len(piece.tokens)
            seen, text = len(text), text + piece.text
            terminal: Terminal | None = None
            last = i == len(pieces) - 1
            if last and step.finish == "eos":
                terminal = "eos"
            elif self._stopped(text, seen):
                terminal = "stop"
            elif (
                length >= self.tree.sampling.max_tokens
                or node.depth + i + 1 >= self.tree.params.max_depth
                or (last and to_end)
            ):
                terminal = "truncated"
            grown.append(Grown(piece.tokens, piece.logprobs, piece.text, terminal, step.release))
            if terminal:
                break
        return grown

    def _stopped(self, text: str, seen: int) -> bool:
        """Whether a stop string of the answer ends after the first `seen` characters; it may straddle two actions."""
        return any(text.find(s, max(0, seen - len(s) + 1)) >= 0 for s in self.tree.sampling.stop)

    async def _judge(
        self, node: Node, samples: list[list[Grown]], rollout: list[Grown] | None, spent: Spent
    ) -> Drawn:
        """Score and grade every new action of the draws, in one batch each."""
        lines = [self._walk(node, line) for line in (*samples, *([rollout] if rollout else []))]
        new = [a for line in lines for a in line if not a.judged]
        ask = list(dict.fromkeys(a.sequence for a in new if self._is_scored(a.action)))
        texts = list(dict.fromkeys(a.text for a in new if self.judging.verifier and a.action.complete))
        scores = await self._score(ask)
        spent.scored += len(ask)
        outcomes = dict(zip(texts, await asyncio.gather(*map(self._grade, texts)), strict=True))
        spent.grading_failures += sum(outcome is None for outcome in outcomes.values())
        judged = [
            [
                replace(
                    a.action,
                    value=scores.get(a.sequence) if self._is_scored(a.action) else None,
                    outcome=outcomes.get(a.text) if a.action.complete else None,
                )
                for a in line
            ]
            for line in lines
        ]
        return Drawn(samples=judged[: len(samples)], rollout=judged[-1] if rollout else None)

    def _is_scored(self, action: Grown) -> bool:
        if action.terminal == "truncated":
            return False
        return self.judging.ends if action.complete else self.judging.steps

    def _walk(self, node: Node, line: list[Grown]) -> list[_Along]:
        """Along one draw: each action with the sequence and text up to it."""
        sequence, text = self.tree.sequence(node), self.tree.text(node)
        found: list[_Along] = []
        at: Node | None = node
        for action in line:
            sequence, text = sequence + action.tokens, text + action.text
            at = self.known(at, action.tokens) if at is not None else None
            judged = at is not None and (at.value is not None or at.outcome is not None)
            found.append(_Along(action, sequence, text, judged))
        return found

    async def _score(self, sequences: list[tuple[int, ...]]) -> dict[tuple[int, ...], float]:
        if not sequences:
            return {}
        scores = await self.scorer.score(sequences)
        if len(scores) != len(sequences):
            raise BadScores(f"the scorer gave {len(scores)} values for {len(sequences)} sequences")
        for score in scores:
            if not (math.isfinite(score.value) and 0 <= score.value <= 1):
                raise BadScores(f"the scorer gave the value {score.value}, which is outside [0, 1]")
        return {s: score.value for s, score in zip(sequences, scores, strict=True)}

    async def _grade(self, text: str) -> float | None:
        """The outcome, or `None` where the verifier itself failed."""
        try:
            return (await self.task.grade(text)).outcome
        except GradingFailed:
            return None


def _check_steps(steps: Sequence[Step], max_tokens: int) -> None:
    for step in steps:
        size = len(step.token_ids)
        if not 0 < size <= max_tokens:
            raise BadSteps(
                f"the policy gave a continuation of {size} tokens where 1 to {max_tokens} were asked for"
            )
        if not size == len(step.logprobs) == len(step.ends):
            raise BadSteps(
                f"the policy gave {len(step.logprobs)} log-probs and {len(step.ends)} ends for {size} tokens"
            )


@dataclass(frozen=True, slots=True)
class _Along:
    action: Grown
    sequence: tuple[int, ...]
    text: str
    judged: bool
    """The tree already holds it, with its judgement."""
