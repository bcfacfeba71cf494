"""Supervised fine-tuning of a chat model on worked answers: `python -m research.real.fine_tune`.

The data are chats whose last turn is the assistant's, in the form that every fine-tuning tool takes:
`{"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]}`, one a line. The prompt is
what Ramify's server makes of the turns before, through the model's own chat template, and the answer ends with the
model's end token. All weights are trained, by the mean cross-entropy of the answers' tokens.
"""

from __future__ import annotations

import json
import math
import random
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
import typer
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from ramify.tokens import chat_tokens
from ramify_trainer.learning.lm_head import scored, trunk_of

WARM_UP = 0.1
"""Share of the steps in which the learning rate rises; it falls to 0 as a cosine after them."""


WEIGHTS = frozenset((".safetensors", ".bin", ".pt", ".pth", ".gguf"))
"""Endings of the base's files that the new model has its own in place of."""


class Chat(NamedTuple):
    """A prompt and its answer with the end token, as token ids."""

    prompt: list[int]
    answer: list[int]


def read_chats(file: Path, tokenizer: Any, count: int) -> list[Chat]:
    """Return the first chats of a file. Raises `ValueError` naming the line."""
    chats = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines()[:count], 1):
        try:
            *turns, last = json.loads(line)["messages"]
            role, said = last["role"], last["content"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{file}:{number}: no chat in `messages`: {error!r}") from error
        if role != "assistant":
            raise ValueError(f"{file}:{number}: the last message must be the assistant's")
        answer = [*tokenizer(said, add_special_tokens=False).input_ids, tokenizer.eos_token_id]
        chats.append(Chat(chat_tokens(tokenizer, turns), answer))
    return chats


def batches(chats: Sequence[Chat], size: int, rng: random.Random) -> Iterator[Sequence[Chat]]:
    """Yield batches without end, each chat at most once an epoch. Raises `ValueError` if there is not one batch."""
    if len(chats) < size:
        raise ValueError(f"a batch of {size} needs as many chats; there are {len(chats)}")
    while True:
        order = rng.sample(chats, len(chats))
        yield from (order[at : at + size] for at in range(0, len(order) - size + 1, size))


def loss_of(model: Any, batch: Sequence[Chat]) -> Tensor:
    """Return the mean cross-entropy of the answers' tokens. Padding is on the right, where no token sees it."""
    width = max(len(chat.prompt) + len(chat.answer) for chat in batch)
    tokens = torch.zeros((len(batch), width), dtype=torch.int64)
    at: list[int] = []
    labels: list[int] = []
    for row, (prompt, answer) in enumerate(batch):
        tokens[row, : len(prompt) + len(answer)] = torch.tensor([*prompt, *answer])
        at += range(row * width + len(prompt) - 1, row * width + len(prompt) - 1 + len(answer))
        labels += answer
    states = trunk_of(model)(input_ids=tokens.to(model.device), use_cache=False).last_hidden_state.flatten(
        0, 1
    )
    chosen = torch.tensor(labels, device=model.device)
    logprobs, _ = scored(model, states[at], chosen, torch.ones(len(labels), device=model.device))
    return -logprobs.mean()


def rate_at(step: int, steps: int) -> float:
    """Return the learning rate's factor, in [0, 1]."""
    rise = max(1, round(WARM_UP * steps))
    return (step + 1) / rise if step < rise else (1 + math.cos(math.pi * (step - rise) / (steps - rise))) / 2


def train(model: Any, chats: Sequence[Chat], steps: int, batch: int, rate: float, seed: int) -> None:
    """Train in place, and print the loss of every tenth step."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01, foreach=False)
    stream, began, read = batches(chats, batch, random.Random(seed)), time.monotonic(), 0
    for step in range(steps):
        chosen = next(stream)
        read += sum(len(chat.prompt) + len(chat.answer) for chat in chosen)
        loss = loss_of(model, chosen)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = rate * rate_at(step, steps)
        optimizer.step()
        optimizer.zero_grad()
        if (step + 1) % 10 == 0 or step + 1 == steps:
            pace = read / (time.monotonic() - began)
            typer.echo(f"step {step + 1} of {steps}, loss {loss.item():.3f}, {pace:.0f} tokens/s")


def save(model: Any, base: Path, out: Path) -> None:
    """Write the model in the precision of its base, with the base's tokenizer and chat template."""
    model.to(AutoConfig.from_pretrained(base).dtype).save_pretrained(out)
    for file in base.iterdir():
        weights = file.suffix in WEIGHTS or file.name.endswith(".index.json")
        if file.is_file() and not weights and not (out / file.name).exists():
            shutil.copy(file, out)


def main(
    model: Annotated[Path, typer.Option(help="Hugging Face directory of a chat model.")],
    data: Annotated[Path, typer.Option(help="Chats, one JSON object a line.")] = Path(
        "runs/real/worked.jsonl"
    ),
    out: Annotated[Path, typer.Option(help="Directory of the new model.")] = Path("runs/real/policy"),
    examples: Annotated[int, typer.Option(help="Chats read, from the first.")] = 800,
    steps: int = 100,
    batch: Annotated[int, typer.Option(help="Chats a step.")] = 8,
    rate: Annotated[float, typer.Option(help="Highest learning rate.")] = 2e-4,
    threads: int = 2,
    seed: int = 0,
) -> None:
    """Fine-tune a chat model; on a GPU if there is one."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(model)
    chats = read_chats(data, tokenizer, examples)
    policy = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, use_safetensors=True)
    policy.to("cuda" if torch.cuda.is_available() else "cpu")
    train(policy, chats, steps, batch, rate, seed)
    save(policy, model, out)
    typer.echo(f"wrote {out}")


if __name__ == "__main__":
    typer.run(main)
