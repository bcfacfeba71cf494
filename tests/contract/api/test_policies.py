"""Several policies of a server: in searches, streams, OpenAI's routes, the log and the metrics; what is refused; one
that goes away."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from fakes import FakePolicy, decode, letters
from fakes_vllm import FakeVllm, write_policy
from models import WORDS
from ramify.api.app import application
from ramify.api.context import assemble
from ramify.engines import Engines, EngineStartFailed, NamedPolicy, OtherPolicyOptions, Tokenizer
from ramify.engines import remote_engine as module
from ramify.search.codec import tree_from_dict
from ramify.search.tree import Tree
from ramify.service.serving import engine_config
from ramify.settings import BadSettings, load
from ramify.treelog import TreeLog

from .world import SERVING, FakeEngines, World, a_world, events, serving

pytestmark = pytest.mark.anyio
BOTH = ["policy", "other"]


def engines_with(**words: Any) -> FakeEngines:
    """Engines that have `other` beside the policy; `words` are around its prompt. It may be given any prompt."""
    other = FakePolicy(letters({"y": 0.5, "z": 0.5}, 3), prompt="")
    options = OtherPolicyOptions(**words) if words else OtherPolicyOptions(url="http://other")
    return FakeEngines(others={"other": NamedPolicy(other, options, None if words else SERVING.release)})


@asynccontextmanager
async def a_world_with(folder: Path, **words: Any) -> AsyncIterator[World]:
    async with a_world(folder, engines_with(**words)) as world:
        yield world


async def searched(world: World, **body: Any) -> tuple[Any, Tree]:
    search = {"policies": BOTH, "budget": {"simulations": 24}, **body.pop("search", {})}
    answer = await world.search(search=search, include_tree=True, seed=1, **body)
    assert answer.status_code == 200, answer.text
    return answer.json(), tree_from_dict(answer.json()["tree_document"])


async def test_a_reply_says_what_each_policy_cost_and_brought(tmp_path: Path) -> None:
    async with a_world_with(tmp_path) as world:
        reply, tree = await searched(world, search={"algorithm": "best_of_n", "budget": {"simulations": 60}})
        parts = reply["usage"]["by_policy"]
        assert list(parts) == BOTH
        assert (
            sum(part["completion_tokens"] for part in parts.values()) == reply["usage"]["completion_tokens"]
        )
        assert all(part["draws"] > 0 and part["closed"] is None for part in parts.values())
        assert parts["policy"]["value"] > parts["other"]["value"] == 0  # the value is the share of `a`
        assert {node.policy for node in tree.nodes[1:]} == set(BOTH)
        assert all(set(node.text) <= {"y", "z", "\n"} for node in tree.nodes if node.policy == "other")
        (entry,) = await world.logged()
        assert entry.tree_id == tree.id


async def test_a_search_that_names_none_is_the_policys_alone(tmp_path: Path) -> None:
    async with a_world_with(tmp_path) as world:
        reply = (await world.search(search={"budget": {"simulations": 8}}, include_tree=True)).json()
        assert reply["usage"]["by_policy"] is None
        assert "by_policy" not in reply["tree_document"]["usage"]
        assert all("policy" not in node for node in reply["tree_document"]["nodes"])
        other = world.engines.others["other"].policy
        assert isinstance(other, FakePolicy)
        assert other.generated == 0


async def test_a_stream_tells_who_drew_each_new_node(tmp_path: Path) -> None:
    async with a_world_with(
        tmp_path,
    ) as world:
        answer = await world.search(
            search={"policies": BOTH, "budget": {"simulations": 24}},
            stream=True,
            stream_options={"nodes": True},
        )
        told = [
            node
            for name, data in events(answer.text)
            if name == "search.progress"
            for node in data["new_nodes"]
        ]
        assert {node["policy"] for node in told if node["id"]} == set(BOTH)
        name, last = events(answer.text)[-1]
        assert name == "search.completed"
        assert set(last["usage"]["by_policy"]) == set(BOTH)


@pytest.mark.parametrize("route", ["chat/completions", "completions"])
async def test_openais_routes_take_the_same_field(tmp_path: Path, route: str) -> None:
    async with a_world_with(tmp_path) as world:
        asked: dict[str, Any] = {
            "model": "letters",
            "search": {"policies": BOTH, "budget": {"simulations": 16}},
        }
        asked |= (
            {"prompt": "?\n"}
            if route == "completions"
            else {"messages": [{"role": "user", "content": "?\n"}]}
        )
        answer = await world.http.post(f"/v1/{route}", json=asked)
        assert answer.status_code == 200, answer.text
        assert set(answer.json()["ramify"]["by_policy"]) == set(BOTH)


async def test_a_policy_with_words_of_its_own_is_given_them_around_the_prompt(tmp_path: Path) -> None:
    async with a_world_with(tmp_path, before="Be brief. ", after="Think.\n") as world:
        _, tree = await searched(world)
        assert tree.prompts is not None
        assert decode(tree.prompts["other"]) == "Be brief. ?\nThink.\n"
        assert decode(tree.prompt_tokens) == "?\n"
        other = world.engines.others["other"].policy
        assert isinstance(other, FakePolicy)
        assert all(text.startswith("Be brief. ?\nThink.\n") for text, _, _ in other.requests)


async def test_a_system_message_stands_in_place_of_the_requests(tmp_path: Path) -> None:
    turns = [{"role": "system", "content": "Old."}, {"role": "user", "content": "?\n"}]
    async with a_world_with(tmp_path, system="New.", after="!\n") as world:
        world.engines.policy.prompt = "Old.?\n"
        body = {"messages": turns, "prompt": None}
        _, tree = await searched(world, **body)
        assert tree.prompts is not None
        assert decode(tree.prompts["other"]) == "New.?\n!\n"


async def refused(world: World, **body: Any) -> Any:
    search = {"policies": BOTH, "budget": {"simulations": 4}, **body.pop("search", {})}
    answer = await world.search(search=search, **body)
    assert answer.status_code == 400, answer.text
    return answer.json()["error"]


@pytest.mark.parametrize(
    ("words", "body", "param", "says"),
    [
        ({}, {"search": {"policies": ["policy", "away"]}}, "search.policies", "'away' is none of policy, other"),
        ({}, {"search": {"policies": []}}, "search.policies", "at least 1"),
        ({}, {"search": {"policies": ["Policy"]}}, "search.policies.0", "pattern"),
        ({}, {"search": {"policies": ["policy"] * 9}}, "search.policies", "at most 8"),
        ({}, {"search": {"expand": "step", "action": {"kind": "token"}}}, "search.policies", "exact probabilities"),
        ({"system": "New."}, {}, "search.policies", "'other' has a system message"),
        ({"after": "x" * 600}, {}, "sampling.max_tokens", "prompt tokens of the policy 'other' leave room for"),
    ],
)  # fmt: skip
async def test_what_cannot_be_is_refused_by_name(
    tmp_path: Path, words: dict[str, Any], body: dict[str, Any], param: str, says: str
) -> None:
    async with a_world_with(tmp_path, **words) as world:
        error = await refused(world, **body)
        assert error["param"] == param
        assert says in error["message"]


async def test_a_branch_has_no_prompt_to_put_words_around(tmp_path: Path) -> None:
    async with a_world_with(tmp_path, before="Be brief. ") as world:
        _, tree = await searched(world)
        node = next(node for node in tree.nodes if node.depth == 1)
        answer = await world.http.post(
            f"/v1/trees/{tree.id}/branch", json={"node": node.id, "search": {"policies": BOTH}}
        )
        assert answer.status_code == 400
        assert "goes on inside an answer" in answer.json()["error"]["message"]


async def test_the_metrics_count_by_policy_and_a_policy_that_fails(tmp_path: Path) -> None:
    async with a_world_with(tmp_path) as world:
        other = world.engines.others["other"].policy
        assert isinstance(other, FakePolicy)
        other.die_after = 1
        reply, _ = await searched(world)
        closed = reply["usage"]["by_policy"]["other"]["closed"]
        assert closed == "EngineDead: the fake engine was told to die"
        assert reply["status"] == "complete"
        text = (await world.http.get("/metrics")).text
        tokens = reply["usage"]["by_policy"]["policy"]["completion_tokens"]
        assert f'ramify_policy_tokens_total{{policy="policy"}} {float(tokens)}' in text
        assert 'ramify_policy_closed_total{policy="other"} 1.0' in text
        assert 'ramify_policy_closed_total{policy="policy"} 0.0' in text


async def test_the_metrics_count_the_policies_of_a_search_that_goes_on_once(tmp_path: Path) -> None:
    async with a_world_with(tmp_path) as world:
        other = world.engines.others["other"].policy
        assert isinstance(other, FakePolicy)
        other.die_after = 1
        first, _ = await searched(world, search={"early_stop": "off"})
        more = {"budget": {"simulations": 48}}
        whole = (await world.http.post(f"/v1/search/{first['id']}/continue", json=more)).json()["usage"]
        drawn = whole["by_policy"]["policy"]
        assert drawn["draws"] > first["usage"]["by_policy"]["policy"]["draws"]
        text = (await world.http.get("/metrics")).text
        tokens = float(drawn["completion_tokens"])
        assert f'ramify_policy_tokens_total{{policy="policy"}} {tokens}' in text
        assert f'ramify_policy_draws_total{{policy="policy"}} {float(drawn["draws"])}' in text
        assert 'ramify_policy_closed_total{policy="other"} 1.0' in text


# -- on other servers -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_policy(tmp_path_factory.mktemp("policy"))


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_WAIT", 0.0)


@asynccontextmanager
async def two_servers(
    folder: Path, log: Path, other: FakeVllm, **options: Any
) -> AsyncIterator[tuple[Engines, httpx.AsyncClient]]:
    """A server of ours whose policy and whose `other` are on servers of their own."""
    own = FakeVllm(Tokenizer(folder))
    async with serving(own.app()) as first, serving(other.app()) as second:
        settings = load(
            policy=str(folder),
            policy_server={"url": first},
            policies={"other": {"url": second, "retries": 0, **options}},
            log=f"sqlite:///{log}/trees.db",
        )
        async with (
            await Engines.start(engine_config(settings)) as engines,
            await TreeLog.open(settings.log) as trees,
        ):
            context = assemble(settings, engines, trees)
            transport = httpx.ASGITransport(application(context), raise_app_exceptions=False)
            base = "http://127.0.0.1:8000"
            async with httpx.AsyncClient(transport=transport, base_url=base, timeout=30) as http:
                yield engines, http
            await context.searches.drain(0)


ASK = {
    "prompt": "1 1",
    "search": {"algorithm": "best_of_n", "policies": BOTH, "budget": {"simulations": 16}},
    "sampling": {"max_tokens": 6},
    "include_tree": True,
}


async def test_two_servers_draw_for_one_search(folder: Path, tmp_path: Path) -> None:
    other = FakeVllm(Tokenizer(folder), names=("elsewhere",))
    async with two_servers(folder, tmp_path, other) as (_, http):
        other.bodies.clear()
        reply = (await http.post("/v1/search", json=ASK)).json()
        assert reply["status"] == "complete", reply["error"]
        tree = tree_from_dict(reply["tree_document"])
        assert {(node.policy, node.release) for node in tree.nodes[1:]} == {
            ("policy", "remote"), ("other", "elsewhere"),
        }  # fmt: skip
        assert tree.usage.by_policy is not None
        assert len(other.bodies) == tree.usage.by_policy["other"].draws


async def test_one_that_is_away_is_left_and_asked_again_by_the_next_search(
    folder: Path, tmp_path: Path
) -> None:
    other = FakeVllm(Tokenizer(folder))
    async with two_servers(folder, tmp_path, other) as (engines, http):
        other.away = 1
        first = (await http.post("/v1/search", json=ASK)).json()
        assert first["status"] == "complete", first["error"]
        assert first["usage"]["by_policy"]["other"]["closed"].startswith("PolicyUnreachable: ")
        assert first["usage"]["by_policy"]["policy"]["draws"] >= 16 - 8
        await engines.probe(5)  # which the other's absence does not concern
        second = (await http.post("/v1/search", json=ASK)).json()
        assert second["usage"]["by_policy"]["other"]["closed"] is None
        assert second["usage"]["by_policy"]["other"]["draws"] > 0


async def test_one_that_is_away_at_the_start_is_had_once_it_is_there(folder: Path, tmp_path: Path) -> None:
    other = FakeVllm(Tokenizer(folder), names=("elsewhere",))
    other.away = 1_000_000
    async with two_servers(folder, tmp_path, other) as (engines, http):
        first = (await http.post("/v1/search", json=ASK)).json()
        assert first["status"] == "complete", first["error"]
        assert first["usage"]["by_policy"]["other"]["closed"].startswith("PolicyUnreachable: ")
        assert "check the setting policies.other.url" in first["usage"]["by_policy"]["other"]["closed"]
        alone = await http.post("/v1/search", json=ASK | {"search": ASK["search"] | {"policies": ["other"]}})
        assert alone.status_code == 503
        assert "check the setting policies.other.url" in alone.json()["error"]["message"]
        await engines.probe(5)
        assert (await http.get("/readyz")).status_code == 200
        other.away = 0
        second = (await http.post("/v1/search", json=ASK)).json()
        assert second["usage"]["by_policy"]["other"]["closed"] is None
        tree = tree_from_dict(second["tree_document"])
        assert {node.release for node in tree.nodes[1:] if node.policy == "other"} == {"elsewhere"}
        assert engines.others["other"].longest is not None


class OneWordApart(Tokenizer):
    """Spells one token otherwise."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.hf = Apart(self.hf)


async def test_one_that_comes_late_with_another_tokenizer_is_left_by_every_search(
    folder: Path, tmp_path: Path
) -> None:
    other = FakeVllm(OneWordApart(folder))
    other.away = 1_000_000
    async with two_servers(folder, tmp_path, other) as (_, http):
        other.away = 0
        for _ in range(2):
            reply = (await http.post("/v1/search", json=ASK)).json()
            assert reply["status"] == "complete", reply["error"]
            assert "otherwise than the policy served" in reply["usage"]["by_policy"]["other"]["closed"]
            assert reply["usage"]["by_policy"]["other"]["draws"] == 0


async def test_another_tokenizer_is_found_at_the_start(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(
        EngineStartFailed, match=r"spells its tokens 0 to .* otherwise than the policy served"
    ):
        async with two_servers(folder, tmp_path, FakeVllm(OneWordApart(folder))):
            pass


async def test_an_error_of_its_server_names_its_own_table(folder: Path, tmp_path: Path) -> None:
    class SplitWords(Tokenizer):
        """Cuts texts into other tokens."""

        def encode_continuation(self, text: str) -> list[int]:
            return list(range(len(text.split())))

    with pytest.raises(EngineStartFailed, match=r"another tokenizer .*\(setting policies\.other\.url\)"):
        async with two_servers(folder, tmp_path, FakeVllm(SplitWords(folder))):
            pass
    with pytest.raises(EngineStartFailed, match=r"policies\.other\.key_file"):
        async with two_servers(folder, tmp_path, FakeVllm(Tokenizer(folder)), key_file=tmp_path / "none"):
            pass


class Apart:
    """A tokenizer whose third token has another text."""

    def __init__(self, hf: Any) -> None:
        self._hf = hf

    def __getattr__(self, name: str) -> Any:
        return getattr(self._hf, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._hf(*args, **kwargs)

    def decode(self, tokens: Any, **kwargs: Any) -> str:
        return str(self._hf.decode(tokens, **kwargs)).replace(WORDS[2], "another")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"policy": {"before": "x"}}, "'policy' is the name of the one served"),
        ({"other": {}}, "is the policy served: give release, url, system, before or after"),
        ({"other": {"url": "http://a", "release": "r"}}, "give release or url, not both"),
        ({"other": {"before": "x", "served": "y"}}, "served has no effect without url"),
        ({"Other": {"before": "x"}}, "policies.Other"),
    ],
)
def test_settings_that_cannot_be_are_named(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(BadSettings, match=problem):
        load(policies=options)


def test_an_adapter_needs_a_release_that_it_stands_on(folder: Path) -> None:
    settings = load(policy=str(folder), policies={"other": {"release": str(folder)}})
    with pytest.raises(
        BadSettings, match=r"policies\.other\.release: an adapter stands on a release's weights"
    ):
        engine_config(settings)
    whole = load(policies={"other": {"release": str(engine_config(load()).policy.parent)}})
    with pytest.raises(BadSettings, match=r"policies\.other\.release: .* is no LoRA adapter"):
        engine_config(whole)
