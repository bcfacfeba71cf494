"""Carry a plan out: draw from the policy, cut the draws into actions, judge what is new. The tree is only read.

If the policy judges what it writes, its values are taken and the scorer is asked only about what has none. A draw that
may be given up is then one request too; without such a policy it is written and judged action by action.

Under `grader: confidence` the value of a text is the policy's confidence in it, exp of the mean log-probability of its
tokens: the inverse of its perplexity, in (0, 1]. It costs nothing, as the log-probabilities come with every draw and
stay in the tree; it is no probability of being right. (2026-11-28: it is computed here and not by a `Scorer`, which
is given token ids alone and would have to run the policy over every prefix again.)

Under `action: refine` a draw from a complete answer is another answer, after a prompt of its own. The reviser is asked
for that prompt by the first plan that goes there, so that no answer is looked at which nothing follows.

Of several policies, one that fails is asked no more in this search, and another makes the same draw in its place. What
the failed one has generated is spent; at the budget's end the other has only the rest of what was set aside. The
failure of `OWN_POLICY`, of the last one left, or of one that leaves nothing of it, is the search's.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ramify.search.builder import TreeBuilder
from ramify.search.cutting import SampledAction, cut, first_stop, given_up_at
from ramify.search.departures import Departures
from ramify.search.plans import Plan, PlanCost, PlanKind, PlanResult
from ramify.search.protocols import (
    GradingFailed,
    JudgingPolicy,
    Policy,
    Reviser,
    SampleAborted,
    Scorer,
    Task,
    departs,
)
from ramify.search.records import (
    OWN_POLICY,
    Continuation,
    Hurdle,
    Revision,
    Sampling,
    Score,
    State,
    Terminal,
)
from ramify.search.scorers import Scorers
from ramify.search.tree import Node, derive_seed

LONGEST_FAILURE = 200
"""Characters of a failure that a tree keeps, of a policy or in place of feedback."""


class Evaluator:
    """The engine side of one search.

    policies: those that its plans name. scorer: one, several (`Scorers`), or `None`; then only the verifier, the policy
    itself and its confidence judge. judges_steps: whether unfinished steps are judged. A complete answer has one judge,
    unless `grader` mixes them: the verifier if `grader` says so, else the policy or the value model. A vote over
    answers that one policy has drawn whole needs neither. Safety scorers judge whatever is new, and what they prune
    ends there. reviser: who asks for better answers, under `action: refine` alone.
    """

    def __init__(
        self,
        builder: TreeBuilder,
        policies: Mapping[str, Policy],
        scorer: Scorer | None,
        task: Task,
        *,
        judges_steps: bool,
        reviser: Reviser | None = None,
    ) -> None:
        self.builder, self.tree, self.reviser = builder, builder.tree, reviser
        self.policies, self.scorers, self.task = policies, Scorers.of(scorer), task
        params = self.tree.params
        self._by_confidence = params.grader == "confidence"
        judged = bool(self.scorers.weighing) or (all_judge(policies) and not self._by_confidence)
        judges_steps = judges_steps and (self._by_confidence or judged)
        votes_only = not judges_steps and params.answer in ("majority", "most_visited")
        if judged and len(params.policies) > 1:  # a judge tells which of them is better
            votes_only = False
        self._judges_steps = judges_steps
        self._departures = Departures(self.tree)
        self._grades_answers = params.grader in ("verifier", "mixed")
        self._judges_answers = params.grader != "verifier" and not votes_only

    async def evaluate(self, plan: Plan, expansion: int, cost: PlanCost) -> PlanResult:
        """Draw and judge what a plan asks for.

        expansion: numbers the plans sent from the plan's node, for the seeds. cost: kept up to date, even if this
        raises what the policy, the scorer or the task raised. Raises `RuntimeError` for a reply that cannot be used."""
        if plan.kind == "revisit":
            return PlanResult(samples=[])
        if plan.node.terminal is None or plan.node.revision is not None:
            return await self._carry_out(plan, expansion, cost)
        revision = await self._revise(plan, expansion, cost)
        if revision.closed is not None:
            return PlanResult(samples=[], revision=revision)
        asked = replace(plan.node, revision=revision)  # a copy: the tree is only read
        left = plan.tokens - cost.charged  # without those of a critique
        asking = replace(plan, path=(*plan.path[:-1], asked), tokens=left)
        return replace(await self._carry_out(asking, expansion, cost), revision=revision)

    async def _revise(self, plan: Plan, expansion: int, cost: PlanCost) -> Revision:
        """Ask how the complete answer at a plan's node can be bettered."""
        if self.reviser is None:
            raise RuntimeError("action 'refine' needs a reviser")
        node = plan.node
        place: Sequence[int | str] = [*self._place(node), expansion, "critique"]

        async def write(prompt: Sequence[int], tokens: int) -> str:
            at = replace(node, revision=Revision(feedback="", prompt=tuple(prompt)))
            left = plan.tokens - cost.charged - 1  # one is the answer's
            if left < 1:
                raise GradingFailed("the answer leaves no token for a critique")
            how = replace(self.tree.sampling, max_tokens=min(tokens, left), stop=())
            (said,) = await self._sample(plan, at, [0], how, place, cost)
            return said.text

        try:
            outcome = node.outcome if self._grades_answers else None
            return await self.reviser(self.tree.text(node), outcome, write)
        except GradingFailed as error:
            return Revision(feedback=str(error)[:LONGEST_FAILURE], closed="feedback")

    async def _carry_out(self, plan: Plan, expansion: int, cost: PlanCost) -> PlanResult:
        place = [*self._place(plan.node), expansion]
        if plan.hurdle is not None and self._judging_policy(plan.policy) is None:
            lines = [await self._write_on(plan, plan.hurdle, i, place, cost) for i in range(plan.n)]
            return PlanResult(samples=lines)
        if plan.kind == "token":
            drawn = await self._next_tokens(plan, cost)
        elif plan.kind == "step":
            how = self._step_sampling(plan.tokens)
            drawn = await self._sample(plan, plan.node, range(plan.n), how, [*place, "step"], cost)
        else:
            how = self._end_sampling(plan.tokens)
            drawn = await self._sample(
                plan, plan.node, range(plan.n), how, [*place, "end"], cost, plan.hurdle
            )
        samples = [self._actions(plan.node, one, plan.kind) for one in drawn]
        rollout = None
        if plan.rollout_tokens:
            how = self._end_sampling(plan.rollout_tokens)
            (end,) = await self._sample(plan, plan.node, [0], how, [*place, "end"], cost)
            rollout = self._actions(plan.node, end, "path")
        return await self._judge(plan.node, samples, rollout, cost)

    async def _write_on(
        self, plan: Plan, hurdle: Hurdle, draw: int, place: Sequence[int | str], cost: PlanCost
    ) -> list[SampledAction]:
        """Make draw number `draw` action by action, until the answer ends or does not clear the hurdle: what
        `JudgingPolicy.write_on` does in one request."""
        at, line, before = plan.node, list[SampledAction](), cost.charged
        # What was taken over fills the answer as what was drawn does.
        while (left := plan.tokens - (cost.charged - before) - sum(one.taken for one in line)) > 0:
            step = self._step_sampling(min(self.tree.params.action.max_tokens, left))
            (one,) = await self._sample(plan, at, [draw], step, [*place, "on", len(line)], cost)
            line += self._actions(at, one, "step")
            (line,) = (await self._judge(plan.node, [line], None, cost)).samples
            at = self._standing(plan.node, line)
            if line[-1].terminal or self._promise(plan.node, line) < hurdle.at(at.length):
                break
        return line

    def _standing(self, node: Node, line: Sequence[SampledAction]) -> Node:
        """Return the end of a draw from `node` as one node that is not in the tree, to write on from there."""
        whole = SampledAction.joined(line)
        return Node(
            id=-1,
            parent=node.id,
            depth=node.depth + len(line),
            tokens=whole.tokens,
            logprobs=whole.logprobs,
            text=whole.text,
            length=node.length + len(whole.tokens),
        )

    def _promise(self, node: Node, line: Sequence[SampledAction]) -> float:
        """Return what an unfinished draw is worth: the model's value, times the chance of an answer not yet known."""
        at: Node | None = node
        for action in line:
            at = self.builder.known(at, action.tokens) if at is not None else None
        if at is None:
            return line[-1].value or 0.0
        return (at.value or 0.0) * self.builder.unseen(at)

    # -- drawing -------------------------------------------------------------------------------------------------

    def _step_sampling(self, max_tokens: int) -> Sampling:
        """Return the parameters with which one action is sampled."""
        action, sampling = self.tree.params.action, self.tree.sampling
        stops = (*action.stop, *sampling.stop) if action.kind == "step" else sampling.stop
        return replace(sampling, max_tokens=max_tokens, stop=tuple(dict.fromkeys(stops)))

    def _end_sampling(self, max_tokens: int) -> Sampling:
        """Return those with which a continuation is sampled to the end of the answer."""
        sampling = self.tree.sampling
        return replace(sampling, max_tokens=max_tokens, stop=tuple(dict.fromkeys(sampling.stop)))

    async def _sample(
        self,
        plan: Plan,
        at: Node,
        draws: Sequence[int],
        sampling: Sampling,
        place: Sequence[int | str],
        cost: PlanCost,
        hurdle: Hurdle | None = None,
    ) -> list[Continuation]:
        """Make the draws of these numbers at `at`; give those up that do not clear the hurdle, if there is one."""
        seeds = [derive_seed(self.tree.seed, "draw", *place, i) for i in draws]
        name, set_aside = plan.policy, len(draws) * sampling.max_tokens
        while True:
            name, before = self._in_place_of(name), cost.tokens
            try:
                drawn = await self._drawn(name, at, sampling, seeds, hurdle, cost)
            except Exception as error:
                closed = name != OWN_POLICY and self.builder.policies.close(name, _said(error))
                if not closed:
                    raise
                # What the failed one has generated is spent: out of the budget or, at its end, out of this draw's own.
                spent = cost.tokens - before
                if self.builder.budget.reserve(spent):
                    cost.lost += spent
                else:
                    set_aside -= spent
                if set_aside < len(draws):
                    raise
                sampling = replace(sampling, max_tokens=set_aside // len(draws))
            else:
                return self._named(drawn, name)

    def _in_place_of(self, name: str) -> str:
        """Return who draws in place of a policy: itself while it can, then the one served, or another."""
        able = self.builder.policies.open
        return name if not able or name in able else OWN_POLICY if OWN_POLICY in able else able[0]

    async def _drawn(
        self,
        name: str,
        at: Node,
        sampling: Sampling,
        seeds: Sequence[int],
        hurdle: Hurdle | None,
        cost: PlanCost,
    ) -> list[Continuation]:
        """Have a policy make draws, and check what it gives."""
        try:
            drawn = await self._request(name, at, sampling, seeds, hurdle)
        except SampleAborted as aborted:
            cost.by_policy[name] += aborted.tokens
            raise
        cost.by_policy[name] += sum(len(one.token_ids) - one.taken for one in drawn)
        if len(drawn) != len(seeds):
            raise RuntimeError(f"the policy gave {len(drawn)} continuations in place of {len(seeds)}")
        _check(drawn, sampling.max_tokens)
        return drawn

    def _request(
        self, name: str, at: Node, sampling: Sampling, seeds: Sequence[int], hurdle: Hurdle | None
    ) -> Awaitable[list[Continuation]]:
        prefix, judging = self.tree.prefix(at, name), self._judging_policy(name)
        how: dict[str, Any] = {}
        if departs(self.policies[name]) and any(left := self._departures.of(name, at, sampling, seeds)):
            how["departures"] = left
        if hurdle is None or judging is None:
            return self.policies[name].sample(prefix, sampling, seeds, **how)
        action = self.tree.params.action
        return judging.write_on(
            prefix, sampling, seeds, action=action, hurdle=hurdle, length=at.length, **how
        )

    def _judging_policy(self, name: str) -> JudgingPolicy | None:
        """Return a policy if its values are taken."""
        policy = self.policies[name]
        return policy if isinstance(policy, JudgingPolicy) and not self._by_confidence else None

    async def _next_tokens(self, plan: Plan, cost: PlanCost) -> list[Continuation]:
        temperature = self.tree.sampling.temperature or 1.0
        policy = self.policies[plan.policy]
        prefix = self.tree.prefix(plan.node, plan.policy)
        drawn = await policy.next_tokens(prefix, plan.n, temperature)
        cost.by_policy[plan.policy] += 1
        if not 0 < len(drawn) <= plan.n:
            raise RuntimeError(f"the policy gave {len(drawn)} next tokens in place of 1 to {plan.n}")
        _check(drawn, 1)
        return self._named(drawn, plan.policy)

    def _named(self, drawn: list[Continuation], name: str) -> list[Continuation]:
        """Return draws with the name of the policy that made them, if the search names any."""
        return [replace(one, policy=name) for one in drawn] if self.tree.params.policies else drawn

    def _place(self, node: Node) -> list[int]:
        """Return the child indices that lead to `node`. Unlike its id, they say nothing of the rest of the tree."""
        return [a.children.index(b.id) for a, b in itertools.pairwise(self.tree.lineage(node))]

    # -- cutting -------------------------------------------------------------------------------------------------

    def _actions(self, node: Node, drawn: Continuation, kind: PlanKind) -> list[SampledAction]:
        """Cut a continuation of `node` into actions, and mark the one that ends the answer."""
        pieces = cut(drawn, self.tree.params.action if kind == "path" else None)
        if self._by_confidence:
            pieces = self._with_confidence(node, pieces)
        if drawn.finish == "abandoned":
            pieces = pieces[: given_up_at(pieces, self.tree.params.action)]
            if not pieces:
                raise RuntimeError("the policy gave a draw up before it had judged one whole action of it")
        actions: list[SampledAction] = []
        above = self.tree.unfinished(node)
        length = node.begun
        text = self.tree.opening + "".join(step.text for step in above)
        for depth, piece in enumerate(pieces, node.depth + 1):
            length += len(piece.tokens)
            seen, text = len(text), text + piece.text
            last = len(actions) == len(pieces) - 1
            full = length >= self.tree.sampling.max_tokens or depth >= self.tree.params.max_depth
            terminal: Terminal | None = None
            if last and drawn.finish == "eos":
                terminal = "eos"
            elif first_stop(text, self.tree.sampling.stop, seen=seen):  # it may straddle two actions
                terminal = "stop"
            elif full or (last and kind in ("path", "answer") and drawn.finish != "abandoned"):
                terminal = "truncated"
            action = piece if terminal is None else replace(piece, terminal=terminal)
            if action.value is not None and not self._is_judged(action):
                action = replace(action, value=None)
            actions.append(action)
            if terminal:
                break
        return actions

    def _with_confidence(self, node: Node, actions: Sequence[SampledAction]) -> list[SampledAction]:
        """Return actions that were drawn in a row from `node`, each with the policy's confidence in the answer as far
        as its end."""
        logprobs = [logprob for step in self.tree.unfinished(node) for logprob in step.logprobs]
        total, tokens = sum(logprobs), len(logprobs)
        confident: list[SampledAction] = []
        for action in actions:
            total, tokens = total + sum(action.logprobs), tokens + len(action.logprobs)
            confident.append(replace(action, value=math.exp(min(0.0, total / tokens))))
        return confident

    # -- judging -------------------------------------------------------------------------------------------------

    async def _judge(
        self,
        node: Node,
        samples: list[list[SampledAction]],
        rollout: list[SampledAction] | None,
        cost: PlanCost,
    ) -> PlanResult:
        """Score every new action that came without a value, in one batch, and cut what is pruned; then grade every new
        answer, all at once."""
        if all(map(self._is_settled, itertools.chain(*samples, rollout or ()))):
            return PlanResult(samples, rollout)
        lines = [self._prefixes(node, line) for line in (*samples, *([rollout] if rollout else []))]
        lines = await self._scored(lines, cost)
        new = [p for line in lines for p in line if p.action.complete and not p.graded]
        texts = list(dict.fromkeys(p.text for p in new if self._grades_answers))
        outcomes = dict(zip(texts, await asyncio.gather(*map(self._grade, texts)), strict=True))
        cost.grading_failures += sum(outcome is None for outcome in outcomes.values())
        judged = [
            [
                replace(
                    p.action, outcome=outcomes.get(p.text, p.action.outcome) if p.action.complete else None
                )
                for p in line
            ]
            for line in lines
        ]
        return PlanResult(samples=judged[: len(samples)], rollout=judged[-1] if rollout else None)

    async def _scored(self, lines: list[list[_Prefix]], cost: PlanCost) -> list[list[_Prefix]]:
        """Return draws with what the scorers say, each as far as the first action that a safety scorer prunes."""
        new = [p for line in lines for p in line if not p.valued and self._is_judged(p.action)]
        unsafe = [p for line in lines for p in line if not p.safe] if self.scorers.pruning else []
        weigh, prune = (list(dict.fromkeys(p.state for p in some)) for some in (new, unsafe))
        found = await self.scorers.ask(weigh, prune)
        cost.scored += sum(map(len, found.values()))
        scored = []
        for line in lines:
            scored.append(list[_Prefix]())
            for p in line:
                scored[-1].append(replace(p, action=self._with_scores(p.action, found.get(p.state, {}))))
                if scored[-1][-1].action.terminal == "pruned":
                    break
        return scored

    def _with_scores(self, action: SampledAction, scores: Mapping[str, Score]) -> SampledAction:
        """Return an action with its value, what of each scorer is kept, and its end if one of them prunes it."""
        if not scores:
            return action
        value, pruned_by = self.scorers.value(scores), self.scorers.pruned_by(scores)
        return replace(
            action,
            value=action.value if value is None else value,
            scores=self.scorers.kept(scores),
            pruned_by=pruned_by,
            terminal=action.terminal if pruned_by is None else "pruned",
        )

    def _is_judged(self, action: SampledAction) -> bool:
        if action.terminal == "truncated":
            return False
        return self._judges_answers if action.complete else self._judges_steps

    def _is_settled(self, action: SampledAction) -> bool:
        """Nothing need be asked about it."""
        if self.scorers.pruning or (action.complete and self._grades_answers):
            return False
        return action.value is not None or not self._is_judged(action)

    def _prefixes(self, node: Node, line: list[SampledAction]) -> list[_Prefix]:
        """Return each action of a draw with the sequence and the text as far as its end. One that is known to be pruned
        is the last."""
        steps = self.tree.unfinished(node)
        state = self.tree.state(steps)
        text = self.tree.opening + "".join(step.text for step in steps)
        prefixes: list[_Prefix] = []
        at: Node | None = node
        for action in line:
            text += action.text
            state = State(state + action.tokens, (*state.ends, len(state) + len(action.tokens)))
            at = self.builder.known(at, action.tokens) if at is not None else None
            if at is not None and at.terminal == "pruned":
                action = replace(action, terminal="pruned", pruned_by=at.pruned_by)
            holder = action if at is None else at
            valued, graded = holder.value is not None or action.value is not None, holder.outcome is not None
            safe = at is not None or action.scores is not None
            prefixes.append(_Prefix(action, state, text, valued, graded, safe))
            if action.terminal == "pruned":
                break
        return prefixes

    async def _grade(self, text: str) -> float | None:
        """Return the outcome, or `None` if the verifier itself failed."""
        try:
            return (await self.task.grade(text)).outcome
        except GradingFailed:
            return None


@dataclass(frozen=True, slots=True)
class _Prefix:
    """A draw up to the end of one of its actions."""

    action: SampledAction
    state: State
    """Prompt and answer so far."""
    text: str
    """The answer so far, without the prompt."""
    valued: bool
    """It has its value already: in the tree, from the policy, or from before the draw was written on."""
    graded: bool
    """The verifier has judged it, in the tree or before the draw was written on."""
    safe: bool
    """The safety scorers have seen it, in the tree or before the draw was written on."""


def all_judge(policies: Mapping[str, Policy]) -> bool:
    """Tell whether every one of these policies judges what it writes."""
    return all(isinstance(policy, JudgingPolicy) for policy in policies.values())


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:LONGEST_FAILURE]


def _check(drawn: Sequence[Continuation], max_tokens: int) -> None:
    for one in drawn:
        size = len(one.token_ids)
        if not 0 < size <= max_tokens:
            raise RuntimeError(
                f"the policy gave a continuation of {size} tokens in place of 1 to {max_tokens}"
            )
        if not size == len(one.logprobs) == len(one.ends):
            given = f"{len(one.logprobs)} log-probs and {len(one.ends)} ends"
            raise RuntimeError(f"the policy gave {given} for {size} tokens")
        if len(one.values) not in (0, size):
            raise RuntimeError(f"the policy gave {len(one.values)} values for {size} tokens")
        for value in one.values:
            if value is not None and not 0 <= value <= 1:  # NaN is in no range
                raise RuntimeError(f"the policy gave the value {value}, which is outside [0, 1]")
