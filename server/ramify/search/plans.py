"""One simulation's work, before and after the engine has done it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from ramify.search.cutting import SampledAction
from ramify.search.records import Hurdle, Revision
from ramify.search.tree import Node

PlanKind = Literal["step", "path", "answer", "token", "revisit"]
"""`step`: draws of one action. `path`: draws to the end of the answer, each of its steps a node. `answer`: the same,
but the whole answer is one node. `token`: the likeliest next tokens. `revisit`: nothing; the simulation ended at a
finished answer."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One request of a simulation to the engine, decided without touching the tree."""

    simulation: int
    path: tuple[Node, ...]
    """From the search's root to the node to draw at, both included."""
    kind: PlanKind
    n: int
    """Draws."""
    tokens: int
    """Cap on each draw; 1 for `token`, 0 for `revisit`."""
    rollout_tokens: int = 0
    """Cap on one more draw, to the end of the answer, that `leaf: rollout` and `mixed` add; 0 is none."""
    ends: bool = True
    """Its landing ends its simulation; else the simulation goes on with another plan."""
    hurdle: Hurdle | None = None
    """`path`: give a draw up after the first action whose value is below this; `None`: every draw goes to its end."""

    @property
    def node(self) -> Node:
        return self.path[-1]

    @property
    def cost(self) -> int:
        """The most tokens that it can generate."""
        return (1 if self.kind == "token" else self.n * self.tokens) + self.rollout_tokens

    @property
    def draws(self) -> int:
        """Draws, with the one of a rollout."""
        return self.n + (self.rollout_tokens > 0)

    @property
    def nodes(self) -> int:
        """The nodes that are set aside for it: one for each draw, which may bring more if there is room."""
        return self.draws

    def within(self, tokens: int | None, nodes: int | None = None) -> Plan | None:
        """Return the plan with as many draws as `tokens` and `nodes` pay for; `None` if that is not even one. Without a
        limit, all are paid for."""
        n = self.n
        if tokens is not None and self.cost > tokens:
            n = 0 if self.kind == "token" else (tokens - self.rollout_tokens) // self.tokens
        if nodes is not None and self.nodes > nodes:
            n = min(n, nodes - (self.rollout_tokens > 0))
        if n == self.n:
            return self
        return replace(self, n=n) if n >= 1 else None


@dataclass(frozen=True, slots=True)
class PlanResult:
    """The draws that came back for a plan."""

    samples: list[list[SampledAction]]
    """One list of actions, in order, for each draw. One of a plan with a hurdle may break off before its end."""
    rollout: list[SampledAction] | None = None
    revision: Revision | None = None
    """The request that they were drawn after, if this was the first plan to better the answer at its node."""


@dataclass(slots=True)
class PlanCost:
    """The cost of one plan so far, however it ends."""

    tokens: int = 0
    """Generated, aborted draws included."""
    scored: int = 0
    """Sequences that the scorer was asked about; values that the policy gave with a draw are none."""
    grading_failures: int = 0
    """Complete answers that the verifier itself failed on."""
