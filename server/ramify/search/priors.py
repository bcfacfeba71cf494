"""P over the children of one node."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ramify.search.records import ActionKind, Prior
from ramify.search.tree import Node


def priors(children: Sequence[Node], kind: Prior, temperature: float, action: ActionKind) -> list[float]:
    """P in [0, 1] for each child, summing to 1.

    `count`: P = m/Σm, the unbiased choice where actions were sampled from the policy, since the draws already carry
    its probabilities (Sampled MuZero, arXiv 2104.06303, §3). `mean_logprob`, `sum_logprob`: softmax of the actions'
    mean or summed log-probs over `temperature`. Token actions, which are enumerated and not sampled, take the
    exact softmax of their log-probs.
    """
    if action == "token":
        return softmax([sum(c.logprobs) for c in children])
    if kind == "count":
        total = sum(c.multiplicity for c in children)
        return [c.multiplicity / total for c in children]
    logits = [sum(c.logprobs) for c in children]
    if kind == "mean_logprob":
        logits = [x / max(1, len(c.logprobs)) for x, c in zip(logits, children, strict=True)]
    return softmax([x / temperature for x in logits])


def softmax(logits: Sequence[float]) -> list[float]:
    """exp(x)/Σexp, computed from the largest down so that nothing overflows."""
    if not logits:
        return []
    top = max(logits)
    weights = [math.exp(x - top) for x in logits]
    total = sum(weights)
    return [w / total for w in weights]
