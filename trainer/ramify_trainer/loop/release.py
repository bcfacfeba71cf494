"""A candidate as a release: its files, what the manifest says of it, a canary that tells it from its parent, and its
parent's search defaults at temperatures that suit it.

Training sharpens a policy, and a sharp one, drawn from at a temperature that was chosen for its parent, writes the same
few answers again. So the temperatures of the search defaults rise as the entropy falls.
"""

from __future__ import annotations

import itertools
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch

from ramify.files import move
from ramify.objects import ObjectStoreError, open_store
from ramify.search.tree import Tree
from ramify.weights import ModelFiles, Probe, Release, ReleaseStore, SearchDefaults, load_release, publish
from ramify.weights.manifest import Details
from ramify_trainer.config import LoopConfig, base_release
from ramify_trainer.errors import TrainerError
from ramify_trainer.gate.unserved import device, policy_in
from ramify_trainer.gate.value_scores import by_length, end_values
from ramify_trainer.learning.adapters import base_of
from ramify_trainer.learning.batches import collate
from ramify_trainer.learning.networks import PolicyNetwork, load_judge
from ramify_trainer.learning.packing import Piece, Reading, ints
from ramify_trainer.progress import Progress

PROBES = 8
LONGEST = 64
"""Tokens of an answer that are read for its probe, since rounding leaves few long ones steady to their end."""
TOKENS = 2_048
"""Tokens, prompts included, of the answers that probes are chosen from; they are read three times, so this bounds the
time of a comparison. At least `PROBES` answers are read, however long their prompts."""
STEADY = 0.04
"""Largest change of a probe's log-probability by rounding to bfloat16, in units of max(1, |ln p|): well within what the
server's canary allows."""
SURE = 1e-3
"""Entropy in nats a token below which a policy counts as having this much."""
HIGHEST, LOWEST = 1.0, 0.05
"""Bounds of the temperatures of search defaults: the policy's own distribution, and nearly its likeliest tokens."""


@dataclass(frozen=True, slots=True)
class ParentComparison:
    """A candidate beside its parent, by the round's own answers."""

    canary: tuple[Probe, ...]
    """Answers that tell the two apart."""
    entropy_ratio: float
    """The parent's entropy over the candidate's, above 0: both in nats a token, at temperature 1, on those answers."""


def copy_base(base: str, root: Path) -> str:
    """Copy a run's base (`shipped`, or a directory) into the folder of releases, unless it is there; its id."""
    release = base_release(base)
    if release.base is not None:
        raise TrainerError(
            f"base is {release.path}, a LoRA adapter on {release.base.id}: a run begins with whole weights"
        )
    if not (root / release.id).exists():
        root.mkdir(parents=True, exist_ok=True)
        draft = root / f".seeding-{release.id}"
        shutil.rmtree(draft, ignore_errors=True)
        shutil.copytree(release.path, draft)
        move(draft, root / release.id)
    return release.id


def release_store(config: LoopConfig) -> ReleaseStore | None:
    """Return the object store that releases are published to; `None` if there is none. Raises `TrainerError`."""
    if config.objects.releases is None:
        return None
    try:
        return ReleaseStore(open_store(config.objects.releases, config.objects), config.weights)
    except ObjectStoreError as error:
        raise TrainerError(f"objects.releases: {error}") from error


def is_published(root: Path, release_id: str) -> bool:
    """Return whether the release of this id is in the folder of releases, whole."""
    return (root / release_id / "READY").exists()


def publish_candidate(
    root: Path,
    release_id: str,
    models: ModelFiles,
    parent: Release,
    compared: ParentComparison,
    facts: Mapping[str, Any],
) -> Release:
    """Publish a candidate as the release of this id. facts: what else the manifest says."""
    inherited = parent.manifest.model_dump(
        include={
            "name",
            "calibration",
            "default_task",
            "default_action",
            "default_max_tokens",
            "refine_template",
        }
    )
    search = rescaled_defaults(parent.manifest.search, compared.entropy_ratio)
    details = Details(**inherited, search=search, parent=parent.id, canary=compared.canary, **facts)
    base = None if models.adapter is None else candidate_base(models.adapter, parent, root)
    policy = models.adapter or models.policy
    return publish(root, policy, models.value, details, base=base, release_id=release_id)


def candidate_base(adapter: Path, parent: Release, root: Path) -> Release:
    """Return the release that a candidate's adapter stands on: its parent's, or the one that its training began with if
    the parent's weights are whole, since those may have older adapters merged in."""
    return parent.base or load_release(root / base_of(adapter), verify=False)


def rescaled_defaults(entries: Sequence[SearchDefaults], ratio: float) -> tuple[SearchDefaults, ...]:
    """Return search defaults with every temperature that they name multiplied by one factor: `ratio`, or as much of it
    as leaves all of them between `LOWEST` and `HIGHEST`, so that budgets keep their differences.

    0 stays 0, and an entry that draws from other policies as it is."""
    named = [t for entry in entries if (t := _temperature(entry))]
    if not named:
        return tuple(entries)
    factor = min(ratio, max(1.0, HIGHEST / max(named)))
    factor = max(factor, min(1.0, LOWEST / min(named)))
    return tuple(_rescaled(entry, factor) for entry in entries)


def _temperature(entry: SearchDefaults) -> float:
    """Return the temperature above 0 that an entry names for the release's own policy; 0 if there is none."""
    return 0.0 if "policies" in entry.search else float(entry.sampling.get("temperature", 0.0))


def _rescaled(entry: SearchDefaults, factor: float) -> SearchDefaults:
    temperature = _temperature(entry)
    if temperature == 0 or factor == 1:
        return entry
    sampling = {**entry.sampling, "temperature": float(f"{temperature * factor:.3g}")}
    return entry.model_copy(update={"sampling": sampling})


def compare_with_parent(
    policy: Path,
    value: Path,
    parent: Release,
    trees: Sequence[Tree],
    told: Progress = lambda done, total: None,
    adapter: Path | None = None,
) -> ParentComparison:
    """Compare a candidate with its parent on the round's own answers.

    The canary consists of those whose log-probabilities moved the most between the two, all their tokens together, as
    the server's canary adds them up. An answer is probed up to its first token that rounding alone would move: a model
    in bfloat16 moves some token of nearly every long answer, and one such token would have the server refuse the
    release.

    adapter: the candidate's on `policy`. told: called before every pass with answers read by one of the three policies,
    and of how many; what it raises ends the comparison."""
    answers = _answers(trees)
    old, parents_entropy = _read(policy_in(parent.policy_path, torch.float32, parent.adapter), answers, told)
    model = policy_in(policy, torch.float32, adapter)
    new, entropy = _read(model, answers, told)
    # Weights alone are rounded, as they are when served: rotary frequencies, which are buffers, keep float32.
    for weight in model.parameters():
        weight.data = weight.data.to(torch.bfloat16)
    coarse, _ = _read(model, answers, told)
    del model, weight  # before the judge is loaded
    moved: dict[tuple[int, ...], tuple[float, list[int], list[int], list[float]]] = {}
    for (prompt, answer), now, before, rounded in zip(answers, new, old, coarse, strict=True):
        steady = _steady(_apart(now, rounded))
        if steady:
            distance = sum(d**2 for d in _apart(now[:steady], before[:steady]))
            key = (*prompt, -1, *answer[:steady])
            moved.setdefault(key, (distance, prompt, answer[:steady], now[:steady]))
    chosen = [one[1:] for one in sorted(moved.values(), key=lambda one: -one[0])[:PROBES]]
    judge, calibration = load_judge(policy, value, adapter).to(device()), parent.manifest.calibration
    texts = [[*prompt, *answer] for prompt, answer, _ in chosen]
    judged = end_values(judge, texts, (calibration.a, calibration.b))
    canary = tuple(
        Probe(
            prompt=tuple(prompt),
            continuation=tuple(answer),
            logprobs=tuple(round(p, 5) for p in logprobs),
            value=round(judgement, 5),
        )
        for (prompt, answer, logprobs), judgement in zip(chosen, judged, strict=True)
    )
    ratio = max(parents_entropy, SURE) / max(entropy, SURE)
    # A model that bars tokens by logits of -inf has an entropy of NaN.
    return ParentComparison(canary, ratio if math.isfinite(ratio) else 1.0)


def _answers(trees: Sequence[Tree]) -> list[tuple[list[int], list[int]]]:
    """Return prompt and beginning of different answers, as many as `TOKENS` allow, but `PROBES` at least."""
    answers: list[tuple[list[int], list[int]]] = []
    size = 0
    for prompt, answer in _different(trees):
        size += len(prompt) + len(answer)
        if size > TOKENS and len(answers) >= PROBES:
            break
        answers.append((prompt, answer))
    return answers


def _different(trees: Sequence[Tree]) -> Iterator[tuple[list[int], list[int]]]:
    """Yield prompt and beginning of every different answer: the first of every tree before the second of any."""
    seen: set[tuple[tuple[int, ...], tuple[int, ...]]] = set()
    for turn in itertools.zip_longest(*(tree.completions for tree in trees)):
        for tree, completion in zip(trees, turn, strict=True):
            if completion is None:
                continue
            node = tree.nodes[completion.node]
            prompt, answer = tree.prompt_of(node), tree.answer_tokens(node)[:LONGEST]
            if (prompt, answer) not in seen:
                seen.add((prompt, answer))
                yield list(prompt), list(answer)


def _steady(rounding: Sequence[float]) -> int:
    """Return the number of tokens before the first that rounding moves."""
    return next((i for i, off in enumerate(rounding) if abs(off) > STEADY), len(rounding))


def _apart(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Return differences of log-probabilities in units of max(1, |ln p|), as the server's canary counts them."""
    return [(a - b) / max(1.0, abs(a)) for a, b in zip(ours, theirs, strict=True)]


@torch.inference_mode()
def _read(
    model: Any, answers: Sequence[tuple[list[int], list[int]]], told: Progress
) -> tuple[list[list[float]], float]:
    """Return the log-probability of every token of each answer to its prompt, and the mean entropy there. Answers of
    about one length run together, padded on the right, where none sees it."""
    network = PolicyNetwork(model)
    found: list[list[float]] = [[] for _ in answers]
    entropies: list[float] = []
    done = 0
    for group in by_length([len(prompt) + len(answer) for prompt, answer in answers]):
        told(done, len(answers))
        done += len(group)
        batch = collate([_piece(*answers[i]) for i in group], packed=False).to(device())
        outputs = network(batch.tokens, batch.positions, batch.mask, batch.readings)
        entropies += outputs["entropy"].tolist()
        read = outputs["policy"].tolist()
        for i in group:
            size = len(answers[i][1])
            found[i], read = read[:size], read[size:]
    return found, fmean(entropies) if entropies else 0.0


def _piece(prompt: Sequence[int], answer: Sequence[int]) -> Piece:
    """Return an answer as one path, read before each of its tokens."""
    tokens = np.array([*prompt, *answer], dtype=ints)
    places = np.arange(len(prompt) - 1, len(tokens) - 1)
    ones = np.ones(len(answer), dtype=np.float32)
    reading = Reading(places, tokens[len(prompt) :], {"temperature": ones})
    return Piece(
        tokens, np.arange(len(tokens)), np.zeros_like(tokens), np.ones((1, 1), np.bool_), {"policy": reading}
    )
