"""Change the tree: mark what is in flight, merge what came back, back values up. No I/O, and no choice of a node."""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ramify.search.budget import Budget
from ramify.search.cutting import SampledAction
from ramify.search.departures import stand_for
from ramify.search.plans import Plan, PlanResult
from ramify.search.policies import PolicyBandit
from ramify.search.records import NO_ANSWER
from ramify.search.selection import priors
from ramify.search.tree import Completion, Node, Tree

NOTHING_NEW = 0.01
"""A node is closed once a draw below it brings an answer not yet known with a probability under this."""
RARE = 32
"""A search is exhausted once fewer than one in so many of its plans bring anything new."""


class TreeBuilder:
    """One tree and the only hands that change its nodes."""

    def __init__(self, tree: Tree, budget: Budget) -> None:
        self.tree, self.budget = tree, budget
        self.search_root = tree.nodes[tree.committed[-1]] if tree.committed else tree.root
        """The node from which simulations start; moves down under `commit: step`."""
        self.unexpanded = sum(n.terminal is None and not n.expanded for n in tree.nodes)
        """Nodes that can still be expanded for the first time."""
        self.best: Node | None = None
        """The end of the complete answer of the highest leaf value, the earliest drawn of equals."""
        self.deepest = 0
        """Depth of the deepest complete answer."""
        self._end_depths = self._end_lengths = 0
        for completion in tree.completions:
            self._count_answer(tree.nodes[completion.node])
        self._refines = tree.params.action.kind == "refine"
        self.policies = PolicyBandit(tree)
        self._seen: dict[int, dict[str | None, float]] = {}
        """By id and policy, the policy's probability of the finished answers that it is known to draw from a node, in
        [0, 1]."""
        self._counted: set[tuple[int, str | None]] = set()
        """The nodes that end an answer which is counted there, by id and policy."""
        self._ended = 0
        """Plans that have ended since the search last committed to a step or began a fruitful round."""
        self._fruitful = deque[int]()
        """The numbers of those that brought a new node, as far back as `exhausted` looks."""
        self._round_began = len(tree.nodes)
        """Nodes of the tree when the algorithm's present round began."""
        self._index = {(n.parent, n.tokens): n for n in tree.nodes if n.parent is not None}
        for node in tree.nodes:
            if node.terminal is not None and not self.policies.names:
                self._see(node)

    # -- plans in flight -----------------------------------------------------------------------------------------

    def begin(self, plan: Plan) -> None:
        """Mark a plan's path as under way, so that other simulations avoid it."""
        if plan.kind != "revisit":
            plan.node.expansions += 1
        self._mark(plan, again=False)

    def begin_again(self, plan: Plan) -> None:
        """Mark the path of a plan that was begun before, and given up."""
        self._mark(plan, again=True)

    def _mark(self, plan: Plan, *, again: bool) -> None:
        for node in plan.path:
            node.in_flight += 1
        if plan.kind != "revisit":
            plan.node.expanding += 1
            self.policies.begin(plan.node, plan.policy, again=again)

    def end(self, plan: Plan) -> None:
        """Take back exactly what `begin` marked, whatever became of the plan. What it drew is merged after that."""
        self._ended += 1
        for node in plan.path:
            node.in_flight -= 1
        if plan.kind != "revisit":
            plan.node.expanding -= 1
            self.policies.end(plan.node, plan.policy)

    # -- merging -------------------------------------------------------------------------------------------------

    def merge(self, plan: Plan, result: PlanResult) -> list[list[Node]]:
        """Add what was drawn below the plan's node. Identical actions merge, and their multiplicity counts the draws.

        Returns the nodes along each draw; a rollout's come last."""
        if result.revision is not None:
            plan.node.revision = result.revision
        # Add the nodes, draw by draw. One is reserved for each; a draw that would add more than fit is joined.
        draws = [*result.samples, *([result.rollout] if result.rollout is not None else [])]
        lines = [self._merge_line(plan, self._fitting(plan, i, draws)) for i in range(len(draws))]
        # The likeliest tokens are read off one generated token, which only the first of them is charged for.
        if plan.kind == "token":
            for (node,) in lines[1 : len(result.samples)]:
                node.tokens_spent -= 1
        if plan.kind != "revisit":
            self._mark_expanded(plan.node)
        return lines

    def _merge_line(self, plan: Plan, line: Sequence[SampledAction]) -> list[Node]:
        # Walk down: an action that is there already counts once more, one that is not becomes a node.
        nodes: list[Node] = []
        at = plan.node
        for action in line:
            node = self.known(at, action.tokens)
            if node is None:
                node = self._add(at, action, plan.simulation)
            else:
                _count_draw(node, action.policy)
                node.tokens_spent += action.drawn
                if node.value is None:
                    node.value = action.value
                if node.outcome is None and action.outcome is not None:
                    node.outcome, node.outcome_source = action.outcome, "verifier"
            # A path expands every node that it passes; what a rollout passes can still be expanded.
            if plan.kind == "path" and at is not plan.node:
                self._mark_expanded(at)
            nodes.append(node)
            if node.terminal is not None:
                break
            at = node
        # Count the end: a later draw that repeats it is not news. A complete answer may be the one that is given.
        if nodes and nodes[-1].terminal is not None:
            logprobs = {node.id: action.logprobs for node, action in zip(nodes, line, strict=False)}
            self._see(nodes[-1], line[-1].policy or None, logprobs)
        if nodes and nodes[-1].terminal in ("eos", "stop"):
            spent = self.budget.tokens
            self.tree.completions.append(Completion(nodes[-1].id, plan.simulation, spent))
            self._count_answer(nodes[-1])
            self.budget.release_final()
        if nodes and nodes[-1].policy is not None:
            self.policies.learn(plan.node, line[-1].policy, self.tree.leaf_value(nodes[-1]))
        return nodes

    def _fitting(
        self, plan: Plan, i: int, draws: Sequence[Sequence[SampledAction]]
    ) -> Sequence[SampledAction]:
        """Return draw `i`, with its last actions joined into one if its new nodes would leave none for a later draw: so
        an answer that is paid for is kept, and so is the limit on nodes."""
        line, room = draws[i], self.budget.available_nodes
        if room is None:
            return line
        room -= len(draws) - 1 - i
        at, known = plan.node, 0
        while known < len(line) and (node := self.known(at, line[known].tokens)):
            at, known = node, known + 1
        if len(line) - known <= room:
            return line
        whole = known + room - 1
        return [*line[:whole], SampledAction.joined(line[whole:])]

    def _add(self, parent: Node, action: SampledAction, simulation: int) -> Node:
        node = self.tree.add(
            parent,
            tokens=action.tokens,
            logprobs=action.logprobs,
            text=action.text,
            length=parent.begun + len(action.tokens),
            value=0.0 if action.terminal in NO_ANSWER else action.value,
            terminal=action.terminal,
            outcome=action.outcome,
            outcome_source=None if action.outcome is None else "verifier",
            release=action.release,
            simulation=simulation,
            tokens_spent=action.drawn,
            scores=action.scores,
            pruned_by=action.pruned_by,
            policy=action.policy or None,
        )
        self._index[(parent.id, action.tokens)] = node
        self.budget.nodes += 1
        if not self._fruitful or self._fruitful[-1] != self._ended:
            self._fruitful.append(self._ended)
        self.unexpanded += node.terminal is None
        return node

    def _mark_expanded(self, node: Node) -> None:
        self.unexpanded -= node.terminal is None and not node.expanded
        node.expanded, node.pruned = True, False

    def _count_answer(self, end: Node) -> None:
        """Count one more complete answer."""
        self._end_depths += end.depth
        self._end_lengths += end.length
        self.deepest = max(self.deepest, end.depth)
        value = self.tree.leaf_value
        if self.best is None or (value(end) or 0.0) > (value(self.best) or 0.0):
            self.best = end

    # -- backing up ----------------------------------------------------------------------------------------------

    def back_up(self, path: Sequence[Node], value: float, fresh: Sequence[Node] = ()) -> None:
        """Add one visit of `value` to every node of `path` from the search's current root down, and one fresh draw to
        those of them that are in `fresh`: the nodes that it was drawn from.

        Nothing above that root changes, and nothing at all if the path no longer passes through it."""
        start = self.search_root.depth - path[0].depth
        if start >= len(path) or path[start].id != self.search_root.id:
            return
        for node in path[start:]:
            node.visits += 1
            node.value_sum += value
        for node in fresh:
            if node.depth >= self.search_root.depth:
                node.fresh_visits += 1
                node.fresh_value_sum += value

    def set_priors(self, node: Node) -> None:
        """Set P of the children as they now are."""
        params = self.tree.params
        children = self.tree.children(node)
        values = priors(children, params.prior, params.prior_temperature, params.action.kind)
        for child, prior in zip(children, values, strict=True):
            child.prior = prior

    def finish(self) -> None:
        """Set, of the children of every node, P, and what each stands for if draws were made without replacement."""
        for node in self.tree.nodes:
            if node.children:
                if not self.tree.params.replacement:
                    self._set_draws(node)
                self.set_priors(node)

    def _set_draws(self, node: Node) -> None:
        """Set what the children stand for, each beside those that the same policy has drawn."""
        by_policy = defaultdict[str | None, list[Node]](list)
        for child in self.tree.children(node):
            by_policy[child.policy].append(child)
        for children in by_policy.values():
            chances = [min(1.0, math.exp(sum(child.logprobs))) for child in children]
            draws = sum(child.multiplicity for child in children)
            for child, share in zip(children, stand_for(chances, draws), strict=True):
                child.stands_for = share

    def prune(self, nodes: Iterable[Node]) -> None:
        """Give up those of `nodes` at which no answer ended, until one is expanded in spite of that: another round may
        keep what this one does not."""
        for node in nodes:
            node.pruned = node.terminal is None and not node.expanded

    def commit(self, node: Node) -> None:
        """Start simulations at `node` from now on. Whether that brings anything new is counted afresh."""
        self.search_root = node
        self.tree.committed.append(node.id)
        self._count_afresh()

    def begin_round(self) -> bool:
        """Begin another round of the algorithm, unless the search is exhausted. A round that brought anything new
        exhausts nothing, however long it went on with what it had."""
        if len(self.tree.nodes) > self._round_began:
            self._count_afresh()
        self._round_began = len(self.tree.nodes)
        return not self.exhausted

    def _count_afresh(self) -> None:
        self._ended = 0
        self._fruitful.clear()

    # -- taken on later ------------------------------------------------------------------------------------------

    def novelty_state(self) -> tuple[int, tuple[int, ...], int]:
        """Return what is known of how much is new, for `set_novelty_state`: plans that have ended, the fruitful ones
        among them, and the nodes at the beginning of the round."""
        return self._ended, tuple(self._fruitful), self._round_began

    def set_novelty_state(self, ended: int, fruitful: Sequence[int], round_began: int) -> None:
        self._ended, self._fruitful, self._round_began = ended, deque(fruitful), round_began

    def policy_state(self) -> dict[str, Any] | None:
        """Return what is known of several policies, for `set_policy_state`; `None` if the search names none. What a
        policy repeats is in no node, so that the answers that each of them has seen are a part of it."""
        if not self.policies.names:
            return None
        seen = [[node, policy, p] for node, by in self._seen.items() for policy, p in by.items()]
        return {**self.policies.state(), "seen": seen, "counted": [list(one) for one in self._counted]}

    def set_policy_state(self, state: Mapping[str, Any]) -> None:
        self.policies.set_state(state)
        for node, policy, p in state["seen"]:
            self._seen.setdefault(node, {})[policy] = p
        self._counted = {(node, policy) for node, policy in state["counted"]}

    # -- what is known -------------------------------------------------------------------------------------------

    def known(self, node: Node, tokens: tuple[int, ...]) -> Node | None:
        """The child of `node` that took these tokens."""
        return self._index.get((node.id, tokens))

    def most_promising(self) -> Node:
        """Return the unfinished node of the highest value, the deepest of several; one that was pruned only if all
        were. If none is judged, return the end of the most visited path. Look below the prompt if the
        search has committed itself to a truncated answer."""
        node = self.search_root if self.search_root.terminal is None else self.tree.root
        judged = [n for n in self.tree.below(node) if n.terminal is None and n.value is not None]
        if judged:
            return max(judged, key=lambda n: (not n.pruned, n.value or 0.0, n.depth, -n.id))
        while children := [child for child in self.tree.children(node) if child.terminal is None]:
            node = max(children, key=lambda child: (child.visits, -child.id))
        return node

    @property
    def mean_depth(self) -> float:
        """The mean depth at which the complete answers drawn so far end; 0 before the first."""
        drawn = len(self.tree.completions)
        return self._end_depths / drawn if drawn else 0.0

    @property
    def mean_length(self) -> float:
        """The mean length in tokens of the complete answers drawn so far; 0 before the first."""
        drawn = len(self.tree.completions)
        return self._end_lengths / drawn if drawn else 0.0

    @property
    def expected_length(self) -> float:
        """Length in tokens that an answer is expected to have: the mean of the complete ones; as long as there is none,
        that of the longest one that was cut off; 0 before any has come to an end."""
        cut_off = (node.length for node in self.tree.nodes if node.terminal == "truncated")
        return self.mean_length or max(cut_off, default=0)

    def unseen(self, node: Node) -> float:
        """Return the policy's probability that a draw from `node` ends in an answer not yet known, in [0, 1]; of
        several policies the largest. Below `NOTHING_NEW` it is 0: the node is closed. So it is at the end of an answer,
        unless that can be bettered now."""
        if node.terminal is not None and not self._can_be_bettered(node):
            return 0.0
        return max(self.unseen_by(node, policy) for policy in self.policies.open or (None,))

    def unseen_by(self, node: Node, policy: str | None) -> float:
        """Return the same of one policy, at a node from which answers can be drawn. One of which nothing is known there
        is taken to say what another has said; not at the prompt, or a policy that is sure of its answer would end the
        search before another is asked."""
        seen = self._seen.get(node.id, {})
        others = max(seen.values(), default=0.0) if node.parent is not None else 0.0
        left = 1.0 - seen.get(policy, others)
        return left if left >= NOTHING_NEW else 0.0

    def unseen_below(self, node: Node) -> float:
        """Return the same for a draw from `node` or from any node below it.

        Without `refine` a draw from a node passes those below, and the two are the same. With it each node has draws of
        its own: 1 as long as one of them has anything new, else 0."""
        if not self._refines:
            return self.unseen(node)
        return float(any(self.unseen(at) for at in self.tree.below(node)))

    def _can_be_bettered(self, end: Node) -> bool:
        """Tell whether another answer can be drawn from the one that ends here. Until the first has landed, its prompt
        is being made, and there can be no second."""
        if not self._refines or end.terminal in NO_ANSWER or end.outcome == 1.0:
            return False
        if end.depth >= self.tree.params.max_depth:
            return False
        return not end.expanding if end.revision is None else end.revision.closed is None

    def _see(
        self, end: Node, policy: str | None = None, drawn: Mapping[int, Sequence[float]] | None = None
    ) -> None:
        """Count a finished answer's probability as seen, from every node that it was drawn through. policy: of several,
        the one that drew it. drawn: by node id, the log-probabilities of its draw; above that, only those of nodes that
        it drew first are known."""
        if (end.id, policy) in self._counted:
            return
        self._counted.add((end.id, policy))
        logprob, node = 0.0, end
        greedy = not self.tree.sampling.temperature  # its log-probs are not the draw's own
        while node.parent is not None and not greedy:
            logprobs = node.logprobs if node.policy == policy else (drawn or {}).get(node.id)
            if logprobs is None:
                break
            logprob += sum(logprobs)
            node = self.tree.nodes[node.parent]
            seen = self._seen.setdefault(node.id, {})
            seen[policy] = seen.get(policy, 0.0) + math.exp(logprob)
            if node.terminal is not None:
                break  # what is below was drawn from it, and not from what is above

    @property
    def exhausted(self) -> bool:
        """The search mostly comes back to what it has: of the later half of its plans, and of at least `RARE`, fewer
        than one in `RARE` brought a new node."""
        late = max(RARE, self._ended // 2)
        while self._fruitful and self._fruitful[0] <= self._ended - late:
            self._fruitful.popleft()
        return self._ended >= late and RARE * len(self._fruitful) < late


def _count_draw(node: Node, policy: str) -> None:
    """Count one more draw of a node's action. policy: who drew it, if the search names several; else empty."""
    if policy and (node.drawn_by is not None or policy != node.policy):
        before = node.drawn_by or {str(node.policy): node.multiplicity}
        node.drawn_by = {**before, policy: before.get(policy, 0) + 1}
    node.multiplicity += 1
