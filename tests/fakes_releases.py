"""Releases of a model that one can read: one number each for the policy and for what judges it.

Under the weights (p, v) every token has the log-probability -p, and every text the value v. `write_release` publishes
them as real releases, with real safetensors; `ReloadingEngines` reads them from there.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from safetensors.numpy import load_file, save_file

from contract.api.world import FakeEngines
from ramify.engines import EngineBusy, EngineError, Measurement, Text
from ramify.search.records import Continuation, Score
from ramify.weights import HEAD, Details, Probe, Release, SearchDefaults, publish

PROBES = (((1, 2), (3, 4, 5)), ((1, 2, 3), (4,)))


def write_release(
    root: Path,
    p: float,
    v: float,
    *,
    release_id: str | None = None,
    parent: str | None = None,
    published: tuple[float, float] | None = None,
    probes: Sequence[tuple[tuple[int, ...], tuple[int, ...]]] = PROBES,
    names: Sequence[str] = ("w",),
    hidden: int = 1,
    search: Sequence[SearchDefaults] = (),
    head: bool = False,
) -> Release:
    """`published`: the weights that the canary speaks of, where it lies. `names`: its tensors. `head`: a value head
    with the number as its bias takes the value model's place."""
    said_p, said_v = published or (p, v)
    canary = tuple(
        Probe(prompt=prompt, continuation=text, logprobs=(-said_p,) * len(text), value=said_v)
        for prompt, text in probes
    )
    with TemporaryDirectory() as folder:
        for part, number in (("policy", p), ("value", v)):
            model = Path(folder) / part
            model.mkdir()
            (model / "config.json").write_text(json.dumps({"hidden_size": hidden, "vocab_size": 256}))
            (model / "tokenizer.json").write_text("{}")
            save_file(
                {
                    name: np.full((2, 1) if name.endswith(".weight") else (2,), number, np.float32)
                    for name in names
                },
                model / "model.safetensors",
            )
        value = Path(folder) / "value"
        if head:
            value = Path(folder) / HEAD
            weight = np.zeros((1, hidden), np.float32)
            save_file({"weight": weight, "bias": np.full((1,), v, np.float32)}, value)
        details = Details(name="letters", parent=parent, canary=canary, search=tuple(search))
        return publish(root, Path(folder) / "policy", value, details, release_id=release_id)


def number(folder: Path) -> float:
    """The number of a release's `policy` or `value`."""
    if (folder / HEAD).exists():
        return float(load_file(folder / HEAD)["bias"][0])
    return float(load_file(folder / "model.safetensors")["w"].flat[0])


def write_adapter(root: Path, base: Release) -> Release:
    """An adapter on a release whose policy has the matrix `layer.weight`."""
    with TemporaryDirectory() as made:
        folder = Path(made) / "adapter"
        folder.mkdir()
        (folder / "adapter_config.json").write_text(json.dumps({"r": 1, "lora_alpha": 1}))
        shapes = {"A": (1, 1), "B": (2, 1)}
        matrices = {
            f"base_model.model.layer.lora_{which}.weight": np.ones(shape, np.float32)
            for which, shape in shapes.items()
        }
        save_file(matrices, folder / "adapter_model.safetensors")
        return publish(root, folder, None, Details(name="letters"), base=base)


@dataclass
class ReloadingEngines(FakeEngines):
    """Engines that hold one release, and can be told how to misbehave."""

    tolerance: float = 1e-3
    held: tuple[float, float] = (0.0, 0.0)
    loads: list[str] = field(default_factory=list)
    broken: set[str] = field(default_factory=set)
    """Releases that raise when they are loaded."""
    deaf: bool = False
    """Says that it reloads, and does not."""
    stale: bool = False
    """Keeps cached prefixes over a reload."""
    never_idle: bool = False
    loading: asyncio.Event | None = None
    """When given, no reload ends before it is set."""
    load_seconds: float = 0.0
    """How long a reload takes."""
    dead_reason: str | None = None
    _cached: tuple[float, float] | None = None

    @asynccontextmanager
    async def exclusive(self, seconds: float) -> AsyncIterator[None]:
        if self.never_idle:
            raise EngineBusy("the engines were not idle")
        assert not self.policy.running, "a search runs while the engines are taken"
        yield

    async def reload(self, policy: Path, value: Path | None, value_head: Path | None) -> None:
        release = policy.parent.name
        self.loads.append(release)
        if self.loading is not None:
            await self.loading.wait()
        await asyncio.sleep(self.load_seconds)
        if release in self.broken:
            raise EngineError(f"{release} was told to fail")
        if not self.deaf:
            self._cached = self._cached if self.stale else None
            assert (value is None) != (value_head is None)
            self.held = (number(policy), number(value or policy.parent / "value"))

    async def reset_prefix_caches(self) -> None:
        self._cached = None

    async def measure(self, texts: Sequence[Text], calibration: tuple[float, float]) -> list[Measurement]:
        await asyncio.sleep(0)
        found = []
        for text in texts:
            long = len(text.prompt) > 32
            p, v = (self._cached or self.held) if long else self.held
            if long:
                self._cached = self._cached or self.held
            size = len(text.continuation)
            found.append(Measurement((-p,) * size, (False,) * size, v))
        return found

    def give_up(self, reason: str) -> None:
        self.dead_reason = reason
        self.dead.set()


def stamped(engines: FakeEngines) -> None:
    """Have everything that the engines give carry the release that they serve."""
    policy, scorer = engines.policy, engines.scorer
    sample, score = policy.sample, scorer.score

    async def sampled(*asked: object) -> list[Continuation]:
        return [dataclasses.replace(step, release=engines.serving.release) for step in await sample(*asked)]  # type: ignore[arg-type]

    async def scored(*asked: object) -> list[Score]:
        return [dataclasses.replace(one, release=engines.serving.release) for one in await score(*asked)]  # type: ignore[arg-type]

    policy.sample, scorer.score = sampled, scored  # type: ignore[method-assign]
