"""Answers to be drawn from a policy that is not served: what is asked, by whichever sampler."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path


@dataclass(frozen=True, slots=True)
class AnswerJob:
    """The greedy answer to each prompt, and one at temperature 1 for each of its seeds."""

    policy: Path
    """Hugging Face directory."""
    prompts: Sequence[Sequence[int]]
    """Token ids."""
    seeds: Sequence[Sequence[int]]
    """Equally many for each prompt."""
    max_tokens: int
    """Longest answer, in tokens."""
    ends: Set[int]
    """Tokens that end an answer, and are part of it."""
    adapter: Path | None = None
    """LoRA adapter on the policy to draw with."""


def answer_seed(seed: int, problem: str, i: int) -> int:
    """Return the seed of a problem's answer number `i`, in [0, 2^63), derived from that of the run."""
    digest = blake2b(f"{seed}:{problem}:{i}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
