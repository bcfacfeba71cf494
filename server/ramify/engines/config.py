"""The settings of the engines, and the release that they serve."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ramify.engine_options import EngineOptions, OtherPolicyOptions, PolicyServerOptions, ScorerOptions
from ramify.search.records import Action

if TYPE_CHECKING:
    from ramify.engines.scorer import ScorerFactory
    from ramify.weights import Release, SearchDefaults, ValueKind

GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Serving:
    """The model that is offered, and the release whose weights the engines hold.

    There is one at a time that is offered: `Engines.serving`. Another release takes its place in a single assignment,
    so that no reader sees half of each; whoever needs several of its fields reads it once. Work that goes on for
    longer leases the one that it began with (`leases`).
    """

    name: str = "local"
    """Name under which the model is asked for."""
    release: str = "local"
    """Release id that every continuation and score carries."""
    created: int = 0
    """Unix seconds."""
    source: Release | None = None
    """The release's files; `None` for models that are no release."""
    calibration: tuple[float, float] = (1.0, 0.0)
    """(a, b) of value = sigmoid(a · logit + b)."""
    task: str | None = None
    """Task of requests that name none."""
    action: Action | None = None
    """Default action."""
    max_tokens: int | None = None
    """Default cap on one answer."""
    refine_template: str = ""
    """Words in which a better answer is asked for; empty: the task's, or the server's own."""
    search: tuple[SearchDefaults, ...] = ()
    """How a prompt is searched if its request does not say, by budget; none: with the algorithm's own defaults."""
    search_from: str = ""
    """Source of these defaults: the id of the release, or `settings`."""
    vocabulary: int = 0
    """Token ids below it exist in both models. An engine given another one dies, so none gets past the service; with 0
    no token ids are taken from outside."""
    value: ValueKind | Literal["scorer"] | None = "model"
    """Judge of answers: a value model, a value head on the policy's trunk, or a scorer in its place; `None`: there is
    none, and a search goes by the policy's own confidence."""

    remote: bool = False
    """True if the policy is on another server, whose weights nobody here can name."""

    @property
    def adapter(self) -> str | None:
        """Name of the LoRA adapter that the policy draws with, its release's id; `None` for whole weights."""
        return None if self.source is None or self.source.adapter is None else self.release

    @property
    def judged(self) -> bool:
        """True if a model or a scorer judges answers."""
        return self.value is not None


@dataclass(frozen=True, slots=True)
class OtherPolicy:
    """A policy that searches may name beside the one served."""

    options: OtherPolicyOptions
    release: Release | None = None
    """The release whose adapter it is; `None`: it is none."""


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """A policy and what judges it, the release that they are, and how they run."""

    policy: Path
    """Hugging Face directory of a causal language model, safetensors."""
    value: Path | None = None
    """Hugging Face directory of a sequence classifier with one label; `None` serves the policy alone: a search
    then goes by the policy's own confidence, or by a verifier."""
    serving: Serving = Serving()
    """The model and the release that the two directories hold."""
    scorer: ScorerFactory | None = None
    """The scorer of searches in place of the value model's; `None`: the value model's."""
    options: EngineOptions = field(default_factory=EngineOptions)
    """Everything else that the settings may say of the engines."""
    value_head: Path | None = None
    """A safetensors file with a linear value head on the policy's own trunk (float32 `weight` [1, hidden size] and
    `bias` [1]), in place of `value`: the policy then judges what it writes."""
    scorers: Mapping[str, ScorerOptions] = field(default_factory=lambda: {"": ScorerOptions()})
    """Scorers by name. One without a kind is `value` or `value_head`, which are `None` if there is no such one."""
    server: PolicyServerOptions | None = None
    """The server that has the policy; `policy` then needs no weights. `None`: an engine at home."""
    others: Mapping[str, OtherPolicy] = field(default_factory=dict)
    """Policies beside it, by name."""


def default_kv_bytes() -> int:
    """A twenty-fourth of the machine's memory, 1/4 to 4 GiB: a GiB holds 350,000 tokens of the demo model."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(GIB // 4, min(4 * GIB, total // 24))


def default_threads(engines: int) -> int:
    """An equal share of the cores that this process may use, one of them kept for the server; at least 1.

    More threads than free cores is much slower, not slightly faster: every layer waits for the slowest thread, and on
    a busy machine two threads on two cores were 10 times slower than one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, (cores - 1 + engines // 2) // engines)
