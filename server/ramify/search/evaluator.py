"""Carry a plan out: draw from the policy, cut the draws into actions, judge what is new. The tree is only read."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from ramify.search.builder import TreeBuilder
from ramify.search.cutting import Piece, cut
from ramify.search.plans import Hurdle, Plan, PlanResult, SampledAction, Spent
from ramify.search.protocols import GradingFailed, Policy, SampleAborted, Scorer, Task
from ramify.search.records import Continuation, Draw, SearchParams, Terminal
from ramify.search.tree import Node, Tree, derive_seed


@dataclass(frozen=True, slots=True)
class JudgePolicy:
    """Which new nodes are judged, and by whom."""

    steps: bool
    """The value model judges unfinished steps."""
    ends: bool
    """The value model, as outcome model, judges complete answers."""
    verifier: bool
    """The task's verifier judges complete answers."""

    @classmethod
    def of(cls, params: SearchParams, steps: bool) -> JudgePolicy:
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
        judging: JudgePolicy,
        builder: TreeBuilder,
    ) -> None:
        self.tree, self.policy, self.scorer, self.task = tree, policy, scorer, task
        self.judging, self.builder = judging, builder
        self.flat = tree.params.algorithm in ("best_of_n", "self_consistency")

    async def evaluate(self, plan: Plan, expansion: int, spent: Spent) -> PlanResult:
        """`expansion` numbers the requests sent from the plan's node, for the seeds. `spent` is kept up to date also
        where this raises what the engines raise."""
        if plan.kind == "revisit":
            return PlanResult(samples=[])
        place = [*self._place(plan.node), expansion]
        if plan.hurdle is not None:
            return await self._write_on(plan.node, plan.hurdle, place, spent)
        if plan.kind == "token":
            steps = await self._next_tokens(plan, spent)
        elif plan.kind == "path":
            steps = await self._sample_end(plan.node, plan.n, [*place, "end"], spent)
        else:
            steps = await self._sample_step(plan.node, plan.n, [*place, "step"], spent)
        samples = [self._actions(plan.node, step, to_end=plan.kind == "path") for step in steps]
        if not plan.rollout_tokens:
            return await self._judge(plan.node, samples, None, spent)
        (end,) = await self._sample_end(plan.node, 1, [*place, "end"], spent)
        return await self._judge(plan.node, samples, self._actions(plan.node, end, to_end=True), spent)

    async def _write_on(
        self, node: Node, hurdle: Hurdle, place: Sequence[int | str], spent: Spent
    ) -> PlanResult:
        """One draw from `node`, action by action, until it ends or does not clear the hurdle."""
        at, line = node, list[SampledAction]()
        while True:
            (step,) = await self._sample_step(at, 1, [*place, "on", len(line)], spent)
            line += self._actions(at, step, to_end=False)
            result = await self._judge(node, [line], None, spent)
            (line,) = result.samples
            at = self._standing(node, line)
            if line[-1].terminal or self._promise(node, line) < hurdle.at(at.length):
                return result

    def _standing(self, node: Node, line: Sequence[SampledAction]) -> Node:
        """Where a draw from `node` stands, as one node below it that is not in the tree."""
        tokens = tuple(token for action in line for token in action.tokens)
        return Node(
            id=-1,
            parent=node.id,
            depth=node.depth + len(line),
            tokens=tokens,
            text="".join(action.text for action in line),
            length=node.length + len(tokens),
        )

    def _promise(self, node: Node, line: Sequence[SampledAction]) -> float:
        """What an unfinished draw is worth: the model's value, times the chance of an answer that is not yet known."""
        at: Node | None = node
        for action in line:
            at = self.builder.known(at, action.tokens) if at is not None else None
        if at is None:
            return line[-1].value or 0.0
        return (at.value or 0.0) * self.builder.unseen(at)

    async def _next_tokens(self, plan: Plan, spent: Spent) -> list[Continuation]:
        temperature = self.tree.sampling.temperature or 1.0
        steps = await self.policy.next_tokens(self.tree.sequence(plan.node), plan.n, temperature)
        spent.tokens += 1
        if not 0 < len(steps) <= plan.n:
            raise BadSteps(f"the policy gave {len(steps)} next tokens where up to {plan.n} were asked for")
        _check_steps(steps, 1)
        return steps

    async def _sample_step(
        self, at: Node, n: int, place: Sequence[int | str], spent: Spent
    ) -> list[Continuation]:
        """`n` draws of one action."""
        action, sampling = self.tree.params.action, self.tree.sampling
        stop = (*action.stop, *sampling.stop) if action.kind == "step" else sampling.stop
        return await self._sample(at, self._draw(at, n, action.max_tokens, stop), place, spent)

    async def _sample_end(
        self, at: Node, n: int, place: Sequence[int | str], spent: Spent
    ) -> list[Continuation]:
        """`n` draws to the end of the answer."""
        sampling = self.tree.sampling
        return await self._sample(at, self._draw(at, n, sampling.max_tokens, sampling.stop), place, spent)

    async def _sample(
        self, at: Node, draw: Draw, place: Sequence[int | str], spent: Spent
    ) -> list[Continuation]:
        seeds = [derive_seed(self.tree.seed, "draw", *place, i) for i in range(draw.n)]
        try:
            steps = await self.policy.sample(self.tree.sequence(at), draw, seeds)
        except SampleAborted as aborted:
            spent.tokens += aborted.tokens
            raise
        spent.tokens += sum(len(step.token_ids) for step in steps)
        if len(steps) != draw.n:
            raise BadSteps(f"the policy gave {len(steps)} continuations where {draw.n} were asked for")
        _check_steps(steps, draw.max_tokens)
        return steps

    def _draw(self, at: Node, n: int, cap: int, stop: Sequence[str]) -> Draw:
        sampling = self.tree.sampling
        return Draw(
            n=n,
            max_tokens=min(cap, sampling.max_tokens - at.length),
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            stop=tuple(dict.fromkeys(stop)),
        )

    def _place(self, node: Node) -> list[int]:
        """The child indices that lead to `node`."""
        lineage = self.tree.lineage(node)
        return [a.children.index(b.id) for a, b in pairwise(lineage)]

    def _actions(self, node: Node, step: Continuation, *, to_end: bool) -> list[SampledAction]:
        """A continuation of `node` as actions, the one that ends the answer marked."""
        whole = Piece(step.token_ids, step.logprobs, step.text)
        pieces = cut(step, self.tree.params.action) if to_end and not self.flat else [whole]
        grown: list[SampledAction] = []
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
            grown.append(SampledAction(piece.tokens, piece.logprobs, piece.text, terminal, step.release))
            if terminal:
                break
        return grown

    def _stopped(self, text: str, seen: int) -> bool:
        """Whether a stop string of the answer ends after the first `seen` characters; it may straddle two actions."""
        return any(text.find(s, max(0, seen - len(s) + 1)) >= 0 for s in self.tree.sampling.stop)

    async def _judge(
        self,
        node: Node,
        samples: list[list[SampledAction]],
        rollout: list[SampledAction] | None,
        spent: Spent,
    ) -> PlanResult:
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
                    value=scores.get(a.sequence, a.action.value) if self._is_scored(a.action) else None,
                    outcome=outcomes.get(a.text, a.action.outcome) if a.action.complete else None,
                )
                for a in line
            ]
            for line in lines
        ]
        return PlanResult(samples=judged[: len(samples)], rollout=judged[-1] if rollout else None)

    def _is_scored(self, action: SampledAction) -> bool:
        if action.terminal == "truncated":
            return False
        return self.judging.ends if action.complete else self.judging.steps

    def _walk(self, node: Node, line: list[SampledAction]) -> list[_Prefix]:
        """Along one draw: each action with the sequence and text up to it."""
        sequence, text = self.tree.sequence(node), self.tree.text(node)
        found: list[_Prefix] = []
        at: Node | None = node
        for action in line:
            sequence, text = sequence + action.tokens, text + action.text
            at = self.builder.known(at, action.tokens) if at is not None else None
            holder = action if at is None else at
            judged = holder.value is not None or holder.outcome is not None
            found.append(_Prefix(action, sequence, text, judged))
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


def _check_steps(steps: Sequence[Continuation], max_tokens: int) -> None:
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
class _Prefix:
    action: SampledAction
    sequence: tuple[int, ...]
    text: str
    judged: bool
    """It has its judgement already: in the tree, or from before the draw was written on."""
