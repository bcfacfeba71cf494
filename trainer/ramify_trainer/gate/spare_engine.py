"""Answers drawn by vLLM in a spare engine: a process that is started for one measurement, and ended after it.

It has the memory that training took a moment ago, and what is served goes on meanwhile. (2026-11-28: the server was not
asked to measure the candidate. Its engines would have to be emptied and reloaded twice, with nothing served for as long
as a gate takes, and a trainer's mistake could take the server down.) The process speaks as `ramify.engines.offline`
says, so that the trainer imports neither vLLM nor the server's engines.
"""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import IO, Any

import torch
from transformers import AutoConfig

from ramify.launcher import child_process
from ramify.weights import adapter_rank
from ramify_trainer.config import SamplerConfig
from ramify_trainer.errors import TrainerError
from ramify_trainer.gate.unserved import AnswerJob, device
from ramify_trainer.progress import Progress

COMMAND = (sys.executable, "-m", "ramify.engines.offline")
LOOK_EVERY = 1.0
"""Seconds between two looks at the clock, and at whether the work was cancelled, while the process says nothing."""
TAIL = 15
"""Lines of its output that an error shows."""
FEWEST_ADAPTERS = 2
"""The least that `engine.adapters` may be if it is not 0."""
FREE_SHARE = 0.9
"""Share of a card's free memory that the engine takes."""


def installed() -> bool:
    """Return whether vLLM can be started here."""
    return find_spec("vllm") is not None


def draw(
    job: AnswerJob,
    config: SamplerConfig,
    told: Progress,
    check: Callable[[], None],
    command: tuple[str, ...] = COMMAND,
) -> list[list[list[int]]]:
    """Return the answers by prompt, the greedy one first. told: called whenever the engine has got on, with prompts
    done, and of how many. check: called at least every `LOOK_EVERY` seconds; what it raises ends the drawing.

    Raises `TrainerError` if the engine does not start, dies or stops moving; and what `told` and `check` raise."""
    with tempfile.TemporaryFile() as asked, tempfile.TemporaryFile() as said:
        asked.write(json.dumps(_request(job, config)).encode())
        asked.seek(0)
        try:
            with child_process(command, asked, subprocess.PIPE, said) as child:
                told(0, len(job.prompts))
                return _answers(child, config, told, check)
        except _Failed as error:
            raise TrainerError(
                f"the spare engine that measures {job.policy} {error}. The round goes on from here at the next start; "
                f'sampler.engine = "transformers" does without it.{_tail(said)}'
            ) from None


class _Failed(Exception):
    """The reason, to follow `the engine`."""


def _request(job: AnswerJob, config: SamplerConfig) -> Mapping[str, Any]:
    """Return an `OfflineJob`."""
    options: dict[str, Any] = {
        "compile": config.compile,
        "start_timeout": config.start_seconds,
        "max_model_len": _room(job),
    }
    if job.adapter is not None:
        options |= {"adapters": FEWEST_ADAPTERS, "adapter_rank": adapter_rank(job.adapter)}
    if device().type == "cuda":
        torch.cuda.empty_cache()  # what training has kept
        free, total = torch.cuda.mem_get_info()
        options["policy_gpu_fraction"] = config.gpu_fraction or FREE_SHARE * free / total
    return {
        "policy": str(job.policy.absolute()),
        "adapter": None if job.adapter is None else str(job.adapter.absolute()),
        "draws": [
            {"prompt": list(prompt), "seeds": list(seeds)}
            for prompt, seeds in zip(job.prompts, job.seeds, strict=True)
        ],
        "max_tokens": job.max_tokens,
        "ends": sorted(job.ends),
        "options": options,
    }


def _room(job: AnswerJob) -> int:
    """Return the tokens of the longest prompt and answer, within the model's context: the KV cache must hold them."""
    needed = max(map(len, job.prompts)) + job.max_tokens
    text = AutoConfig.from_pretrained(job.policy, local_files_only=True).get_text_config()
    return min(needed, getattr(text, "max_position_embeddings", None) or needed)


def _answers(
    child: subprocess.Popen[bytes],
    config: SamplerConfig,
    told: Progress,
    check: Callable[[], None],
) -> list[list[list[int]]]:
    assert child.stdout is not None
    lines, steps = _lines(child.stdout), None
    patience, deadline = config.start_seconds, time.monotonic() + config.start_seconds
    while True:
        check()
        try:
            line = lines.get(timeout=LOOK_EVERY)
        except queue.Empty:
            line = b"{}"
        if line is None:
            raise _Failed(f"ended with status {child.wait()}")
        event = json.loads(line)
        if "error" in event:
            raise _Failed(f"failed: {event['error']}")
        if "answers" in event:
            answers: list[list[list[int]]] = event["answers"]
            return answers
        if event.get("steps", steps) != steps:
            steps, patience = event["steps"], config.stall_seconds
            deadline = time.monotonic() + patience
            told(event["done"], event["total"])
        if time.monotonic() > deadline:
            raise _Failed(f"{'was not ready' if steps is None else 'made no step'} within {patience:g} s")


def _lines(stream: IO[bytes]) -> queue.SimpleQueue[bytes | None]:
    """Return a queue of a stream's lines, and of None at its end. A thread reads it, until the process ends."""
    lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()

    def read() -> None:
        with stream:
            for line in stream:
                lines.put(line)
        lines.put(None)

    threading.Thread(target=read, name="spare-engine", daemon=True).start()
    return lines


def _tail(said: IO[bytes]) -> str:
    said.seek(0)
    last = said.read().decode(errors="replace").splitlines()[-TAIL:]
    return "".join(f"\n  {line}" for line in last)
