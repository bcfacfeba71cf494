"""A candidate as a release: its files, what the manifest says of it, and a canary that tells it from its parent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from ramify.search.tree import Tree
from ramify.weights import Probe, Release, load_release, publish
from ramify.weights.manifest import Details
from ramify_trainer.learning.judging import values

PROBES = 8


def published(
    root: Path,
    release_id: str,
    parts: tuple[Path, Path],
    parent: Release,
    trees: Sequence[Tree],
    facts: Mapping[str, Any],
) -> Release:
    """The release of this id, published unless it is there already. parts: the policy's and the value's directories;
    trees: whose answers may become probes; facts: what else the manifest says."""
    if (root / release_id / "READY").exists():
        return load_release(root / release_id)
    inherited = parent.manifest.model_dump(
        include={"name", "calibration", "default_task", "default_action", "default_max_tokens"}
    )
    canary = probes(*parts, parent, trees)
    details = Details(**inherited, parent=parent.id, canary=canary, **facts)
    return publish(root, *parts, details, release_id=release_id)


@torch.inference_mode()
def probes(policy: Path, value: Path, parent: Release, trees: Sequence[Tree]) -> tuple[Probe, ...]:
    """Of the round's own answers those whose log-probabilities moved the most between the parent and the candidate."""
    texts = []
    for tree in trees[: 8 * PROBES]:
        if tree.completions:
            node = tree.nodes[tree.completions[0].node]
            answer = [t for step in tree.lineage(node)[1:] for t in step.tokens]
            texts.append((list(tree.prompt_tokens), answer))
    new, old = _policy(policy), _policy(parent.policy_path)
    judge = AutoModelForSequenceClassification.from_pretrained(
        value, dtype=torch.float32, use_safetensors=True, num_labels=1
    ).eval()
    calibration = parent.manifest.calibration
    found = []
    for prompt, answer in texts:
        now, before = _logprobs(new, prompt, answer), _logprobs(old, prompt, answer)
        moved = max(abs(a - b) for a, b in zip(now, before, strict=True))
        (judged,) = values(judge, [[*prompt, *answer]], (calibration.a, calibration.b))
        probe = Probe(
            prompt=tuple(prompt),
            continuation=tuple(answer),
            logprobs=tuple(round(p, 5) for p in now),
            value=round(judged, 5),
        )
        found.append((moved, probe))
    found.sort(key=lambda pair: -pair[0])
    return tuple(probe for _, probe in found[:PROBES])


def _policy(path: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, use_safetensors=True).eval()


def _logprobs(model: Any, prompt: Sequence[int], answer: Sequence[int]) -> list[float]:
    logits = model(input_ids=torch.tensor([[*prompt, *answer]]), use_cache=False).logits[0]
    at = torch.arange(len(prompt) - 1, len(prompt) + len(answer) - 1)
    return [float(x) for x in torch.log_softmax(logits[at].float(), -1)[range(len(answer)), list(answer)]]
