"""The account of a search, and the purse that several share. Tokens and nodes are reserved before they are asked for,
so neither limit is ever passed.

Nor does a simulation begin beyond theirs. Only a search's seconds can be passed, by the time in which cancelled work
is let go and the last answers are grouped.
"""

from __future__ import annotations

from collections.abc import Callable

from ramify.search.records import BudgetLimits, StopReason


class Purse:
    """Tokens that several searches share."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens
        """The most that all of them may generate."""
        self.spent = 0
        """Tokens generated."""
        self.reserved = 0
        """Tokens set aside by any of them: for what is in flight, and for answers still owed."""

    @property
    def available(self) -> int:
        """Tokens that can still be reserved."""
        return self.tokens - self.spent - self.reserved


class Budget:
    """Limits, and what was spent and set aside against them.

    `final` tokens and one node are held back from the start for the *final rollout*, which completes an answer if the
    search itself finds none; `release_final` gives them to the search once it has one. purse: the tokens also come out
    of it; raises `ValueError` if it cannot hold `final` back. seconds: those that an earlier part of the search has
    taken.
    """

    def __init__(
        self,
        limits: BudgetLimits,
        *,
        final: int,
        clock: Callable[[], float],
        purse: Purse | None = None,
        seconds: float = 0.0,
    ) -> None:
        self.limits = limits
        self.simulations = 0
        """Simulations begun."""
        self.tokens = 0
        """Tokens generated."""
        self.nodes = 0
        """Nodes in the tree, the root left out."""
        self._reserved = self._reserved_nodes = 0
        self._final, self._final_nodes = final, 1
        self._clock = clock
        self._started = clock() - seconds
        self._purse = purse
        if purse is not None:
            if purse.available < final:
                raise ValueError(
                    f"a purse of {purse.tokens} tokens cannot hold {final} back for every search"
                )
            purse.reserved += final

    @property
    def seconds(self) -> float:
        return self._clock() - self._started

    @property
    def available(self) -> int | None:
        """Tokens that can still be reserved; `None` if tokens are not limited."""
        own, shared = self.own_available, self._purse.available if self._purse is not None else None
        return min((tokens for tokens in (own, shared) if tokens is not None), default=None)

    @property
    def own_available(self) -> int | None:
        """Tokens that the search's own limit leaves, whatever a purse does."""
        if self.limits.tokens is None:
            return None
        return self.limits.tokens - self.tokens - self._reserved - self._final

    @property
    def available_nodes(self) -> int | None:
        """Nodes that can still be reserved or added; `None` if nodes are not limited."""
        if self.limits.nodes is None:
            return None
        return self.limits.nodes - self.nodes - self._reserved_nodes - self._final_nodes

    def reserve(self, tokens: int, nodes: int = 0) -> bool:
        """Set `tokens` and `nodes` aside. Return False, and change nothing, if not both are available."""
        for wanted, available in ((tokens, self.available), (nodes, self.available_nodes)):
            if available is not None and wanted > available:
                return False
        self._reserved += tokens
        self._reserved_nodes += nodes
        if self._purse is not None:
            self._purse.reserved += tokens
        return True

    def settle(self, reserved: int, spent: int, nodes: int = 0) -> None:
        """Turn reserved tokens into the `spent` ones and refund the rest. Free reserved `nodes`: those that are needed
        are added to the tree next, and counted there."""
        self._reserved -= reserved
        self._reserved_nodes -= nodes
        self.tokens += spent
        if self._purse is not None:
            self._purse.reserved -= reserved
            self._purse.spent += spent

    def release_final(self) -> None:
        """Give the search the tokens and the node that were held back."""
        if self._purse is not None:
            self._purse.reserved -= self._final
        self._final = self._final_nodes = 0

    def ended(self) -> StopReason | None:
        """Return the limit that lets no further simulation begin; `None` if there is none. Tokens are left out:
        `reserve` tells whether they suffice."""
        limits = self.limits
        if self.simulations >= limits.simulations:
            return "budget.simulations"
        if self.available_nodes is not None and self.available_nodes < 1:
            return "budget.nodes"
        if limits.seconds is not None and self.seconds >= limits.seconds:
            return "budget.seconds"
        return None

    def fraction(self) -> float:
        """Return the largest spent/limit over all limits and the purse, in [0, 1]. Simulations count once they have
        begun, but tokens only once they are generated, since most of what is set aside is refunded."""
        limits = self.limits
        shares = [self.simulations / limits.simulations]
        if limits.tokens is not None:
            shares.append(self.tokens / limits.tokens)
        if limits.seconds is not None:
            shares.append(self.seconds / limits.seconds)
        if limits.nodes is not None:
            shares.append(self.nodes / limits.nodes)
        if self._purse is not None:
            shares.append(self._purse.spent / self._purse.tokens)
        return min(1.0, max(shares))
