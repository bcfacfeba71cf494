"""Which answers tell a candidate from its parent, whatever a server rounds to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from fakes_training import with_value_head, write_release
from ramify.search.tree import Completion, Tree
from ramify.weights import Probe, Release
from ramify_trainer.gate.value_scores import end_values
from ramify_trainer.learning.networks import load_judge
from ramify_trainer.loop.release import LONGEST, PROBES, TOKENS, probes
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
    found = probes(candidate, release.value_path, release, answering(*FRAGILE, *STEADY))
    assert letters(found) == list(reversed(STEADY))[:PROBES]


def test_a_head_on_the_trunk_gives_the_probes_their_values(release: Release, tmp_path: Path) -> None:
    folder = with_value_head(release.policy_path, tmp_path)
    changed(folder / "policy", folder / "policy", trained)
    found = probes(folder / "policy", folder / "value", release, answering(*STEADY))
    judge = load_judge(folder / "policy", folder / "value")
    values = end_values(judge, [[*probe.prompt, *probe.continuation] for probe in found])
    assert [probe.value for probe in found] == pytest.approx(values, abs=1e-5)
    assert len(set(values)) > 1


def test_an_answer_is_probed_up_to_its_first_token_that_rounding_moves(
    release: Release, candidate: Path
) -> None:
    found = probes(candidate, release.value_path, release, answering(*FRAGILE, "ayz", *STEADY[1:3]))
    assert letters(found)[:2] == ["c", "b"]
    assert sorted(letters(found)[2:]) == ["ay", "y", "z"]


def read_by(release: Release, trees: Sequence[Tree]) -> int:
    """The answers that are read to choose probes from."""
    totals: list[int] = []
    probes(release.policy_path, release.value_path, release, trees, lambda done, total: totals.append(total))
    return totals[0]


def test_probes_are_chosen_from_as_many_answers_as_their_tokens_allow(release: Release) -> None:
    texts = [f"{a}{b}{STEADY}" for a in STEADY for b in STEADY]
    each = len(new_tree().prompt_tokens) + len(texts[0])
    assert read_by(release, answering(*texts)) == TOKENS // each < len(texts)


def test_of_a_long_answer_no_more_than_its_beginning_is_probed(release: Release, candidate: Path) -> None:
    found = probes(
        candidate, release.value_path, release, answering("a" * LONGEST + "b", "a" * LONGEST + "c")
    )
    assert letters(found) == ["a" * LONGEST]
