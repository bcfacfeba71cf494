"""Supervised fine-tuning of a chat model on worked answers: `python -m research.real.fine_tune`.

The data are chats whose last turn is the assistant's, in the form that every fine-tuning tool takes:
`{"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]}`, one a line. The prompt is
what Ramify's server makes of the turns before, through the model's own chat template, and the answer ends with the
model's end token. All weights are trained, by the mean cross-entropy of the answers' tokens.
"""

from __future__ import annotations

import json
import random
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar

import torch
import typer
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, get_cosine_schedule_with_warmup

from ramify.engines.vllm import multiplies_bfloat16
from ramify.tokens import chat_tokens
from ramify_trainer.learning.lm_head import scored, trunk_of

T = TypeVar("T")
WARM_UP = 0.1
"""Share of the steps in which the learning rate rises; it falls to 0 as a cosine after them."""
TOKENS_AT_ONCE = 2048
"""Tokens, with padding, whose activations are held at a time: a model of 135M parameters takes up to 9 GB with them."""

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


def batches(examples: Sequence[T], size: int, rng: random.Random) -> Iterator[Sequence[T]]:
    """Yield batches without end, each example at most once an epoch. Raises `ValueError` if there is not one batch."""
    if len(examples) < size:
        raise ValueError(f"a batch of {size} needs as many examples; there are {len(examples)}")
    while True:
        order = rng.sample(examples, len(examples))
        yield from (order[at : at + size] for at in range(0, len(order) - size + 1, size))


def in_parts(
    batch: Sequence[T],
    length: Callable[[T], int],
    terms: Callable[[T], int],
    loss: Callable[[Sequence[T]], Tensor],
) -> Iterator[Tensor]:
    """Yield the mean loss of a batch in parts whose sum it is, each of at most `TOKENS_AT_ONCE` tokens if it has more
    than one example.

    length: tokens of an example; those of about one length go together. terms: how many terms of the mean it has. loss:
    their mean over a part."""
    whole = sum(map(terms, batch))
    part: list[T] = []
    for example in sorted(batch, key=length):
        if part and length(example) * (len(part) + 1) > TOKENS_AT_ONCE:
            yield loss(part) * (sum(map(terms, part)) / whole)
            part = []
        part.append(example)
    yield loss(part) * (sum(map(terms, part)) / whole)


def states_at(model: Any, rows: Sequence[Sequence[int]], places: Sequence[Sequence[int]]) -> Tensor:
    """Return the trunk's states [n, H], after its final norm, at `places[i]` of the tokens `rows[i]`, one row after the
    other. Padding is on the right, where no token sees it."""
    width = max(map(len, rows))
    tokens = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], device=model.device)
    at = [row * width + place for row, own in enumerate(places) for place in own]
    states: Tensor = trunk_of(model)(input_ids=tokens, use_cache=False).last_hidden_state
    return states.flatten(0, 1)[at]


def losses_of(model: Any, batch: Sequence[Chat]) -> Iterator[Tensor]:
    """Yield the mean cross-entropy of the answers' tokens in parts whose sum it is."""

    def loss(part: Sequence[Chat]) -> Tensor:
        with computing(model):
            return loss_of(model, part)

    return in_parts(batch, lambda c: len(c.prompt) + len(c.answer), lambda c: len(c.answer), loss)


def loss_of(model: Any, batch: Sequence[Chat]) -> Tensor:
    """Return the mean cross-entropy of the answers' tokens."""
    rows = [[*chat.prompt, *chat.answer] for chat in batch]
    before = [range(len(chat.prompt) - 1, len(row) - 1) for chat, row in zip(batch, rows, strict=True)]
    labels = torch.tensor([token for chat in batch for token in chat.answer], device=model.device)
    states = states_at(model, rows, before)
    logprobs, _ = scored(model, states, labels, torch.ones(len(labels), device=model.device))
    return -logprobs.mean()


def computing(model: Any) -> torch.autocast:
    """Return the context of a forward pass: products in bfloat16 where the hardware multiplies it."""
    device = model.device.type
    return torch.autocast(device, torch.bfloat16, enabled=device == "cuda" or multiplies_bfloat16())


def trainable(folder: Path) -> Any:
    """Return the model of a directory, in float32, on a GPU if there is one."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, use_safetensors=True)
    return model.to("cuda" if torch.cuda.is_available() else "cpu")


def train(next_losses: Callable[[], Iterable[Tensor]], groups: Sequence[dict[str, Any]], steps: int) -> None:
    """Train in place, and print the loss of every tenth step.

    next_losses: computes the loss of the next batch in parts, whose sum it is; the activations of one part are freed
    before the next is computed. groups: parameters (`params`, a list) with their highest learning rate (`lr`), all of
    which are clipped together."""
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01, fused=True)
    trained = [parameter for group in groups for parameter in group["params"]]
    schedule = get_cosine_schedule_with_warmup(optimizer, round(WARM_UP * steps), steps)
    began = time.monotonic()
    for step in range(1, steps + 1):
        loss = 0.0
        for part in next_losses():
            part.backward()  # type: ignore[no-untyped-call]
            loss += part.item()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 10 == 0 or step == steps:
            seconds = time.monotonic() - began
            typer.echo(f"step {step} of {steps}, loss {loss:.3f}, {seconds:.0f} s")


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
    examples: Annotated[int, typer.Option(help="Chats read, from the first.")] = 12_000,
    steps: int = 600,
    batch: Annotated[int, typer.Option(help="Chats a step.")] = 16,
    rate: Annotated[float, typer.Option(help="Highest learning rate.")] = 3e-4,
    threads: int = 2,
    seed: int = 0,
) -> None:
    """Fine-tune a chat model; on a GPU if there is one."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(model)
    chats = read_chats(data, tokenizer, examples)
    policy, stream = trainable(model), batches(chats, batch, random.Random(seed))
    train(lambda: losses_of(policy, next(stream)), [{"params": [*policy.parameters()], "lr": rate}], steps)
    save(policy, model, out)
    typer.echo(f"wrote {out}")


if __name__ == "__main__":
    typer.run(main)
