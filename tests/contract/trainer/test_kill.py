"""A trainer that is killed at any point of a round goes on, searches nothing twice, and ends in the same weights."""

from __future__ import annotations

import asyncio
import json
import signal
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from fakes_training import FAST, LEARNING, a_site, small
from ramify_trainer.config import TemperatureConfig
from training_driver import run_rounds

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(1500)]
FIRST_ROUND = (
    "collect:3", "collect", "pull", "train:2", "train", "gate", "publish:written", "publish", "activate", "advance",
    "tidy",
)  # fmt: skip
SECOND_ROUND = ("train:3", "activate")
PROBLEMS = 6
MOVING: dict[str, Any] = {
    "learning": {
        **LEARNING,
        **FAST,
        "imitate": 0.5,
        "replay_rounds": 2,
        "entropy": 0.01,
        "negatives": 0.5,
        "phases": [{"from_round": 2, "objective": "sft", "imitate": 0, "policy_learning_rate": 2e-2}],
    },
}
"""Settings that change from round to round, and depend on the rounds before."""


async def trained(folder: Path, rounds: int, *points: str) -> dict[str, Any]:
    """Kill a trainer at each of `points` in turn, start it again every time, and return what is left."""
    async with a_site(folder) as site:
        config = small(folder, site.url, site.admin_url, **MOVING)
        follows = {"temperature": TemperatureConfig(entropy=0.5)}
        config = config.model_copy(update={"collect": config.collect.model_copy(update=follows)})
        for point in points:
            assert await asyncio.to_thread(run_rounds, config, rounds, point) == -signal.SIGKILL, point
        assert await asyncio.to_thread(run_rounds, config, rounds, None) == 0
        state = json.loads((folder / "state" / "state.json").read_text())
        consumer = await site.log.get_consumer(config.name)
        assert consumer is not None
        return {
            "weights": {
                str(path.relative_to(folder)): sha256(path.read_bytes()).hexdigest()
                for path in sorted((folder / "weights").glob("v*/*/model.safetensors"))
            },
            "folders": sorted(
                str(path.relative_to(folder))
                for path in (folder / "state").glob("round-*/*")
                if path.is_dir()
            ),
            "served": (state["served"], site.context.serving.release),
            "steps": [record["steps"] for record in state["history"]],
            "temperatures": [record["training"]["temperature"] for record in state["history"]],
            "replayed": [record["training"]["lessons/replayed_answers"] for record in state["history"]],
            "cursor": consumer.cursor,
            "searches": await site.searches(),
            "listing": [(row.id, row.state) for row in (await site.context.releases.listing()).rows],
        }


async def test_a_trainer_killed_at_every_point_ends_in_the_same_weights(tmp_path: Path) -> None:
    calm, rough = tmp_path / "calm", tmp_path / "rough"
    undisturbed = await trained(calm, 2)
    killed = await trained(rough, 2, *FIRST_ROUND, *SECOND_ROUND)
    assert undisturbed["searches"] == 2 * PROBLEMS
    assert undisturbed["steps"] == [4, 8]
    assert undisturbed["temperatures"][0] == 1.0 != undisturbed["temperatures"][1]
    assert undisturbed["folders"] == [f"state/round-000{number}/learner" for number in (1, 2)]
    assert len(set(undisturbed["weights"].values())) == 6
    assert killed == undisturbed
