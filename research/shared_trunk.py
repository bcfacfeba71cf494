"""Does a value head harm the policy whose trunk it shares? `python -m research.shared_trunk`

One weak base learns countdown by `tree_ppo`, in rounds, from trees of its own answers, without a server and without
search: every arm and seed draws answers to the same problems, takes as many optimizer steps, and is measured on the dev
split without search. The head begins at 0. Arms differ in what the value's loss moves.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import torch
import typer
from transformers import AutoModelForCausalLM

from ramify.search.params import search_params
from ramify.search.records import Sampling
from ramify.search.tree import Tree
from ramify.weights.manifest import Action
from ramify_trainer.config import MeasureConfig
from ramify_trainer.gate.policy_scores import PolicyScores, SampledAnswer, score_policy
from ramify_trainer.gate.value_scores import pool_answers, predict_values
from ramify_trainer.learning.config import LearningConfig
from ramify_trainer.learning.labels import LabelledTree
from ramify_trainer.learning.learner import Learner
from ramify_trainer.learning.value_head import write_head
from research.compare.scores import score

BASE = Path(__file__).parents[1] / "trainer/ramify_trainer/models/countdown-weak/v000001/policy"
ARMS: Mapping[str, Mapping[str, Any]] = {
    "policy alone": {"train_value": False},
    "head": {"value_gradient": "head"},
    "trunk, 0.1": {"value_gradient": "trunk", "value_coefficient": 0.1},
    "trunk, 0.5": {"value_gradient": "trunk", "value_coefficient": 0.5},
}
LEARNING = LearningConfig(
    policy_learning_rate=6e-4,
    value_learning_rate=3e-3,
    warmup_steps=4,
    steps_per_round=8,
    tokens_per_batch=4_000,
    epochs=8,
    kl_beta=0.0,
    threads=1,
    tracker="none",
)
"""The head's rate is high, since it has one layer and begins at 0."""
DEV = MeasureConfig(data="countdown:dev?numbers=4", problems=250, answers=4)


@dataclass(frozen=True)
class Figures:
    """The dev split after training."""

    arm: str
    seed: int
    greedy: float
    mean_at_k: float
    value_auc: float
    """Figures of finished answers."""
    value_auc_steps: float


def flat_tree(
    answers: Sequence[SampledAnswer], logprobs: Sequence[Sequence[float]], newline: int
) -> LabelledTree:
    """Return the steps of one problem's answers as a tree; equal beginnings are shared."""
    tree = Tree(
        prompt_tokens=answers[0].prompt, params=search_params("best_of_n"), sampling=Sampling(), seed=0
    )
    outcomes = {}
    for answer, own in zip(answers, logprobs, strict=True):
        node, start = tree.root, 0
        ends = [i + 1 for i, token in enumerate(answer.tokens) if token == newline]
        for end in [*ends, len(answer.tokens)]:
            tokens = answer.tokens[start:end]
            if not tokens:
                continue
            known = next((c for c in tree.children(node) if c.tokens == tokens), None)
            if known is None:
                node = tree.add(node, tokens=tokens, logprobs=tuple(own[start:end]), length=end)
            else:
                known.multiplicity += 1
                node = known
            start = end
        node.terminal = "eos" if answer.finished else "truncated"
        outcomes[node.id] = answer.outcome
    return LabelledTree(tree, outcomes)


@torch.inference_mode()
def logprobs_of(policy: Path, answers: Sequence[SampledAnswer]) -> list[list[float]]:
    """Return the log-probability of every token of the answers."""
    model = AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32).eval()
    texts = [torch.tensor([*a.prompt, *a.tokens]) for a in answers]
    found: list[list[float]] = []
    for i in range(0, len(texts), 64):
        ids = torch.nn.utils.rnn.pad_sequence(texts[i : i + 64], batch_first=True)
        logprobs = model(input_ids=ids, use_cache=False).logits[:, :-1].log_softmax(-1)
        own = logprobs.gather(2, ids[:, 1:, None])[..., 0]
        for answer, row in zip(answers[i : i + 64], own.tolist(), strict=True):
            start = len(answer.prompt) - 1
            found.append(row[start : start + len(answer.tokens)])
    return found


def drawn_trees(policy: Path, scores: PolicyScores, newline: int) -> list[LabelledTree]:
    answers = [answer for group in scores.answers.values() for answer in group]
    logprobs = iter(logprobs_of(policy, answers))
    return [flat_tree(group, [next(logprobs) for _ in group], newline) for group in scores.answers.values()]


def trained(arm: str, seed: int, rounds: int, problems: int, folder: Path) -> Figures:
    """Train one arm from the base, and measure it."""
    config = LEARNING.model_copy(update=dict(ARMS[arm]))
    here = folder / "round-0"
    shutil.copytree(BASE, here / "policy")
    size = json.loads((BASE / "config.json").read_text())["hidden_size"]
    write_head(here / "value", {"weight": torch.zeros(1, size), "bias": torch.zeros(1)})

    def scored(at: Path, measured: MeasureConfig, name: str, number: int, keep: int) -> PolicyScores:
        kept = folder / f"{name}.json"
        return score(partial(score_policy, at / "policy", measured, number, kept, keep=keep))

    learner = Learner.start(config, here / "policy", here / "value", here / "policy", seed=seed)
    for i in range(rounds):
        number = seed * 1_000 + i
        asked = MeasureConfig(data="countdown:train?numbers=4", problems=problems, answers=8)
        drawn = scored(here, asked, f"train-{i}", number, 8)
        learner.round(drawn_trees(here / "policy", drawn, newline=4), seed=number)
        before, here = here, folder / f"round-{i + 1}"
        here.mkdir()
        learner.export(here, before)
    dev = scored(here, DEV, "dev", 0, 4)
    values = predict_values(here, (1.0, 0.0), pool_answers(dev), Action(), lambda done, total: None).figures()
    own = {name: values.get(name, float("nan")) for name in ("value_auc", "value_auc_steps")}
    return Figures(arm=arm, seed=seed, **dev.figures(), **own)


def main(
    out: Annotated[Path, typer.Option(help="File of results, one JSON object a line; added to.")],
    rounds: int = 2,
    problems: int = 80,
    seeds: int = 3,
    arms: Annotated[
        list[str] | None, typer.Option("--arm", help="Only this arm; may be given several times.")
    ] = None,
) -> None:
    """Train every arm from every seed, and print a line for each."""
    torch.set_num_threads(1)
    known = (
        {(r["arm"], r["seed"]) for r in map(json.loads, out.read_text().splitlines())}
        if out.exists()
        else set()
    )
    for seed in range(seeds):
        for arm in arms or ARMS:
            if (arm, seed) not in known:
                with TemporaryDirectory() as folder, out.open("a") as file:
                    figures = asdict(trained(arm, seed, rounds, problems, Path(folder)))
                    file.write(f"{json.dumps(figures)}\n")
                typer.echo(figures)


if __name__ == "__main__":
    typer.run(main)
