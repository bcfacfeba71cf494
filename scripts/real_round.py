"""One whole round of training with a real chat model: what `make test` shows with tiny random models only.

    hf download HuggingFaceTB/SmolLM2-135M-Instruct --local-dir smollm2
    make real-round MODEL=smollm2

Makes a release of the model and a small random value model, starts a server on it, has it search sums asked as
`messages`, trains on the trees, gates, publishes and activates; then asks the server which release it serves, and the
new one a question. Ends with code 1 if the new release is not the one that is served. With SmolLM2-135M on two cores it
takes about ten minutes. The figures say nothing about learning: one round of two steps on eight sums, and a gate of
eight problems with margins that let nearly everything pass.

With `make real-round MODEL=smollm2 ADAPTER=1` it trains a LoRA adapter that is a release of its own, the gate's answers
are drawn by a spare engine, and in the end the server is taken back to the base and forth again while it searches: code
1 if a search is lost, or its tree is of two releases.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ramify.weights import Action, Details, publish
from ramify_client import AsyncAdmin, AsyncClient, Client
from ramify_trainer.cli import log_to_stderr
from ramify_trainer.config import LoopConfig
from ramify_trainer.loop.demo import run, running_server
from ramify_trainer.loop.state import folder_lock

NAME = "real"
ASKED = "What is {} + {}? Answer with the number only."


def main(model: Path, out: Path, adapter: bool) -> str | None:
    """Run the round; return what is wrong, or None if its release is served."""
    began = time.monotonic()
    base = made_release(model, out)
    config = configured(base, out, adapter)
    with (
        folder_lock(config.state),
        running_server(out, config.weights, config.base, config.tasks) as (url, admin_url),
    ):
        said(f"{time.monotonic() - began:.0f} s: serves {base.name} at {url}")
        history, held_out = asyncio.run(run(config, (url, admin_url), lambda *_: None))
        with Client(url) as client:
            served, listed = client.version().release, client.models().data
            question = [{"role": "user", "content": ASKED.format(2, 3)}]
            answer = client.search(
                messages=question,
                task={"name": "math", "problem": {"answer": "5"}},
                search={"budget": {"tokens": 100}},
            )
        fault = asyncio.run(there_and_back(url, admin_url)) if adapter else None
    record = history[-1]
    said(json.dumps(record.model_dump(), indent=1))
    said(json.dumps({release: found.figures() for release, found in held_out.items()}))
    said(
        f"{time.monotonic() - began:.0f} s: serves {served}; /v1/models: {sorted({model.root for model in listed})}"
    )
    said(f"asked 2 + 3, {served} says {answer.answer.text!r}")
    return fault if served == record.release else f"round 1 came to {record.result}: {record.reason}"


async def there_and_back(url: str, admin_url: str) -> str | None:
    """Roll back and activate again while four searches run at a time; return what is wrong with their trees."""
    releases: list[set[str]] = []

    async def search(client: AsyncClient) -> None:
        message = {"role": "user", "content": ASKED.format(len(releases), 1)}
        options: dict[str, Any] = {
            "search": {"algorithm": "mcts", "budget": {"tokens": 100}},
            "include_tree": True,
        }
        found = await client.search(messages=[message], **options)
        assert found.tree_document is not None
        releases.append({node["release"] for node in found.tree_document["nodes"][1:]})

    async def search_on(client: AsyncClient, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await search(client)

    async with AsyncClient(url) as client, AsyncAdmin(admin_url) as admin, asyncio.TaskGroup() as group:
        stop = asyncio.Event()
        for _ in range(4):
            group.create_task(search_on(client, stop))
        await search(client)
        served = (await client.version()).release
        for change in (admin.rollback(), admin.activate(served)):
            done = await change
            total, drain = done.seconds["total"], done.seconds["drain"]
            said(f"serves {done.release} after {total:.2f} s, of which draining {drain:.2f}")
            await search(client)
        stop.set()
    counts = {one: sum(one in found for found in releases) for one in sorted(set().union(*releases))}
    said(f"{len(releases)} searches meanwhile, by release {counts}")
    mixed = [found for found in releases if len(found) != 1]
    return f"{len(mixed)} trees are not of one release: {mixed[:3]}" if mixed else None


def said(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def made_release(model: Path, out: Path) -> Path:
    """The model and a random value model over its tokenizer, as a release."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForSequenceClassification

    value, weights = out / "value", out / "base"
    tokenizer = AutoTokenizer.from_pretrained(model)
    limit = json.loads((model / "config.json").read_text())["max_position_embeddings"]
    shape: dict[str, Any] = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2}
    shape |= {"num_attention_heads": 2, "num_key_value_heads": 2, "num_labels": 1}
    shape |= {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": limit,
        "pad_token_id": tokenizer.pad_token_id,
    }
    shutil.rmtree(out, ignore_errors=True)
    LlamaForSequenceClassification(LlamaConfig(**shape)).bfloat16().save_pretrained(value)
    tokenizer.save_pretrained(value)
    action = Action(stop=("\n",), max_tokens=8)
    details = Details(name=NAME, default_task="math", default_action=action, default_max_tokens=16)
    return publish(weights, model, value, details).path


def configured(base: Path, out: Path, adapter: bool) -> LoopConfig:
    """A round that is as small as can be."""
    lora = {"lora": {"rank": 8, "publish": "adapter"}, "train_value": False} if adapter else {}
    data = {split: write_sums(out / f"{split}.jsonl", split) for split in ("train", "dev", "test")}
    measured = {"problems": 8, "answers": 2, "max_tokens": 16}
    return LoopConfig.model_validate(
        {
            "name": NAME,
            "rounds": 1,
            "base": str(base),
            "weights": out / "weights",
            "state": out / "state",
            "collect": {
                "data": data["train"],
                "problems": 8,
                "search": {"algorithm": "mcts", "budget": {"tokens": 100}},
            },
            "learning": {
                "steps_per_round": 2,
                "tokens_per_batch": 512,
                "max_pack_tokens": 512,
                "warmup_steps": 0,
                "policy_learning_rate": 2e-5,
                "kl_beta": 0,
                "tracker": "none",
                **lora,
            },
            "sampler": {"engine": "vllm" if adapter else "auto"},
            "gate": {
                "data": data["dev"],
                **measured,
                "margin": 0.3,
                "greedy_margin": 0.5,
                "value_margin": 1.0,
                "value_answers": 2,
            },
            "held_out": {"data": data["test"], **measured},
        }
    )


def write_sums(path: Path, split: str) -> str:
    """Sums of two digits that no other split has, asked as a chat."""
    path.write_text("".join(f"{json.dumps(row)}\n" for row in _sums(split)))
    return str(path)


def _sums(split: str) -> Iterator[dict[str, Any]]:
    every = [(a, b) for a in range(1, 10) for b in range(1, 10)]
    random.Random(0).shuffle(every)
    for a, b in every[("train", "dev", "test").index(split) :: 3]:
        message = {"role": "user", "content": ASKED.format(a, b)}
        yield {"id": f"{a}+{b}", "messages": [message], "answer": str(a + b), "verifier": "math"}


if __name__ == "__main__":
    if len(sys.argv) < 3 or sys.argv[3:] not in ([], ["--adapter"]):
        sys.exit("usage: python scripts/real_round.py MODEL OUT [--adapter]")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if sys.argv[3:]:
        os.environ["RAMIFY_ENGINE__ADAPTERS"] = "2"
    log_to_stderr()
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), bool(sys.argv[3:])))
