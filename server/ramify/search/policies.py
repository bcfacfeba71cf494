"""Choose which of a search's policies draws next: a bandit that learns on the problem which of them helps.

A search that names several policies (`SearchParams.policies`) first selects the node to draw at, as any other does, and
then the policy that draws there. That is how AB-MCTS chooses between models ("multi-LLM AB-MCTS", Inoue et al. 2025,
arXiv 2503.04412): TreeQuest, its authors' library, samples a reward for each model from all rewards of the whole search
and takes the largest. So does this, by Thompson sampling (Thompson 1933; Chapelle and Li 2011), but a node's own draws
count in full, and those elsewhere as `POOL` draws at most: nodes with few draws of their own go by the whole search,
and if one policy turns out to be better at what comes next than it is in general, that is learned too.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ramify.search.records import PolicyUsage
from ramify.search.tree import Node, Tree, derive_seed

POOL = 32
"""Draws at other nodes count for a node as so many of its own, at most."""


@dataclass(slots=True)
class Tally:
    """The draws of one policy and what they brought, at one node or in the whole search."""

    draws: int = 0
    """Draws that have landed."""
    judged: int = 0
    """Those with a leaf value."""
    value_sum: float = 0.0
    """Sum of their leaf values, each in [0, 1]."""
    in_flight: int = 0
    """Plans under way; each counts as a draw of value 0, and so repels."""
    tokens: int = 0
    """Generated tokens, aborted draws included."""

    @property
    def n(self) -> int:
        return self.judged + self.in_flight


class PolicyBandit:
    """The policies of one search: what each has brought, and which of them are still to be had."""

    def __init__(self, tree: Tree) -> None:
        self.names = tree.params.policies
        """The policies that the search names; none if it has just one, of which nothing is counted."""
        self.closed: dict[str, str] = {}
        """By name, why a policy draws no more in this search."""
        self._seed = tree.seed
        self._compares = tree.params.grader != "confidence"
        """A leaf value says which policy is better. One policy's confidence in itself, beside another's, does not."""
        self._begun = 0
        self._everywhere = {name: Tally() for name in self.names}
        self._at = defaultdict[tuple[int, str], Tally](Tally)
        """By the id of the node drawn at, and the policy."""

    @property
    def open(self) -> tuple[str, ...]:
        """The policies that can be asked."""
        return tuple(name for name in self.names if name not in self.closed)

    def choose(self, node: Node, chance: Callable[[str], float]) -> str:
        """Return the open policy of the largest sample from its Beta posterior, times its chance of bringing something
        new. The same moment of the same search gives the same policy.

        chance: by a policy's name, in [0, 1]; if none has any, it counts for nothing."""
        rng = random.Random(derive_seed(self._seed, "policy", self._begun))
        chances = [chance(name) for name in self.open]
        if not any(chances):
            chances = [1.0] * len(chances)
        scores = [
            left * rng.betavariate(*self._posterior(node, name))
            for name, left in zip(self.open, chances, strict=True)
        ]
        return self.open[max(range(len(scores)), key=scores.__getitem__)]

    def _posterior(self, node: Node, name: str) -> tuple[float, float]:
        """Return (1 + w, 1 + n - w) of the draws at `node` and, as `POOL` draws at most, of those elsewhere."""
        here, everywhere = self._at[node.id, name], self._everywhere[name]
        elsewhere = everywhere.n - here.n
        share = min(1.0, POOL / elsewhere) if elsewhere else 0.0
        n = here.n + share * elsewhere
        w = here.value_sum + share * max(0.0, everywhere.value_sum - here.value_sum)
        return 1 + w, 1 + max(0.0, n - w)

    # -- what has happened -------------------------------------------------------------------------------------------

    def begin(self, node: Node, name: str, *, again: bool = False) -> None:
        """Count a plan of a policy as under way. again: it was begun before, and cancelled
        before it landed."""
        self._begun += not again
        for tally in self._tallies(node, name):
            tally.in_flight += 1

    def end(self, node: Node, name: str) -> None:
        """Take back what `begin` counted."""
        for tally in self._tallies(node, name):
            tally.in_flight -= 1

    def learn(self, node: Node, name: str, value: float | None) -> None:
        """Count a draw from `node` that has landed. value: its leaf value; `None`: nothing has judged it."""
        for tally in self._tallies(node, name):
            tally.draws += 1
            if value is not None and self._compares:
                tally.judged += 1
                tally.value_sum += value

    def _tallies(self, node: Node, name: str) -> Sequence[Tally]:
        return (self._at[node.id, name], self._everywhere[name]) if self.names else ()

    def settle(self, tokens: Counter[str]) -> None:
        """Count the tokens that a plan has cost, by policy."""
        if self.names:
            for name, spent in tokens.items():
                self._everywhere[name].tokens += spent

    def close(self, name: str, reason: str) -> bool:
        """Ask a policy no more. Return False, and close nothing, if no other is left."""
        if not set(self.open) - {name}:
            return False
        self.closed[name] = reason
        return True

    def state(self) -> dict[str, Any]:
        """Return all of it but what is in flight, as JSON-ready values for `set_state` in a search that goes on."""
        return {
            "begun": self._begun,
            "closed": dict(self.closed),
            "everywhere": {name: _landed(tally) for name, tally in self._everywhere.items()},
            "at": [[node, name, _landed(tally)] for (node, name), tally in self._at.items()],
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        self._begun, self.closed = state["begun"], dict(state["closed"])
        self._everywhere |= {name: Tally(**tally) for name, tally in state["everywhere"].items()}
        self._at.update({(node, name): Tally(**tally) for node, name, tally in state["at"]})

    def usage(self) -> Mapping[str, PolicyUsage] | None:
        """Return what each policy has cost and brought; `None` if the search names none."""
        if not self.names:
            return None
        return {
            name: PolicyUsage(
                completion_tokens=tally.tokens,
                draws=tally.draws,
                value=tally.value_sum / tally.judged if tally.judged else None,
                closed=self.closed.get(name),
            )
            for name, tally in self._everywhere.items()
        }


def _landed(tally: Tally) -> dict[str, Any]:
    return {**asdict(tally), "in_flight": 0}
