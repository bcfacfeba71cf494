"""Run one search: keep plans in flight, land what comes back, end well whatever happens.

The algorithm says what to draw, the budget what may be spent, and this module when. `schedule: continuous` lands each
plan as it comes and starts the next. `schedule: waves` starts up to `parallel` plans, waits for all of them and lands
them in the order in which they were selected, so that the same seed gives the same tree whatever the engine's timing.

A search ends when a limit is met, when it is exhausted, when its answer is settled, when it is stopped or cancelled,
or when the policy, the scorer or the task fails. What is in flight is then cancelled and counted, the answer is chosen
from what has landed, and status, stop reason and usage are written on the tree. A search that ends without a complete
answer first writes one to its end, unless it was stopped or its seconds are up. One whose asyncio
task is cancelled chooses no answer.

Searches of a batch wait for their turn before each plan (`batch.Batch`), and pay for it out of one purse as well.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ramify.search import answers
from ramify.search.algorithms import ALGORITHMS
from ramify.search.budget import Budget
from ramify.search.builder import TreeBuilder
from ramify.search.crowd import Crowd
from ramify.search.evaluator import Evaluator
from ramify.search.grouping import LAST_CALL, Grouping, last_line
from ramify.search.params import (
    check_policies,
    draws_vary,
)
from ramify.search.plans import InFlight, Plan, PlanCost, PlanResult
from ramify.search.protocols import EngineDead, Policy, Reviser, Scorer, Task
from ramify.search.records import (
    OWN_POLICY,
    Answer,
    SearchState,
    Status,
    StopReason,
    Usage,
)
from ramify.search.state import BadState, CountedRandom, plan_of, plan_record, set_state, state_of
from ramify.search.tree import Tree, derive_seed

if TYPE_CHECKING:
    from ramify.search.batch import Batch

GIVEN_UP_AT = 0.5
"""Part of an answer that is written, on average, when `abandon` gives it up."""
LET_GO_SECONDS = 5.0
"""Seconds that an engine has to give up a cancelled request. Tokens that it reports later are not counted."""


@dataclass(frozen=True, slots=True)
class Progress:
    """The state of a running search."""

    simulations: int
    tokens: int
    seconds: float
    nodes: int
    best: Answer | None
    """The best judged complete answer so far; its `votes` are not counted yet (0) and `final` is not derived (None)."""


class Search:
    """One tree being grown.

    `observe` is called after every landing. The parameters must have passed `params.search_params` and
    `params.check_sampling`. policy: of several, each by its name, those that the parameters name among them. reviser:
    who asks for better answers, under `action: refine`. batch: the one that it belongs to, which then says when it
    sends a plan. crowd: the searches on a clock that share the policy; it then has no more draws in flight than suit
    them all. keeps_state: leave in the tree what it takes to go on with it later; a tree that comes with a state is
    gone on with. checkpoint: awaited after each landing, with plans in flight, but nothing landed or sent until it
    returns: so it may keep the tree as it then is.

    Raises `ParamError` if a policy that the parameters name is not there, and `BadState` for a state that cannot be
    gone on with.
    """

    def __init__(
        self,
        tree: Tree,
        policy: Policy | Mapping[str, Policy],
        scorer: Scorer | None,
        task: Task,
        *,
        clock: Callable[[], float],
        reviser: Reviser | None = None,
        observe: Callable[[Progress], None] | None = None,
        batch: Batch | None = None,
        crowd: Crowd | None = None,
        keeps_state: bool = False,
        checkpoint: Callable[[Search], Awaitable[None]] | None = None,
    ) -> None:
        self.tree, self.task, self.observe = tree, task, observe
        self._keeps_state, self._checkpoint = keeps_state, checkpoint
        purse = batch.purse if batch is not None else None
        self.budget = Budget(
            tree.params.budget,
            final=tree.sampling.max_tokens,
            clock=clock,
            purse=purse,
            seconds=tree.usage.seconds,
        )
        self.builder = TreeBuilder(tree, self.budget)
        kind = ALGORITHMS[tree.params.algorithm]
        self._rng = CountedRandom(derive_seed(tree.seed, "select"))
        self.algorithm = kind(self.builder, self._rng)
        self._repeats = kind.rounds and draws_vary(tree.params, tree.sampling)
        """Another round of the algorithm can bring what this one did not."""
        known, named = by_name(policy), tree.params.policies or (OWN_POLICY,)
        check_policies(tree.params, known, tree.prompts or {})
        drawing = {name: known[name] for name in named}
        self.evaluator = Evaluator(
            self.builder, drawing, scorer, task, judges_steps=not kind.flat, reviser=reviser
        )
        self._in_flight: dict[asyncio.Task[PlanResult], InFlight] = {}
        self._pace = 0.0
        """Seconds a token of the fastest draw so far; 0 before one has landed."""
        self._ended: tuple[Status, StopReason] | None = None
        self._wake = asyncio.Event()
        self.failure: Exception | None = None
        """The exception that ended the search, if one did."""
        self.over = asyncio.Event()
        """Set once nobody waits for the task any more: `LAST_CALL` after the search was stopped, or its seconds were
        up."""
        self._grouping = Grouping(tree, task)
        self._finished_simulations = 0
        self._scored = 0
        self._grading_failures = 0
        self._time_is_up = False
        self._final: StopReason | None = None
        """The reason for which the search ends, once its final rollout (`Budget`) was sent."""
        self._given_up: list[tuple[Plan, int]] = []
        """Plans that were cancelled in flight, to be sent again if the search is taken on; each with its number among
        those of its node."""
        if tree.search_state is not None:
            self._take_on(tree.search_state)
        self._batch = batch
        self._crowd = crowd if tree.params.budget.seconds is not None else None
        if batch is not None:
            batch.join(self)

    def _take_on(self, state: SearchState) -> None:
        """Go on where a search of this tree has ended. Raises `BadState`."""
        usage = self.tree.usage
        budget = self.budget
        budget.simulations, budget.tokens = state.simulations, usage.completion_tokens
        budget.nodes = len(self.tree.nodes) - 1
        if self.tree.completions:
            budget.release_final()
        self._finished_simulations = usage.simulations
        self._scored, self._grading_failures = usage.scored_sequences, usage.grading_failures
        self._pace = state.pace
        self._rng.go_to(state.random_words)
        self.builder.set_novelty_state(state.ended_plans, state.fruitful_plans, state.round_began)
        if state.policies is not None:
            self.builder.set_policy_state(state.policies)
        set_state(self.algorithm, state.algorithm)
        if state.fraction:
            self.algorithm.rescale(budget.fraction() / state.fraction)
        self._given_up = [plan_of(record, self.tree) for record in state.plans]
        self.tree.search_state = None

    def state(self) -> SearchState:
        """Return what it takes, beside the tree as it is now, to go on from here. Raises `BadState` if that cannot be
        kept."""
        sent = (
            [] if self._final is not None else [(one.plan, one.expansion) for one in self._in_flight.values()]
        )
        ended, fruitful, round_began = self.builder.novelty_state()
        return SearchState(
            random_words=self._rng.words,
            simulations=self.budget.simulations,
            fraction=self.budget.fraction(),
            pace=self._pace,
            algorithm=state_of(self.algorithm),
            ended_plans=ended,
            fruitful_plans=fruitful,
            round_began=round_began,
            policies=self.builder.policy_state(),
            plans=tuple(plan_record(plan, expansion) for plan, expansion in (*self._given_up, *sent)),
        )

    def snapshot(self) -> Tree:
        """Return the tree as it is now, with its cost and its state. It shares the nodes: write it down before anything
        lands or is sent. Raises `BadState` as `state` does."""
        return replace(self.tree, usage=self.usage(), search_state=self.state())

    def usage(self) -> Usage:
        """Return the cost so far."""
        tree = self.tree
        asked = sum(len(node.revision.prompt) for node in tree.nodes if node.revision)
        asked += sum(map(len, (tree.prompts or {}).values()))
        return Usage(
            prompt_tokens=len(tree.prompt_tokens) + asked,
            completion_tokens=self.budget.tokens,
            scored_sequences=self._scored,
            grading_failures=self._grading_failures,
            simulations=self._finished_simulations,
            nodes=len(tree.nodes),
            seconds=self.budget.seconds,
            by_policy=self.builder.policies.usage(),
        )

    async def run(self) -> None:
        """Grow the tree to its end and fill in status, stop reason, usage and answer.

        Failures of an engine or a verifier end the search with a status and an error text; they are not raised. If the
        asyncio task that runs this is cancelled, the engine's work is freed, the tree is closed as cancelled, and the
        cancellation goes on.
        """
        seconds = self.tree.params.budget.seconds
        timer = None
        if seconds is not None:
            left = max(0.0, seconds - self.budget.seconds)
            timer = asyncio.get_running_loop().call_later(left, self._time_up)
        try:
            async with nullcontext() if self._crowd is None else self._crowd.joined():
                await self._grow()
            await self._grouping.caught_up(self.over)
            self._choose()
        except asyncio.CancelledError:
            self._ended = ("cancelled", "client")
            await self._cancel_all()
            self.builder.finish()
            raise
        except EngineDead as error:
            await self._fail("engine_dead", error)
        except Exception as error:  # whatever a policy, a scorer or a task raises, the tree is closed
            await self._fail("failed", error)
        finally:
            if timer is not None:
                timer.cancel()
            self._close()
            if self._batch is not None:
                self._batch.leave(self)

    def stop(self, status: Status, reason: StopReason) -> None:
        """End the search soon, from the loop that runs it: engine work is freed, the best answer so far is given."""
        self._end(status, reason)
        self._last_call()

    def _last_call(self) -> None:
        asyncio.get_running_loop().call_later(LAST_CALL, self.over.set)

    def _end(self, status: Status, reason: StopReason) -> None:
        if self._ended is None:
            self._ended = (status, reason)
            self._wake.set()

    def progress(self) -> Progress:
        leaf = self.builder.best
        best = None if leaf is None else answers.answer_at(self.tree, leaf, None, 0.0)
        return Progress(
            self._finished_simulations, self.budget.tokens, self.budget.seconds, len(self.tree.nodes), best
        )

    @property
    def in_flight(self) -> int:
        """Plans in flight."""
        return len(self._in_flight)

    @property
    def probability_right(self) -> float:
        """The probability that the best answer so far is right, in [0, 1], as `answers.probability_right` tells it."""
        return answers.probability_right(self.builder, self._grouping.votes)

    def wake(self) -> None:
        """Have the search look again whether it has a turn to wait for."""
        self._wake.set()

    def _time_up(self) -> None:
        self._time_is_up = True
        self._last_call()
        self._wake.set()

    async def _grow(self) -> None:
        self._send_again()
        while self._ended is None:
            # Send out: as many plans as may be in flight. If none is, and no turn is to come, the search is at its
            # end; without a complete answer it first finishes its most promising path.
            reason = self._start_plans()
            if reason is not None and not self._in_flight and not self._start_final(reason):
                self._end("complete", reason)
                break
            # Wait: until a plan is done (a whole wave, under `waves`), the seconds are up or somebody stops the search.
            await self._wake.wait()
            self._wake.clear()
            # Land: merge what is done into the tree, and let the task group the new answers beside the search.
            self._land_done()
            self._grouping.go_on()
            # Look: is the time up, or the answer settled?
            if self._time_is_up:
                await self._cancel_all()
            await self._stop_early()
            if self._checkpoint is not None and self._ended is None:
                await self._checkpoint(self)
        # However it ended, nothing stays in flight.
        await self._cancel_all()

    def _start_plans(self) -> StopReason | None:
        """Put as many plans in flight as may be. Returns the reason for which the search ends if none is, which means
        nothing while one is; `None` if it waits for its turn."""
        if self._batch is not None:
            return self._batch.turn(self)
        if self.tree.params.schedule == "waves" and self._in_flight:
            return "exhausted"
        while self.has_place:
            if (reason := self.send()) is not None:
                return reason
        return "exhausted"

    @property
    def has_place(self) -> bool:
        """True while one more plan may be in flight: fewer than `parallel` are, and on a clock fewer draws than the
        search's share."""
        return len(self._in_flight) < self.tree.params.parallel and self._room > 0

    @property
    def _room(self) -> float:
        """How many more draws may be in flight: on a clock what is left of the search's share, else without bound."""
        seconds = self.tree.params.budget.seconds
        if self._crowd is None or seconds is None:
            return math.inf
        draws = sum(one.plan.draws for one in self._in_flight.values())
        longest = self.tree.sampling.max_tokens
        return self._crowd.share(seconds, self.builder.mean_length, longest) - draws

    def send(self) -> StopReason | None:
        """Put one more plan in flight, or return the reason for which that cannot be done now."""
        if self._ended is not None:
            return self._ended[1]
        if self._time_is_up:
            return "budget.seconds"
        if self._final is not None:
            return self._final
        # Once all simulations have begun, those that pause between two expansions still go on.
        limit = self.budget.ended()
        if limit is not None and limit != "budget.simulations":
            return limit
        plan = self._next_plan(may_begin=limit is None)
        if plan is None:
            return limit or "exhausted"
        plan = self._in_time(plan)
        if plan is None:
            return "budget.seconds"
        plan = self.algorithm.assigned(plan)
        # The most that the plan can cost is set aside before it is sent.
        paid = self._pay(plan)
        if paid is None:
            return self._unpaid(plan)
        self._start(paid)
        return None

    def _next_plan(self, *, may_begin: bool) -> Plan | None:
        """Ask the algorithm what to draw next; have it begin another round if it has come to the end of one."""
        plan = self.algorithm.resume() or (self.algorithm.select() if may_begin else None)
        if plan is not None and not self.builder.exhausted:
            return plan
        through = may_begin and self._repeats and not self._in_flight
        if not through or not self.builder.begin_round():
            return None
        self.algorithm = type(self.algorithm)(self.builder, self._rng)
        return self.algorithm.select()

    def _in_time(self, plan: Plan) -> Plan | None:
        """Return a plan as suits the seconds that are left, by the length that its answers are expected to have and the
        best pace so far: with as many draws as there is room for, at least one; without a hurdle if there is no time
        for another answer in the place of one that is given up; `None` if they could not land, once an answer has told
        how long it takes, since they would only slow down other searches."""
        if plan.kind not in ("path", "answer"):
            return plan
        room = max(1, self._room)
        if plan.n > room:
            plan = replace(plan, n=int(room))
        length = self.builder.expected_length
        if not length:
            return plan
        left = max(1.0, length - plan.node.begun)
        if self.tree.completions and not self._time_for(left):
            return None
        return plan if self._time_for(GIVEN_UP_AT * left + length) else replace(plan, hurdle=None)

    def _time_for(self, tokens: float) -> bool:
        """Tell whether a draw of so many tokens, at the best pace so far, ends before the seconds are over."""
        seconds = self.tree.params.budget.seconds
        return seconds is None or self.budget.seconds + self._pace * tokens <= seconds

    def _unpaid(self, plan: Plan) -> StopReason:
        """Return which limit leaves nothing for a plan."""
        if plan.within(self.budget.own_available) is None:
            return "budget.tokens"
        return "budget.shared" if plan.within(self.budget.available) is None else "budget.nodes"

    def _start_final(self, reason: StopReason) -> bool:
        """Write the most promising path to its end, on the tokens held back for it, if the search has no complete
        answer and time is left. Returns whether that is under way."""
        if self._final is not None or self.tree.completions or reason == "budget.seconds":
            return False
        node = self.builder.most_promising()
        if node.terminal is not None:
            return False
        self.budget.release_final()
        last = replace(self.algorithm.to_end(self.tree.lineage(node), 1), simulation=0)
        plan = self._pay(self.algorithm.assigned(last))
        if plan is None:
            return False
        self._final = reason
        self._start(plan)
        return True

    def _pay(self, plan: Plan) -> Plan | None:
        """Reserve the most that a plan can cost, with fewer draws if not all can be paid for."""
        fitting = plan.within(self.budget.available, self.budget.available_nodes)
        return fitting if fitting is not None and self.budget.reserve(fitting.cost, fitting.nodes) else None

    def _start(self, plan: Plan) -> None:
        self.budget.simulations = max(self.budget.simulations, plan.simulation)
        expansion = plan.node.expansions
        self.algorithm.begin(plan)
        self._dispatch(plan, expansion)

    def _dispatch(self, plan: Plan, expansion: int) -> None:
        cost = PlanCost()
        work = asyncio.create_task(self.evaluator.evaluate(plan, expansion, cost))
        work.add_done_callback(self._on_done)
        self._in_flight[work] = InFlight(plan, cost, self.budget.seconds, expansion)

    def _send_again(self) -> None:
        """Send the plans that did not land in the part that this search goes on from, as far as they can be paid for,
        each with the seeds that it had."""
        given_up, self._given_up = self._given_up, []
        for plan, expansion in given_up:
            paid = self._pay(plan)
            if paid is not None:
                self.builder.begin_again(paid)
                self._dispatch(paid, expansion)

    def _on_done(self, _: asyncio.Task[PlanResult]) -> None:
        if self.tree.params.schedule == "continuous" or all(task.done() for task in self._in_flight):
            self._wake.set()

    def _land_done(self) -> None:
        """Land what is done, in the order in which it was started. Raises what an evaluation raised."""
        done = [work for work in self._in_flight if work.done()]
        if self.tree.params.schedule == "waves" and len(done) < len(self._in_flight):
            return
        for work in done:
            if work.cancelled():
                raise RuntimeError("the engine dropped a request that nobody had cancelled")
            result = work.result()
            plan, _, began, _ = self._take_off(work)
            self._see_pace(result, self.budget.seconds - began)
            if self._final is not None:
                self.builder.merge(plan, result)
            else:
                self.algorithm.land(plan, result)
                self._finished_simulations += plan.ends
            if self.observe is not None:
                self.observe(self.progress())

    def _see_pace(self, result: PlanResult, seconds: float) -> None:
        longest = max((sum(action.drawn for action in line) for line in result.samples), default=0)
        if longest:
            self._pace = min(self._pace or seconds / longest, seconds / longest)

    def _take_off(self, work: asyncio.Task[PlanResult]) -> InFlight:
        """Undo a plan's marks and settle its account, however it ended."""
        sent = plan, cost, *_ = self._in_flight.pop(work)
        self.builder.end(plan)
        self.budget.settle(plan.cost + cost.lost, cost.tokens, plan.nodes)
        self.builder.policies.settle(cost.by_policy)
        self._scored += cost.scored
        self._grading_failures += cost.grading_failures
        return sent

    async def _cancel_all(self) -> None:
        """Cancel every plan in flight, wait until the engine has let go, and keep count of what it had generated."""
        for task in self._in_flight:
            task.cancel()
        try:
            if self._in_flight:
                await asyncio.wait(self._in_flight, timeout=LET_GO_SECONDS)
        finally:  # even if the search itself is cancelled while it waits
            for work in list(self._in_flight):
                if work.done() and not work.cancelled():
                    work.exception()  # retrieved, or asyncio warns; how the search ended is known already
                one = self._take_off(work)
                if self._final is None:
                    self._given_up.append((one.plan, one.expansion))

    async def _stop_early(self) -> None:
        if self.tree.params.early_stop == "off" or self._ended is not None or not self.tree.completions:
            return
        limits = self.budget.limits
        left = (limits.simulations - self._finished_simulations) * self.algorithm.answers_per_simulation
        if limits.tokens is not None:
            left = min(left, limits.tokens - self.budget.tokens)  # no answer is written for less than a token
        if self.tree.params.early_stop != "verified":
            await self._grouping.caught_up(self.over)
        if answers.settled(self.builder, self._grouping.votes, left):
            self._end("complete", "early")

    def _choose(self) -> None:
        """Choose among the answers, as far as they are grouped."""
        self._grouping.close()
        self.builder.finish()
        answers.choose(self.tree, self._grouping.finals)

    async def _fail(self, status: Status, error: Exception) -> None:
        """Close with an error, giving the best answer that the tree holds by what is grouped already."""
        self._ended, self.failure = (status, "error"), error
        self.tree.error = f"{type(error).__name__}: {error}"[:500]
        await self._cancel_all()
        self._choose()

    def _close(self) -> None:
        tree = self.tree
        self._grouping.close()
        tree.status, tree.stop_reason = self._ended or ("failed", "error")
        if tree.status == "complete" and tree.answer is None and tree.all_pruned:
            tree.stop_reason = "pruned"
        tree.usage = self.usage()
        tree.search_state = self._kept_state()

    def _kept_state(self) -> SearchState | None:
        """Return the state to leave in the tree; `None` if none is wanted, or an algorithm's own cannot be kept."""
        try:
            return self.state() if self._keeps_state else None
        except BadState:
            return None


def close_interrupted(tree: Tree) -> None:
    """Close the `snapshot` of a search whose server has ended: as a tree for the log, with the best answer that the
    texts alone tell."""
    tree.status, tree.stop_reason = "interrupted", "crash"
    builder = TreeBuilder(tree, Budget(tree.params.budget, final=0, clock=lambda: 0.0))
    for node in tree.nodes:
        node.in_flight = node.expanding = 0
    builder.finish()
    finals = {leaf.id: last_line(tree.text(leaf)) for leaf in tree.complete()}
    tree.ungrouped = len(finals)
    tree.candidates = answers.rank(tree, finals, tree.params.answer)
    tree.answer = tree.candidates[0] if tree.candidates else None


def by_name(policy: Policy | Mapping[str, Policy]) -> Mapping[str, Policy]:
    """Return policies by their names, be it one alone or several."""
    return policy if isinstance(policy, Mapping) else {OWN_POLICY: policy}
