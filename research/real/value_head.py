"""A value head for a policy that has none: `python -m research.real.value_head`.

The policy answers problems of the train split several times, at temperature 1; a verifier says which answers are right.
At the end of each of their steps the head, which is linear in the trunk's hidden state, learns the outcome that the
answer came to (the Monte Carlo return, TD(λ) with λ = 1): a logistic regression on states that are computed once, since
the trunk stays as it is. Policy and head become a release.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoTokenizer

from ramify.statistics import auc
from ramify.tokens import TokenText, plain_token, text_of
from ramify.weights import HEAD, Action, Details, Release, publish
from ramify_trainer.config import MeasureConfig, SamplerConfig
from ramify_trainer.gate.placement import policy_in
from ramify_trainer.gate.policy_scores import PolicyScores, SampledAnswer, score_policy
from ramify_trainer.gate.value_scores import AnswerPool, judged_places
from ramify_trainer.learning.lm_head import trunk_of
from ramify_trainer.learning.packing import value_place
from ramify_trainer.learning.value_head import closing_of, write_head
from ramify_trainer.progress import ComputeThread

DECAYS = (1e-4, 1e-3, 1e-2, 1e-1)
"""Weights of the squared norm that are tried; the one with the best loss on the dev split is taken."""


@dataclass(frozen=True)
class States:
    """Input and target of a head, at the n ends of the steps of some answers."""

    hidden: Tensor
    """[n, H], after the trunk's final norm."""
    outcome: Tensor
    """[n], of the answer that it became; 0 or 1."""
    step: NDArray[np.int64]
    """[n], counted from 1; 0 for the end of a whole answer."""


@torch.no_grad()
def states_of(policy: Path, pool: AnswerPool, action: Action) -> States:
    """Return the trunk's states at the ends of all steps of the answers, where the server's engine would judge them."""
    model, tokenizer, closing = policy_in(policy), AutoTokenizer.from_pretrained(policy), closing_of(policy)
    text = TokenText(partial(text_of, tokenizer), len(tokenizer), plain_token(tokenizer))
    found: list[Tensor] = []
    outcomes, steps = [], []
    for number, group in enumerate(pool.values(), 1):
        start = len(group[0].prompt)
        for answer, row in zip(group, _states(model, group), strict=True):
            whole = (*answer.prompt, *answer.tokens)
            places = judged_places(answer, text, action)
            found.append(row[[value_place(whole, at, at - 1, closing) - start + 1 for at in places]])
            outcomes += [answer.outcome] * len(places)
            steps += [0 if at + 1 == len(whole) else step for step, at in enumerate(places, 1)]
        if number % 50 == 0 or number == len(pool):
            typer.echo(f"states: {number} of {len(pool)} problems")
    return States(torch.cat(found), torch.tensor(outcomes), np.array(steps))


def _states(model: Any, group: Sequence[SampledAnswer]) -> Tensor:
    """Return the hidden states [K, 1 + T, H] of the prompt's last token and of the tokens of its K answers, the shorter
    ones padded. The prompt is read once."""
    width = max(len(answer.tokens) for answer in group)
    answers = torch.tensor([[*a.tokens, *[0] * (width - len(a.tokens))] for a in group], device=model.device)
    prompt = trunk_of(model)(input_ids=torch.tensor([group[0].prompt], device=model.device), use_cache=True)
    prompt.past_key_values.batch_repeat_interleave(len(group))
    read = trunk_of(model)(input_ids=answers, past_key_values=prompt.past_key_values, use_cache=True)
    last = prompt.last_hidden_state[:, -1:].expand(len(group), -1, -1)
    return torch.cat([last, read.last_hidden_state], dim=1).float().cpu()


def fitted(train: States, dev: States) -> dict[str, Tensor]:
    """Return the head, `weight` [1, H] and `bias` [1], with the lowest cross-entropy on `dev` of those for `DECAYS`."""
    mean, scale = train.hidden.mean(dim=0), train.hidden.std(dim=0).clamp_min(1e-6)
    heads = [_regressed((train.hidden - mean) / scale, train.outcome, decay) for decay in DECAYS]
    folded = [(weight / scale, bias - (weight / scale) @ mean) for weight, bias in heads]
    losses = [F.binary_cross_entropy_with_logits(dev.hidden @ w + b, dev.outcome).item() for w, b in folded]
    typer.echo(f"dev loss by weight decay: {dict(zip(DECAYS, losses, strict=True))}")
    weight, bias = folded[losses.index(min(losses))]
    return {"weight": weight[None], "bias": bias[None]}


def _regressed(features: Tensor, outcome: Tensor, decay: float) -> tuple[Tensor, Tensor]:
    """Return weight [H] and bias of the logistic regression with a penalty of decay / 2 · |weight|²."""
    weight = torch.zeros(features.shape[1], requires_grad=True)
    bias = torch.zeros((), requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        found = F.binary_cross_entropy_with_logits(features @ weight + bias, outcome)
        found = found + decay / 2 * weight.square().sum()
        found.backward()  # type: ignore[no-untyped-call]
        return found

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return weight.detach(), bias.detach()


def figures(head: dict[str, Tensor], dev: States) -> dict[str, float]:
    """Return how well the head ranks answers after each of their steps (`auc_step_k`) and at their end (`auc_end`)."""
    logit = (dev.hidden @ head["weight"][0] + head["bias"]).numpy()
    right, measured = dev.outcome.numpy() > 0.5, {}
    for step in sorted(set(dev.step.tolist())):
        at = dev.step == step
        area = auc(logit[at], right[at])
        if area is not None:
            measured[f"auc_step_{step}" if step else "auc_end"] = round(area, 3)
    return measured


def sampled(policy: Path, config: MeasureConfig, kept: Path, engine: Any, seed: int) -> PolicyScores:
    """Return the policy's scores on a data set, with all its answers, which are kept in a file."""
    worker = ComputeThread()

    def told(done: int, total: int) -> None:
        typer.echo(f"{config.data}: {done} of {total} problems")

    try:
        sampler = SamplerConfig(engine=engine)
        asked = score_policy(policy, config, seed, kept, worker, config.answers, sampler, told)
        return asyncio.run(asked)
    finally:
        worker.close()


def flat(scores: PolicyScores) -> list[SampledAnswer]:
    """Return all answers."""
    return [answer for group in scores.answers.values() for answer in group]


def policy_figures(scores: PolicyScores) -> dict[str, float]:
    """Return `greedy`, `mean_at_k`, and the share of problems of whose k samples one is right (`any_of_k`)."""
    right = [any(answer.outcome > 0.5 for answer in group) for group in scores.answers.values()]
    return {**scores.figures(), "any_of_k": sum(right) / len(right)}


def require_both(name: str, scores: PolicyScores) -> None:
    """Raise `typer.BadParameter` if all answers to a split's problems are right, or all are wrong."""
    right = sum(answer.outcome > 0.5 for answer in flat(scores))
    if not 0 < right < len(flat(scores)):
        raise typer.BadParameter(
            f"{right} of {len(flat(scores))} sampled answers to {name} problems are right: a head learns from right "
            "and wrong ones. Fine-tune the policy further, or take easier or harder problems"
        )


def main(
    policy: Annotated[Path, typer.Option(help="Hugging Face directory.")] = Path("runs/real/policy"),
    data: Annotated[Path, typer.Option(help="Problems that the head learns from.")] = Path(
        "runs/real/train.jsonl"
    ),
    dev: Annotated[Path, typer.Option(help="Problems that the figures are of.")] = Path(
        "runs/real/dev.jsonl"
    ),
    out: Annotated[Path, typer.Option(help="Folder of the samples and of the release.")] = Path("runs/real"),
    problems: int = 500,
    answers: Annotated[int, typer.Option(help="Answers to each problem.")] = 4,
    dev_problems: int = 96,
    max_tokens: Annotated[int, typer.Option(help="Longest answer, in tokens.")] = 96,
    step_tokens: Annotated[int, typer.Option(help="Longest step, in tokens; a step is a line.")] = 24,
    engine: Annotated[str, typer.Option(help="auto, vllm or transformers.")] = "vllm",
    threads: int = 1,
    seed: int = 0,
) -> None:
    """Sample, grade, fit a head and publish; print what the policy and the head are worth on the dev split."""
    torch.set_num_threads(threads)
    action = Action(stop=("\n",), max_tokens=step_tokens)
    asked = {"answers": answers, "max_tokens": max_tokens}
    drawn = {
        name: sampled(
            policy,
            MeasureConfig(data=str(file), problems=count, **asked),
            out / f"samples-{name}.json",
            engine,
            seed,
        )
        for name, file, count in (("train", data, problems), ("dev", dev, dev_problems))
    }
    for name, scores in drawn.items():
        require_both(name, scores)
    train_states, dev_states = (states_of(policy, scores.answers, action) for scores in drawn.values())
    head = fitted(train_states, dev_states)
    measured = {**policy_figures(drawn["dev"]), **figures(head, dev_states)}
    told = {"train": policy_figures(drawn["train"]), "dev": measured}
    for split, found in told.items():
        for name, figure in found.items():
            typer.echo(f"{split} {name} {figure:.3f}")
    details = Details(
        name=policy.resolve().parent.name,
        default_task="math",
        default_action=action,
        default_max_tokens=max_tokens,
        metrics=measured,
    )
    typer.echo(f"published {published(out / 'weights', policy, head, details).path}")


def published(root: Path, policy: Path, head: dict[str, Tensor], details: Details) -> Release:
    """Publish policy and head under `root`."""
    with TemporaryDirectory() as work:
        write_head(Path(work) / "value", head)
        return publish(root, policy, Path(work) / "value" / HEAD, details)


if __name__ == "__main__":
    typer.run(main)
