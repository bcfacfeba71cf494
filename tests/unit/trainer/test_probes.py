"""A candidate beside its parent: which answers tell them apart, whatever a server rounds to, and its entropy."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig

from fakes_training import with_value_head, write_release
from ramify.search.tree import Completion, Tree
from ramify.weights import ModelFiles, Probe, Release, SearchDefaults
from ramify_trainer.gate.value_scores import end_values
from ramify_trainer.learning.networks import load_judge
from ramify_trainer.loop.release import (
    HIGHEST,
    LONGEST,
    LOWEST,
    PROBES,
    TOKENS,
    compare_with_parent,
    publish_candidate,
    rescaled_defaults,
)
from search_worlds import new_tree

STEADY = "abcdefghijkl"
LARGE = "yz"
"""Letters after each of which the logits of both are about 160, where neighbours in bfloat16 are 1 apart."""
FRAGILE = ["yz", "zz", "yyz", "yzy", "yzz", "zyz", "zzy", "zzz"]
Change = Callable[[Any], None]


def answering(*texts: str) -> list[Tree]:
    tree = new_tree()
    for i, text in enumerate(texts):
        logprobs = (-1.0,) * len(text)
        node = tree.add(tree.root, tokens=tuple(map(ord, text)), logprobs=logprobs, text=text, terminal="eos")
        tree.completions.append(Completion(node.id, i + 1, i + 1))
    return [tree]


def letters(found: Sequence[Probe]) -> list[str]:
    return ["".join(map(chr, probe.continuation)) for probe in found]


def changed(policy: Path, to: Path, change: Change) -> Path:
    """A copy of a policy after a change of its weights."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(policy)
    with torch.no_grad():
        change(model)
    model.save_pretrained(to)
    return to


def with_large_logits(model: Any) -> None:
    """One dimension of the hidden state is the large letters' alone."""
    generator = torch.Generator().manual_seed(1)
    read, say = model.model.embed_tokens.weight, model.lm_head.weight
    for weight, size in ((read, 1.0), (say, 0.01)):
        weight.copy_(size * torch.randn(weight.shape, generator=generator))
        weight[:, 0] = 0.0
    for letter in LARGE:
        read[ord(letter)] = torch.eye(read.shape[1])[0]
        say[ord(letter), 0] = 40.0


def trained(model: Any) -> None:
    """Every letter is said a little less often, the later ones the more so; of the large ones `z` far less often."""
    state = model.model(torch.tensor([list(new_tree().prompt_tokens)])).last_hidden_state[0, -1]
    say = model.lm_head.weight
    for i, letter in enumerate(STEADY):
        say[ord(letter)] -= (i + 1) * 0.05 * state / state.norm() ** 2
    say[ord("z"), 0] -= 0.6


@pytest.fixture(scope="module", name="release")
def _release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    release = write_release(tmp_path_factory.mktemp("weights"), tied=False)
    changed(release.policy_path, release.policy_path, with_large_logits)
    return release


@pytest.fixture(scope="module", name="candidate")
def _candidate(release: Release, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return changed(release.policy_path, tmp_path_factory.mktemp("candidate"), trained)


def test_probes_are_the_answers_that_moved_most_among_those_that_rounding_leaves_in_place(
    release: Release, candidate: Path
) -> None:
    found = compare_with_parent(candidate, release.value_path, release, answering(*FRAGILE, *STEADY)).canary
    assert letters(found) == list(reversed(STEADY))[:PROBES]


def test_a_head_on_the_trunk_gives_the_probes_their_values(release: Release, tmp_path: Path) -> None:
    folder = with_value_head(release.policy_path, tmp_path)
    changed(folder / "policy", folder / "policy", trained)
    found = compare_with_parent(folder / "policy", folder / "value", release, answering(*STEADY)).canary
    judge = load_judge(folder / "policy", folder / "value")
    values = end_values(judge, [[*probe.prompt, *probe.continuation] for probe in found])
    assert [probe.value for probe in found] == pytest.approx(values, abs=1e-5)
    assert len(set(values)) > 1


def test_an_answer_is_probed_up_to_its_first_token_that_rounding_moves(
    release: Release, candidate: Path
) -> None:
    found = compare_with_parent(
        candidate, release.value_path, release, answering(*FRAGILE, "ayz", *STEADY[1:3])
    ).canary
    assert letters(found)[:2] == ["c", "b"]
    assert sorted(letters(found)[2:]) == ["ay", "y", "z"]


def read_by(release: Release, trees: Sequence[Tree]) -> int:
    """The answers that are read to choose probes from."""
    totals: list[int] = []
    compare_with_parent(
        release.policy_path, release.value_path, release, trees, lambda done, total: totals.append(total)
    )
    return totals[0]


def test_probes_are_chosen_from_as_many_answers_as_their_tokens_allow(release: Release) -> None:
    texts = [f"{a}{b}{STEADY}" for a in STEADY for b in STEADY]
    each = len(new_tree().prompt_tokens) + len(texts[0])
    assert read_by(release, answering(*texts)) == TOKENS // each < len(texts)


def test_of_a_long_answer_no_more_than_its_beginning_is_probed(release: Release, candidate: Path) -> None:
    long = answering("a" * LONGEST + "b", "a" * LONGEST + "c")
    assert letters(compare_with_parent(candidate, release.value_path, release, long).canary) == [
        "a" * LONGEST
    ]


def test_a_policy_with_less_entropy_is_sharper_by_as_much(tmp_path: Path) -> None:
    """A policy whose logits are nearly 0 has an entropy of ln V; one letter of probability 0.99 leaves little of it."""
    release = write_release(tmp_path / "weights", tied=False)
    changed(release.policy_path, release.policy_path, lambda model: model.lm_head.weight.mul_(1e-3))

    def surer(model: Any) -> None:
        state = model.model(torch.tensor([[*new_tree().prompt_tokens]])).last_hidden_state[0, -1]
        model.lm_head.weight[ord("a")] = math.log(99 * len(model.lm_head.weight)) * state / state.norm() ** 2

    candidate = changed(release.policy_path, tmp_path / "candidate", surer)
    same = compare_with_parent(release.policy_path, release.value_path, release, answering("a"))
    sharper = compare_with_parent(candidate, release.value_path, release, answering("a"))
    size = AutoConfig.from_pretrained(release.policy_path).vocab_size
    left = -0.99 * math.log(0.99) - 0.01 * math.log(0.01 / size)
    assert same.entropy_ratio == pytest.approx(1)
    assert sharper.entropy_ratio == pytest.approx(math.log(size) / left, rel=0.02)


def defaults(*temperatures: float, **search: Any) -> list[SearchDefaults]:
    found = [
        SearchDefaults(search={"algorithm": "mcts", **search}, sampling={"temperature": t, "top_p": 0.9})
        for t in temperatures
    ]
    return [
        entry.model_copy(update={"up_to": {"tokens": i + 1}}) for i, entry in enumerate(found[:-1])
    ] + found[-1:]


def temperatures(entries: Sequence[SearchDefaults]) -> list[float]:
    return [entry.sampling["temperature"] for entry in entries]


@pytest.mark.parametrize(
    ("given", "ratio", "wanted"),
    [
        ([0.25, 0.4], 1.5, [0.375, 0.6]),
        ([0.5, 0.8], 0.5, [0.25, 0.4]),
        ([0.25, 0.5], 4.0, [0.5, HIGHEST]),  # the largest factor that is left, for both
        ([0.25, 1.3], 2.0, [0.25, 1.3]),
        ([0.1, 0.2], 0.1, [LOWEST, 0.1]),
        ([0.0, 0.4], 2.0, [0.0, 0.8]),
        ([0.33333], 1.0, [0.33333]),
    ],
)
def test_temperatures_of_search_defaults_are_rescaled_by_one_factor(
    given: list[float], ratio: float, wanted: list[float]
) -> None:
    found = rescaled_defaults(defaults(*given), ratio)
    assert temperatures(found) == pytest.approx(wanted, rel=1e-6)
    assert all(entry.sampling["top_p"] == 0.9 for entry in found)


def test_entries_without_a_temperature_or_with_other_policies_stay_as_they_are() -> None:
    entries = [*defaults(0.4, policies=["other"]), SearchDefaults(search={"algorithm": "best_of_n"})]
    assert rescaled_defaults(entries, 2.0) == tuple(entries)


def test_a_candidate_is_published_with_its_parents_search_defaults_rescaled(
    release: Release, candidate: Path, tmp_path: Path
) -> None:
    searched = replace(
        release, manifest=release.manifest.model_copy(update={"search": tuple(defaults(0.25, 0.4))})
    )
    models = ModelFiles(candidate, release.value_path)
    compared = compare_with_parent(candidate, release.value_path, searched, answering(*STEADY))
    published = publish_candidate(
        tmp_path, "v000002", models, searched, replace(compared, entropy_ratio=1.5), {}
    )
    assert temperatures(published.manifest.search) == [0.375, 0.6]


def test_without_answers_a_candidate_is_as_sure_as_its_parent(release: Release, candidate: Path) -> None:
    assert compare_with_parent(candidate, release.value_path, release, []).entropy_ratio == 1
