"""Measure what a value head costs its policy's engine: tokens a second of draws, with the head and without.

Two engines hold the same policy, one of them with a head of random weights, which costs what a trained one does. They
take turns, so that whatever else the machine does meets both alike; the figure is the median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from safetensors.torch import save_file

from ramify.engines import EngineConfig, EngineOptions, Engines
from ramify.engines.model_folders import read_model_folder
from ramify.search.records import Sampling
from ramify.weights import shipped

EACH = 6
"""Draws of each worker in one round."""


async def main(policy: Path, prompt: str, draws: Sequence[int], rounds: int, threads: int) -> None:
    """Write, for each number of draws at once, tokens a second without and with the head, and their ratio."""
    options = EngineOptions(threads=threads)
    with tempfile.TemporaryDirectory() as folder:
        head = Path(folder) / "head.safetensors"
        width = read_model_folder(policy, "policy").hidden_size or 0
        save_file({"weight": torch.randn(1, width) / 8, "bias": torch.zeros(1)}, head)
        plain = await Engines.start(EngineConfig(policy, options=options))
        judging = await Engines.start(EngineConfig(policy, options=options, value_head=head))
    try:
        for at_once in draws:
            measured = await _rounds([plain, judging], prompt, at_once, rounds)
            without, with_it = (
                statistics.median(one.speed for one in side) for side in zip(*measured, strict=True)
            )
            speed = statistics.median(b.speed / a.speed for a, b in measured)
            work = statistics.median(b.work / a.work for a, b in measured)
            sys.stdout.write(
                f"{at_once} at once: {without:,.0f} tokens/s, with the head {with_it:,.0f}; "
                f"ratio {speed:.3f}, of processor seconds a token {work:.3f}\n"
            )
            sys.stdout.flush()
    finally:
        await asyncio.gather(plain.close(), judging.close())


@dataclass(frozen=True, slots=True)
class Measured:
    """One round of one engine."""

    speed: float
    """Tokens a second."""
    work: float
    """Processor seconds of engine and server for each token; a busy machine changes them little."""


async def _rounds(
    both: Sequence[Engines], prompt: str, at_once: int, rounds: int
) -> list[tuple[Measured, Measured]]:
    """Measure both in turn; the one that begins changes."""
    measured = []
    for number in range(rounds + 1):
        order = (0, 1) if number % 2 else (1, 0)
        done = {i: await _round(both[i], prompt, at_once, number) for i in order}
        measured.append((done[0], done[1]))
    return measured[1:]  # the first warms up


async def _round(engines: Engines, prompt: str, at_once: int, number: int) -> Measured:
    prefix, sampling = engines.tokenizer.encode(prompt), Sampling(max_tokens=64)

    async def worker(first: int) -> int:
        tokens = 0
        for seed in range(first, first + EACH):
            (one,) = await engines.policy.sample(prefix, sampling, [seed])
            tokens += len(one.token_ids)
        return tokens

    began, before = time.monotonic(), _work(engines)
    seeds = range(number * at_once * EACH, (number + 1) * at_once * EACH, EACH)
    tokens = sum(await asyncio.gather(*map(worker, seeds)))
    return Measured(tokens / (time.monotonic() - began), (_work(engines) - before) / tokens)


def _work(engines: Engines) -> float:
    processes = (psutil.Process(pid).cpu_times() for pid in engines.pids)
    return time.process_time() + sum(times.user + times.system for times in processes)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--policy", type=Path, default=shipped() / "policy", help="model directory")
    parser.add_argument("--prompt", default="3 5 7 8 to 24\n")
    parser.add_argument("--draws", type=int, nargs="+", default=[8, 32], help="draws at once")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1, help="of each engine")
    arguments = parser.parse_args()
    asyncio.run(main(**vars(arguments)))
