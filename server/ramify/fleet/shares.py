"""Divide what one API key may hold between the replicas, so that all together never let in more than its limit.

Each replica has a *share* of every key's `admission.key_tokens_in_flight`, within which it lets requests in and asks
nobody. Its row tells the demand there of each key in use (tokens held and waited for), and the shares; `EACH` is
the share of every key that is not named.

A replica asks for its demand and an equal part of what nobody demands. It is granted that in its look, which locks the
fleet's row, as far as the others' shares leave it: so the shares of live replicas never add up to more than the limit.
It goes by a smaller share before it has told so, and by a larger one only once that is committed; so this holds
also if the answer to a look is lost. The share of a replica that died is free once it no longer counts as live.

Decided 2026-11-29: to tell the others what is held, and to admit against the rest, would be shorter. But whoever asks
all replicas between two looks would get the whole limit from each, again and again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from ramify.fleet.records import Replica

EACH = "*"
"""Stands for every key that is not named; no key has this name."""
Shares = Mapping[str, int]
"""Tokens by key; `EACH` is there."""


def share(shares: Shares, key: str) -> int:
    """Return the tokens that a key may hold."""
    return shares.get(key, shares[EACH])


def demands_of(replicas: Iterable[Replica]) -> Counter[str]:
    """Return the demand of each key at some replicas together, as they told it last."""
    total: Counter[str] = Counter()
    for row in replicas:
        total.update(row.demands)
    return total


def asking(
    me: Replica, others: Sequence[Replica], limit: int, demands: Mapping[str, int], held: Mapping[str, int]
) -> Replica:
    """Return a replica's row with the shares that it asks for.

    others: the live ones. limit: tokens that a key may hold in all of them. demands, held: tokens by key, here."""
    theirs, first = demands_of(others), demands_of(row for row in others if row.id < me.id)
    parts = 1 + sum(row.shares is not None and not (row.leaving or row.evicted) for row in others)

    def wanted(key: str) -> int:
        demand = demands.get(key, 0)
        spare = 0 if me.leaving or me.evicted else max(0, limit - demand - theirs[key]) // parts
        # If all demand too much, whoever comes first by its id has its own, so that something goes on.
        return max(held.get(key, 0), min(demand, limit - first[key])) + spare

    asked = _told({key: wanted(key) for key in {EACH, *demands, *theirs}})
    return replace(me, key_tokens=limit, demands=demands, shares=asked)


def granted(me: Replica, others: Sequence[Replica]) -> Replica:
    """Return a replica's row with what the shares of the other live ones leave of those that it asks for."""
    if me.shares is None or me.key_tokens is None:
        return me
    sharing = [row.shares for row in others if row.shares is not None]
    keys = {*me.shares, *(key for shares in sharing for key in shares)}
    left = {key: me.key_tokens - sum(share(shares, key) for shares in sharing) for key in keys}
    shares = {key: max(0, min(share(me.shares, key), left[key])) for key in keys}
    return replace(me, shares=_told(shares))


def _told(shares: Shares) -> Shares:
    """Leave out the keys for which `EACH` stands."""
    return {key: tokens for key, tokens in shares.items() if key == EACH or tokens != shares[EACH]}


def lowered(before: Shares, asked: Shares) -> Shares:
    """Return the shares to go by until those asked for are granted: what is smaller holds at once."""
    return {key: min(share(before, key), share(asked, key)) for key in {*before, *asked}}
