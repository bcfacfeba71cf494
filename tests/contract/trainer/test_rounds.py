"""Whole rounds against a whole server over HTTP: its searches are the fake language's, its releases real models."""

from __future__ import annotations

import itertools
import json
import logging
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from fakes_training import GATE, LEARNING, PROMPT, Site, a_site, small, write_problems, write_release
from ramify.weights import load_release
from ramify.weights.tensors import tensors_of
from ramify_client import AsyncAdmin, AsyncClient, ConnectionFailed
from ramify_trainer.errors import TrainerError
from ramify_trainer.gate.decision import Comparison, GateDecision
from ramify_trainer.gate.value_scores import end_values
from ramify_trainer.learning.labels import OutcomeWeights
from ramify_trainer.learning.learner import Learner
from ramify_trainer.learning.networks import load_judge
from ramify_trainer.loop.round_trees import label_trees, read_trees
from ramify_trainer.loop.rounds import Loop

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300)]
HARM = Comparison("incumbent", "mean", -0.2, -0.1, 0.01)


@asynccontextmanager
async def a_loop(folder: Path, site: Site, **changes: Any) -> AsyncIterator[Loop]:
    config = small(folder, site.url, site.admin_url, **changes)
    async with AsyncClient(site.url) as client, AsyncAdmin(site.admin_url) as admin:
        loop = Loop(config, client, admin, lambda *_: None)
        with loop.worker:
            await loop.start()
            yield loop


async def test_a_round_ends_in_a_better_known_server_and_a_moved_cursor(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with a_site(tmp_path) as site, a_loop(tmp_path, site) as loop:
        with caplog.at_level(logging.INFO, "ramify_trainer"):
            record = await loop.puller.holding(loop.round())
        assert (record.trees, record.steps, record.release, record.promoted) == (6, 4, "v000002", True)
        assert site.engines.loads == ["v000002"]
        assert (loop.puller.cursor, loop.puller.backlog) == (6, 0)
        listing = await loop.client.releases()
        (row,) = [row for row in listing.data if row.id == "v000002"]
        assert (listing.active, row.state) == ("v000002", "promoted")
        assert row.figures["reason"].startswith("promoted: at worst ")
        lines = [line for line in caplog.messages if line.startswith("round 1 ")]
        assert [line.split()[2] for line in lines] == list(record.seconds)
        assert "trees=6 steps=4" in lines[2]


async def test_a_chat_model_with_tied_embeddings_is_searched_gated_published_and_served(
    tmp_path: Path,
) -> None:
    data = write_problems(tmp_path / "chat.jsonl", chat=True)
    chat = {"collect": {"data": data, "problems": 6}, "gate": {**GATE, "data": data}}
    async with a_site(tmp_path) as site, a_loop(tmp_path, site, **chat) as loop:
        record = await loop.round()
        assert (record.trees, record.result, record.release) == (6, "promoted", "v000002")
        assert (await loop.client.version()).release == "v000002"
        tensors = [tensors_of(tmp_path / "weights" / id_ / "policy") for id_ in ("v000001", "v000002")]
        assert tensors[0].keys() == tensors[1].keys()
        assert "lm_head.weight" not in tensors[1]


async def test_a_round_reaches_a_server_that_shares_no_folder_with_the_trainer(tmp_path: Path) -> None:
    elsewhere = {
        "weights": tmp_path / "elsewhere",
        "objects": {"releases": f"file://{tmp_path}/bucket"},
        "learning": LEARNING,
    }
    async with (
        a_site(tmp_path, objects=elsewhere["objects"]) as site,
        a_loop(tmp_path, site, **elsewhere) as loop,
    ):
        assert loop.store is not None
        assert (await loop.round()).result == "promoted"
        assert loop.store.ids() == ["v000001", "v000002"]
        assert (await loop.client.version()).release == "v000002"
        fetched, written = (load_release(tmp_path / root / "v000002") for root in ("weights", "elsewhere"))
        assert fetched.manifest == written.manifest
        other = write_release(tmp_path / "other", seed=1)
        shutil.copytree(other.path, tmp_path / "other/v000003")
        manifest = tmp_path / "other/v000003/manifest.json"
        manifest.write_text(manifest.read_text().replace('"v000001"', '"v000003"'))
        competing, faster = load_release(tmp_path / "other/v000003"), loop.store

        def meanwhile(phase: str, *_: int) -> None:
            if phase == "probed":
                faster.publish(competing)

        loop.tell = meanwhile
        assert (await loop.round()).release == "v000004", "another trainer was faster"
        assert not (tmp_path / "elsewhere/v000003").exists()
        assert loop.store.ids() == ["v000001", "v000002", "v000003", "v000004"]
        assert (await loop.client.version()).release in ("v000002", "v000004")


@pytest.mark.parametrize(("train_value", "loads"), [(False, []), (True, ["v000001"] * 2)])
async def test_adapters_are_trained_gated_published_served_and_trained_on(
    tmp_path: Path, train_value: bool, loads: list[str]
) -> None:
    lora = {"rank": 4, "alpha": 8, "publish": "adapter"}
    learning = LEARNING | {"policy_learning_rate": 1e-2, "train_value": train_value, "lora": lora}
    async with (
        a_site(tmp_path, engine={"adapters": 2}) as site,
        a_loop(tmp_path, site, learning=learning) as loop,
    ):
        records = [await loop.round(), await loop.round()]
        assert [record.result for record in records] == ["promoted", "promoted"]
        assert (await loop.client.version()).release == "v000003"
        releases = [load_release(tmp_path / "weights" / id_) for id_ in ("v000002", "v000003")]
        assert [release.base and release.base.id for release in releases] == ["v000001", "v000001"]
        assert not any((release.path / "policy").exists() for release in releases)
        assert [(release.path / "value").exists() for release in releases] == [train_value] * 2
        assert site.engines.loads == loads


async def test_a_value_head_on_the_trunk_is_trained_gated_published_served_and_trained_on(
    tmp_path: Path,
) -> None:
    write_release(tmp_path / "base", value="trunk")
    gate = {**GATE, "data": write_problems(tmp_path / "gate.jsonl"), "max_tokens": 60}
    async with a_site(tmp_path) as site, a_loop(tmp_path, site, gate=gate) as loop:
        first, second = await loop.round(), await loop.round()
        assert [(r.result, r.release) for r in (first, second)] == [
            ("promoted", "v000002"),
            ("promoted", "v000003"),
        ]
        assert site.engines.loads == ["v000002", "v000003"]
        assert (await loop.client.version()).release == "v000003"
        releases = [load_release(tmp_path / "weights" / id_) for id_ in ("v000001", "v000002", "v000003")]
        heads = [load_file(release.value_head) for release in releases]
        assert all(not torch.equal(a["weight"], b["weight"]) for a, b in itertools.pairwise(heads))
        assert {r.manifest.value for r in releases} == {"trunk"}
        assert 0 < second.gate["value_brier"] < 1
        probes = releases[2].manifest.canary
        judge = load_judge(releases[2].policy_path, releases[2].path / "value")
        values = end_values(judge, [[*probe.prompt, *probe.continuation] for probe in probes])
        assert [probe.value for probe in probes] == pytest.approx(values, abs=1e-5)


async def test_a_release_is_held_against_its_hashes_once_a_run(tmp_path: Path) -> None:
    async with a_site(tmp_path) as site, a_loop(tmp_path, site) as loop:
        with (tmp_path / "weights" / "v000001" / "policy" / "model.safetensors").open("r+b") as file:
            file.seek(-4, 2)
            file.write(b"\0\0\0\0")  # a hash of the file would not be the manifest's any more
        assert (await loop.round()).result == "promoted"


async def test_the_canary_of_a_release_that_is_written_is_not_computed_again(tmp_path: Path) -> None:
    async with (
        a_site(tmp_path) as site,
        a_loop(tmp_path, site) as loop,
        AsyncAdmin("http://127.0.0.1:9", max_retries=0) as away,
    ):
        there, told = loop.admin, []

        def tell(phase: str, *_: int) -> None:
            told.append(phase)
            if phase == "probed":
                loop.admin = away  # the release is written then, and not recorded

        loop.tell = tell
        with pytest.raises(ConnectionFailed):
            await loop.round()
        assert "probed" in told
        assert (tmp_path / "weights" / "v000002" / "READY").exists()
        loop.admin = there
        told.clear()
        assert (await loop.round()).result == "promoted"
        assert "probed" not in told


async def test_a_candidate_that_the_server_would_refuse_is_not_gated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_site(tmp_path) as site, a_loop(tmp_path, site) as loop:
        changed = load_release(tmp_path / "weights" / "v000001").path / "policy" / "generation_config.json"
        export = Learner.export

        def careless(learner: Learner, folder: Path, like: Path) -> None:
            export(learner, folder, like)
            (folder / "policy" / changed.name).unlink()

        monkeypatch.setattr(Learner, "export", careless)
        with pytest.raises(
            TrainerError, match=r"the server would refuse round 1: .*generation_config\.json is missing"
        ):
            await loop.round()
        assert (loop.state.phase, loop.state.current.release) == ("train", None)
        monkeypatch.undo()
        assert (await loop.round()).result == "promoted"


async def test_a_verdict_on_a_tree_of_an_earlier_round_is_learned_from_once(tmp_path: Path) -> None:
    async with a_site(tmp_path) as site, a_loop(tmp_path, site, collect={"problems": 0}) as loop:
        trees = [await searched(loop.client) for _ in range(3)]
        first = await loop.round()
        await loop.client.trees.feedback(trees[1], 0.25)
        second, third = await loop.round(), await loop.round()
        assert [(r.trees, r.verdicts, r.revisited) for r in (first, second, third)] == [
            (3, 0, 0),
            (1, 1, 1),
            (0, 0, 0),
        ]
        assert (second.steps > first.steps, third.result) == (True, "nothing")
        people = OutcomeWeights(verifier=0.0)
        (again,) = await label_trees(
            tmp_path / "state" / "round-0002" / "trees.ndjson", people, loop.state.staleness
        )
        assert (again.tree.id, set(again.outcomes.values())) == (trees[1], {0.25})
        assert loop.puller.cursor == 4


async def test_a_later_round_has_its_phase_and_imitates_what_an_earlier_one_drew(tmp_path: Path) -> None:
    phases = [{"from_round": 2, "objective": "sft", "imitate": 0}]
    learning = {**LEARNING, "imitate": 0.5, "replay_rounds": 1, "phases": phases}
    async with a_site(tmp_path) as site, a_loop(tmp_path, site, learning=learning) as loop:
        first = await loop.round()
        fewer = {"problems": 1, "search": {"algorithm": "best_of_n", "budget": {"simulations": 1}}}
        loop.config = loop.config.model_copy(update={"collect": loop.config.collect.model_copy(update=fewer)})
        second = await loop.round()
        drawn, again = (r.training["lessons/replayed_answers"] for r in (first, second))
        assert (drawn, again > 0) == (0, True)
        assert [r.training["phases_begun"] for r in (first, second)] == [0, 1]
        assert ("policy/ratio_mean" in first.training, "policy/ratio_mean" in second.training) == (
            True,
            False,
        )
        (row,) = [row for row in (await loop.client.releases()).data if row.id == second.release]
        assert row.figures["training"]["lessons/right_answers"] >= again


async def test_a_verdict_on_a_tree_that_is_gone_is_passed_over(tmp_path: Path) -> None:
    async with a_site(tmp_path) as site, a_loop(tmp_path, site, collect={"problems": 0}) as loop:
        tree = await searched(loop.client)
        await loop.round()
        await loop.client.trees.feedback(tree, 1.0)
        reader = loop.puller.read()
        await anext(reader)
        await reader.aclose()
        await loop.client.trees.delete(tree)
        assert await loop.puller.tree_with_feedback(tree) == []


async def searched(client: AsyncClient) -> str:
    """The id of a tree of somebody else's."""
    task = {"name": "exact", "problem": {"answer": "a"}}
    return (await client.search(PROMPT, task=task, search={"budget": {"simulations": 3}})).tree.id


async def test_the_loop_goes_on_from_the_release_that_an_operator_went_back_to(tmp_path: Path) -> None:
    async with a_site(tmp_path) as site, a_loop(tmp_path, site, rounds=3) as loop:
        await loop.round()
        await loop.round()
        assert loop.state.incumbent == "v000003"
        await loop.admin.rollback()
        third = await loop.round()
        (row,) = [row for row in (await loop.client.releases()).data if row.id == "v000004"]
        assert (row.parent, third.steps, loop.state.served[-1]) == ("v000002", 8, "v000004")


async def test_learners_of_long_ago_are_removed_and_training_then_begins_anew(tmp_path: Path) -> None:
    async with a_site(tmp_path) as site, a_loop(tmp_path, site, rounds=4, keep_learners=1) as loop:
        await loop.round()
        left = loop.folder / "round-0001" / "policy"
        left.mkdir()  # as a kill before the removal leaves it
        await loop.round()
        loop.state.best = loop.state.served[0]
        await loop.round()
        assert [p.parent.name for p in loop.folder.glob("round-*/learner")] == ["round-0003"]
        assert not left.exists()
        await loop.admin.rollback()
        fourth = await loop.round()
        (row,) = [row for row in (await loop.client.releases()).data if row.id == "v000005"]
        assert (row.parent, fourth.steps) == ("v000003", 4)


@pytest.mark.parametrize(
    ("optimizer", "said"),
    [("adamw_8bit", 'moments of the optimizer "adamw_8bit"'), (None, "holds no checkpoint")],
)
async def test_a_learner_that_training_cannot_go_on_from_ends_the_run_before_anything_is_searched(
    tmp_path: Path, optimizer: str | None, said: str
) -> None:
    async with a_site(tmp_path) as site:
        async with a_loop(tmp_path, site) as loop:
            await loop.round()
            facts, searches = loop.folder / str(loop.state.learner) / "learner.json", await site.searches()
        if optimizer is None:
            facts.unlink()
        else:
            facts.write_text(json.dumps({**json.loads(facts.read_text()), "optimizer": optimizer}))
        with pytest.raises(TrainerError, match=f"the run loop cannot go on: .*{said}"):
            async with a_loop(tmp_path, site):
                pass
        assert await site.searches() == searches


async def test_weights_that_cannot_be_trained_on_end_the_round_and_not_the_run(tmp_path: Path) -> None:
    async with a_site(tmp_path) as site, a_loop(tmp_path, site) as loop:
        steep = loop.config.learning.model_copy(update={"policy_learning_rate": 1e30})
        loop.config = loop.config.model_copy(update={"learning": steep})
        record = await loop.round()
        assert record.reason.startswith("not trained: the gradient's norm is nan")
        assert (record.result, loop.puller.cursor, site.context.serving.release) == ("nothing", 6, "v000001")


async def test_a_cursor_that_the_log_has_forgotten_goes_on_where_the_run_was(tmp_path: Path) -> None:
    async with a_site(tmp_path) as site:
        async with a_loop(tmp_path, site, collect={"problems": 0}) as loop:
            await searched(loop.client)
            await loop.round()
            await site.forget(loop.config.name)
        async with a_loop(tmp_path, site, collect={"problems": 0}) as loop:
            assert loop.puller.cursor == 1
            await searched(loop.client)
            assert (await loop.round()).trees == 1
            loop.state.upto = 1000
            loop.state.save(loop.folder / "state.json")
        async with a_loop(tmp_path, site, collect={"problems": 0}) as loop:
            assert (loop.puller.cursor, loop.state.upto) == (2, 2), "a shorter log is another log"


async def test_the_trees_of_a_rejected_round_are_learned_from_until_a_candidate_is_served_and_then_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_site(tmp_path) as site, a_loop(tmp_path, site, collect={"problems": 0}, rounds=5) as loop:
        ids = [await searched(loop.client) for _ in range(3)]
        monkeypatch.setattr("ramify_trainer.gate.candidate.decide", lambda *_: GateDecision(False, (HARM,)))
        first = await loop.round()
        await loop.client.trees.feedback(ids[0], 0.25)
        ids.append(await searched(loop.client))
        second = await loop.round()
        monkeypatch.undo()
        third, fourth = await loop.round(), await loop.round()
        records = (first, second, third, fourth)
        assert [(r.result, r.trees, r.carried, r.revisited) for r in records] == [
            ("rejected", 3, 0, 0),
            ("rejected", 4, 3, 0),
            ("promoted", 4, 4, 0),
            ("nothing", 0, 0, 0),
        ]
        trees, verdicts = read_trees(tmp_path / "state" / "round-0003" / "trees.ndjson")
        assert ([tree.id for tree in trees], [f.outcome for f in verdicts[ids[0]]]) == (ids, [0.25])
        assert loop.puller.cursor == 5


async def test_trees_are_carried_for_so_many_rounds_and_no_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learning = {"learning": {**LEARNING, "max_staleness": 1}}
    async with (
        a_site(tmp_path) as site,
        a_loop(tmp_path, site, collect={"problems": 0}, rounds=5, **learning) as loop,
    ):
        monkeypatch.setattr("ramify_trainer.gate.candidate.decide", lambda *_: GateDecision(False, (HARM,)))
        counts = []
        for _ in range(3):
            await searched(loop.client)
            counts.append((await loop.round()).trees)
        assert counts == [1, 2, 2]
