"""A value head on a policy's own trunk, trained for both: `python -m research.real.value_head`.

The policy answers problems of the train split several times, at temperature 1; a verifier says which answers are right.
At the end of each of their steps a head, linear in the trunk's hidden state, learns the outcome that the answer came
to: cross-entropy to the Monte Carlo return (TD(λ) with λ = 1). The trunk learns with it, since what makes a step wrong
stands nowhere in a state that was trained to write the next token; worked answers beside them keep it a policy.
Policy and head become a release.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoTokenizer

from ramify.rewards import datasets
from ramify.statistics import auc
from ramify.tokens import TokenText, plain_token, text_of
from ramify.weights import HEAD, Action, Details, Release, publish
from ramify_trainer.cli import tenths_on
from ramify_trainer.config import MeasureConfig, SamplerConfig
from ramify_trainer.gate.policy_scores import PolicyScores, SampledAnswer, score_policy
from ramify_trainer.gate.value_scores import judged_places
from ramify_trainer.learning.packing import value_place
from ramify_trainer.learning.value_head import closing_of, write_head
from research.compare.scores import score
from research.real.fine_tune import (
    Chat,
    batches,
    computing,
    in_parts,
    losses_of,
    read_chats,
    save,
    states_at,
    train,
    trainable,
)

HEAD_RATE = 10
"""Learning rate of the head, as a multiple of the trunk's: the head begins at zero."""


@dataclass(frozen=True)
class JudgedAnswer:
    """An answer, and where the server's engine would judge it."""

    tokens: tuple[int, ...]
    """Prompt and answer."""
    places: list[int]
    """Tokens whose states are read, one for each of k steps."""
    steps: list[int]
    """[k], counted from 1; 0 for the end of a whole answer."""
    outcome: float
    """0 or 1."""


def judged_answers(policy: Path, answers: Sequence[SampledAnswer], action: Action) -> list[JudgedAnswer]:
    """Return the answers of which at least one step has ended."""
    tokenizer, closing = AutoTokenizer.from_pretrained(policy), closing_of(policy)
    text = TokenText(partial(text_of, tokenizer), len(tokenizer), plain_token(tokenizer))
    judged = []
    for answer in answers:
        whole = (*answer.prompt, *answer.tokens)
        ends = judged_places(answer, text, action)
        steps = [0 if at + 1 == len(whole) else step for step, at in enumerate(ends, 1)]
        places = [value_place(whole, at, at - 1, closing) for at in ends]
        judged.append(JudgedAnswer(whole, places, steps, answer.outcome))
    return [answer for answer in judged if answer.places]


def logits_of(model: Any, head: nn.Linear, answers: Sequence[JudgedAnswer]) -> Tensor:
    """Return the head's logits [n] at all ends of steps of the answers, one answer after the other."""
    states = states_at(model, [a.tokens for a in answers], [a.places for a in answers])
    with torch.autocast(states.device.type, enabled=False):
        logits: Tensor = head(states.float())
    return logits[:, 0]


def outcomes_of(answers: Sequence[JudgedAnswer]) -> Tensor:
    """Return the outcomes [n] that belong to `logits_of`."""
    return torch.tensor([a.outcome for a in answers for _ in a.places])


def train_both(
    model: Any,
    answers: Sequence[JudgedAnswer],
    chats: Sequence[Chat],
    steps: int,
    batch: int,
    rate: float,
    seed: int,
) -> nn.Linear:
    """Train the policy in place for both, and return the head.

    A step reads `batch` answers, as many right as wrong ones, and as many chats: with half of them the policy forgets.
    Right answers are rare, and a fair draw would hold few; the head's bias then takes the share of right ones in again
    (prior correction, King and Zeng 2001, equation 7)."""
    head = nn.Linear(model.config.hidden_size, 1, device=model.device)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    rng = random.Random(seed)
    right = [answer for answer in answers if answer.outcome > 0.5]
    wrong = [answer for answer in answers if answer.outcome <= 0.5]
    streams = [batches(each, batch // 2, rng) for each in (right, wrong)]
    worked = batches(chats, batch, rng)

    def value_loss(answers: Sequence[JudgedAnswer]) -> Tensor:
        with computing(model):
            logits = logits_of(model, head, answers)
        return F.binary_cross_entropy_with_logits(logits, outcomes_of(answers).to(logits.device))

    def next_losses() -> Iterator[Tensor]:
        drawn = [answer for stream in streams for answer in next(stream)]
        yield from in_parts(drawn, lambda a: len(a.tokens), lambda a: len(a.places), value_loss)
        yield from losses_of(model, next(worked))

    groups = [
        {"params": [*model.parameters()], "lr": rate},
        {"params": [*head.parameters()], "lr": HEAD_RATE * rate},
    ]
    train(next_losses, groups, steps)
    with torch.no_grad():
        head.bias.add_(math.log(len(right) / len(wrong)))
    return head


@torch.no_grad()
def figures(model: Any, head: nn.Linear, answers: Sequence[JudgedAnswer]) -> dict[str, float]:
    """Return how well the head ranks answers after each of their steps (`auc_step_k`) and at their end (`auc_end`)."""
    found = []
    for at in range(0, len(answers), 32):
        with computing(model):
            found.append(logits_of(model, head, answers[at : at + 32]).float().cpu())
    logit, right = torch.cat(found).numpy(), outcomes_of(answers).numpy() > 0.5
    steps, measured = np.array([step for a in answers for step in a.steps]), {}
    for step in np.unique(steps).tolist():
        area = auc(logit[steps == step], right[steps == step])
        if area is not None:
            measured[f"auc_step_{step}" if step else "auc_end"] = round(area, 3)
    return measured


def sampled(policy: Path, config: MeasureConfig, kept: Path, engine: Any, seed: int) -> PolicyScores:
    """Return the policy's scores on a data set, with all its answers, which are kept in a file."""
    told, sampler = partial(tenths_on(Console()), config.data), SamplerConfig(engine=engine)
    keep = config.answers
    return score(partial(score_policy, policy, config, seed, kept, keep=keep, sampler=sampler, told=told))


def flat(scores: PolicyScores) -> list[SampledAnswer]:
    """Return all answers."""
    return [answer for group in scores.answers.values() for answer in group]


def policy_figures(scores: PolicyScores) -> dict[str, float]:
    """Return `greedy`, `mean_at_k`, and the share of problems of whose k samples one is right (`any_of_k`)."""
    right = [any(answer.outcome > 0.5 for answer in group) for group in scores.answers.values()]
    return {**scores.figures(), "any_of_k": sum(right) / len(right)}


def require_both(answers: Sequence[JudgedAnswer], least: int) -> None:
    """Raise `typer.BadParameter` unless at least so many answers are right, and as many wrong."""
    right = sum(answer.outcome > 0.5 for answer in answers)
    if min(right, len(answers) - right) < least:
        raise typer.BadParameter(
            f"{right} of {len(answers)} sampled answers are right: a batch needs {least} right and {least} wrong ones. "
            "Take more problems or a smaller batch, fine-tune the policy further, or take easier or harder problems"
        )


def main(
    policy: Annotated[Path, typer.Option(help="Hugging Face directory.")] = Path("runs/real/policy"),
    data: Annotated[Path, typer.Option(help="Problems whose answers the head learns from.")] = Path(
        "runs/real/train.jsonl"
    ),
    chats: Annotated[Path, typer.Option(help="Worked answers, as for fine-tuning.")] = Path(
        "runs/real/worked.jsonl"
    ),
    dev: Annotated[Path, typer.Option(help="Problems that the figures are of.")] = Path(
        "runs/real/dev.jsonl"
    ),
    out: Annotated[Path, typer.Option(help="Folder of the samples and of the release.")] = Path("runs/real"),
    problems: int = 1_500,
    answers: Annotated[int, typer.Option(help="Answers to each problem.")] = 4,
    dev_problems: int = 200,
    examples: Annotated[int, typer.Option(help="Worked answers read, from the first.")] = 12_000,
    max_tokens: Annotated[int, typer.Option(help="Longest answer, in tokens.")] = 48,
    step_tokens: Annotated[int, typer.Option(help="Longest step, in tokens; a step is a line.")] = 16,
    steps: int = 180,
    batch: Annotated[int, typer.Option(min=2, help="Sampled answers a step.")] = 16,
    rate: Annotated[float, typer.Option(help="Highest learning rate of the trunk.")] = 1e-4,
    engine: Annotated[str, typer.Option(help="auto, vllm or transformers.")] = "vllm",
    threads: int = 2,
    seed: int = 0,
) -> None:
    """Sample, grade, train trunk and head, publish; print what both are worth on the dev split."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    action = Action(stop=("\n",), max_tokens=step_tokens)
    taught = MeasureConfig(data=str(data), problems=problems, answers=answers, max_tokens=max_tokens)
    before = sampled(policy, taught, out / "samples-train.json", engine, seed)
    tell("train, before", policy_figures(before))
    graded = judged_answers(policy, flat(before), action)
    require_both(graded, batch // 2)

    model = trainable(policy)
    worked = read_chats(chats, AutoTokenizer.from_pretrained(policy), examples)
    head = train_both(model, graded, worked, steps, batch, rate, seed)
    with TemporaryDirectory() as work:
        both = Path(work) / "policy"
        save(model, policy, both)
        asked = taught.model_copy(update={"data": str(dev), "problems": dev_problems})
        after = sampled(both, asked, out / "samples-dev.json", engine, seed)
        judged = judged_answers(both, flat(after), action)
        measured = {**policy_figures(after), **figures(model, head, judged)}
        tell("dev", measured)
        details = Details(
            name=out.resolve().name,
            default_task=datasets.load(str(data), 1)[0].task,
            default_action=action,
            default_max_tokens=max_tokens,
            metrics=measured,
        )
        typer.echo(f"published {published(out / 'weights', both, head, details).path}")


def tell(split: str, found: Mapping[str, float]) -> None:
    """Print the figures of a split."""
    for name, figure in found.items():
        typer.echo(f"{split} {name} {figure:.3f}")


def published(root: Path, policy: Path, head: nn.Linear, details: Details) -> Release:
    """Publish policy and head under `root`."""
    with TemporaryDirectory() as work:
        write_head(Path(work) / "value", {name: each.cpu() for name, each in head.state_dict().items()})
        return publish(root, policy, Path(work) / "value" / HEAD, details)


if __name__ == "__main__":
    typer.run(main)
