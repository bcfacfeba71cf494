"""Evaluation and `ramify search` against a whole server around a fake model."""

import asyncio
import json
import sys
import tomllib
from dataclasses import replace
from itertools import product

import httpx
import pytest
from typer.testing import CliRunner

from contract.api.world import KEYS, PROMPT, FakeEngines, a_world, hold, over_network, release, serving
from fakes import FakeScorer
from fakes_evaluation import seconds, tokens
from ramify.api.app import application
from ramify.cli import app
from ramify.cli.search import search_on_server
from ramify.evaluation.backends import RETRIES, LocalBackend, ServerBackend
from ramify.evaluation.methods import DEFAULT, Method, load_methods
from ramify.evaluation.rows import Row
from ramify.evaluation.runner import SearchFailed, run, schedule
from ramify.rewards.verifier import Example
from ramify.search.algorithms import ALGORITHMS
from ramify.search.params import search_params
from ramify.search.scorers import NamedScorer, Scorers
from ramify_client import AsyncClient

pytestmark = pytest.mark.anyio

WAVES = {"schedule": "waves", "parallel": 4}
METHODS = [
    Method("greedy", "best_of_n", "majority", sampling={"temperature": 0.0}, simulations=1),
    Method("flat", "best_of_n", "orm_max", search=WAVES),
    Method("tree", "mcts", "orm_vote", search={**WAVES, "action": {"stop": ["\n"], "max_tokens": 4}}),
    Method("told", "mcts", "orm_max", search={**WAVES, "grader": "verifier"}),
    Method("gumbel", "gumbel", "orm_vote", search=WAVES),
]
PROBLEMS = [
    Example(prompt=PROMPT, problem={"answer": "b"}, group="all", id=f"p{i}", task="exact") for i in range(4)
]


def client_of(world, transport=httpx.ASGITransport):
    return AsyncClient(
        "http://127.0.0.1", max_retries=RETRIES, transport=transport(application(world.context))
    )


async def rows(backend):
    found = []
    work = schedule(PROBLEMS, METHODS, [tokens(40), tokens(80)], 2)
    await run(backend, work, seed=1, concurrency=4, observe=found.extend)
    timed = {"seconds", "policy_seconds", "value_seconds"}
    found = [{name: getattr(row, name) for name in row.__slots__ if name not in timed} for row in found]
    return sorted(found, key=lambda row: (row["problem"], row["method"], row["budget"]))


async def test_a_server_and_engines_in_process_give_the_same_rows(tmp_path):
    async with a_world(tmp_path) as world:
        local = LocalBackend(world.engines, world.context.searches.preparer)
        served, own = await rows(ServerBackend(client_of(world))), await rows(local)
    assert served == own
    assert {row["correct"] for row in served} == {True, False}


async def test_a_busy_server_is_waited_for(tmp_path):
    """One search at a time and no queue: the second is refused, and comes again."""
    refused = asyncio.Event()

    class Noting(httpx.ASGITransport):
        async def handle_async_request(self, request):
            response = await super().handle_async_request(request)
            if response.status_code in (429, 503):
                refused.set()
            return response

    async with asyncio.timeout(120), a_world(tmp_path, admission={"searches": 1, "queue": 0}) as world:
        backend = ServerBackend(client_of(world, Noting))
        hold(world.engines)
        searches = [asyncio.create_task(backend.grow(p, METHODS[0], tokens(40), 1)) for p in PROBLEMS[:2]]
        await refused.wait()
        release(world.engines)
        assert [(await search).tree.status for search in searches] == ["complete", "complete"]


async def test_what_the_server_refuses_is_said(tmp_path):
    async with a_world(tmp_path, auth={"keys": KEYS}) as world:
        with pytest.raises(SearchFailed, match="401"):
            await ServerBackend(client_of(world)).grow(PROBLEMS[0], METHODS[0], tokens(40), 1)


async def test_an_evaluated_search_is_not_told_what_is_right(tmp_path):
    async with a_world(tmp_path) as world:
        local = LocalBackend(world.engines, world.context.searches.preparer)
        blind = await local.grow(PROBLEMS[0], METHODS[2], tokens(80), 1)
        told = await local.grow(PROBLEMS[0], METHODS[3], tokens(80), 1)
    assert all(node.outcome is None for node in blind.tree.nodes)
    assert any(node.outcome is not None for node in told.tree.nodes)


async def test_a_search_is_followed_to_its_end(tmp_path):
    body = {"prompt": PROMPT, "search": {"budget": {"simulations": 20}}, "seed": 1}
    async with a_world(tmp_path) as world, over_network(world) as http:
        tree, page = await asyncio.to_thread(search_on_server, str(http.base_url), None, body)
        logged = await world.logged()
    assert tree.status == "complete"
    assert tree.answer is not None
    assert [row.tree_id for row in logged] == [tree.id]
    assert page == f"{str(http.base_url).rstrip('/')}/trees/{tree.id}"


async def test_ramify_search_asks_the_server_on_the_default_port_where_none_is_named(tmp_path, monkeypatch):
    async with a_world(tmp_path) as world, over_network(world) as http:
        monkeypatch.setenv("RAMIFY_BASE_URL", str(http.base_url))
        found = await asyncio.to_thread(CliRunner().invoke, app, ["search", PROMPT, "--simulations", "20"])
        (row,) = await world.logged()
    assert found.exit_code == 0, found.output
    assert row.tree_id in found.output


async def asked(http, *arguments: str, typed: str = "", **variables: str):
    """Run `ramify` in a thread of this process, its server's address given as `--server`."""
    words = [*arguments, "--server", str(http.base_url)]
    return await asyncio.to_thread(CliRunner().invoke, app, words, input=typed, env=variables)


async def test_a_prompt_comes_from_standard_input_and_the_tree_goes_out_as_json(tmp_path):
    async with a_world(tmp_path) as world, over_network(world) as http:
        found = await asked(http, "search", "-", "--json", "--web", "--simulations", "9", typed=PROMPT + "\n")
        (row,) = await world.logged()
    tree = json.loads(found.stdout)
    assert (tree["id"], tree["prompt"]) == (row.tree_id, PROMPT)
    assert f"/trees/{row.tree_id}" in found.stderr


async def test_an_empty_standard_input_is_no_prompt(tmp_path):
    async with a_world(tmp_path) as world, over_network(world) as http:
        found = await asked(http, "search", "-")
    assert found.exit_code == 2
    assert "standard input is empty" in found.output


SEPARATORS = "\u2028\u2029\x85\x1c\x1d\x1e\x0b\x0c"
"""Characters at which Python's `splitlines` ends a line, and Server-Sent Events do not."""


@pytest.mark.parametrize("escaped", [True, False])
async def test_what_ends_a_line_elsewhere_is_text_in_an_event(tmp_path, escaped):
    """A server may write these characters into its JSON as they are, those below U+0020 excepted."""
    text = SEPARATORS if escaped else "".join(c for c in SEPARATORS if c >= " ")
    async with a_world(tmp_path) as world:
        reply = (await world.search(search={"budget": {"simulations": 9}}, include_tree=True)).json()
    reply["tree_document"]["prompt"] = f"a{text}b"
    data = json.dumps(reply, ensure_ascii=escaped)
    body = f"event: search.completed\ndata: {data}\n\n".encode()

    async def answer(scope, receive, send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-request-id", b"r")]})
        await send({"type": "http.response.body", "body": body})

    async with serving(answer) as url:
        tree, _ = await asyncio.to_thread(search_on_server, url, None, {"prompt": "a"})
    assert tree.prompt == f"a{text}b"


async def test_trees_are_read_from_a_server_as_from_its_log(tmp_path):
    async with a_world(tmp_path, auth={"keys": KEYS}) as world, over_network(world) as http:
        for seed in ("1", "2"):
            search = ("search", PROMPT, "--simulations", "9", "--seed", seed, "--json")
            found = await asked(http, *search, RAMIFY_API_KEY=KEYS[0]["key"])
            assert found.exit_code == 0, found.output
        listed = await asked(http, "trees", "list", "--json", "--api-key", KEYS[2]["key"])
        table = await asked(http, "trees", "list", "--api-key", KEYS[2]["key"])
        shown = await asked(http, "trees", "show", "1", "--json", "--api-key", KEYS[2]["key"])
        drawn = await asked(http, "trees", "dot", "last", "--api-key", KEYS[2]["key"])
        refused = await asked(http, "trees", "list", RAMIFY_API_KEY="")
        log = str(world.log.store.path)
        beside = await asyncio.to_thread(CliRunner().invoke, app, ["trees", "list", "--json", "--log", log])
    rows = json.loads(listed.stdout)
    assert rows == json.loads(beside.stdout)
    assert [row["seq"] for row in rows] == [2, 1]
    assert rows[0]["id"] in table.stdout
    assert json.loads(shown.stdout)["id"] == rows[1]["id"]
    assert drawn.stdout.startswith("digraph")
    assert "--api-key" in refused.output


async def test_the_releases_of_a_server_are_asked_for_at_its_public_address(tmp_path):
    async with a_world(tmp_path, auth={"keys": KEYS}) as world, over_network(world) as http:
        status = ("releases", "status")
        shown = await asked(http, *status, "--api-key", KEYS[2]["key"])
        listed = await asked(http, *status, "--json", "--api-key", KEYS[2]["key"])
        refused = await asked(http, *status, RAMIFY_API_KEY="")
        both = await asked(http, *status, "--admin", "http://127.0.0.1:1")
    assert "a rollback goes to nothing" in shown.output
    assert json.loads(listed.stdout)["active"] == "fake"
    assert "--api-key" in refused.output
    assert both.exit_code == 2


async def test_every_algorithm_is_evaluated_by_its_name(tmp_path):
    methods = load_methods(names=list(ALGORITHMS), tuned=False)
    found: list[Row] = []
    async with a_world(tmp_path) as world:
        local = LocalBackend(world.engines, world.context.searches.preparer)
        work = schedule(PROBLEMS[:1], [*methods, DEFAULT], [tokens(40), seconds(0.05)], 1)
        await run(local, work, seed=1, concurrency=1, observe=found.extend)
    assert {(row.method, row.budget.unit) for row in found} == set(
        product([*ALGORITHMS, "default"], ["tokens", "seconds"])
    )
    assert all(row.policy_seconds >= 0 and row.value_seconds >= 0 for row in found)


async def test_another_model_than_the_demo_is_evaluated_with_plain_defaults(tmp_path):
    data, out = tmp_path / "rows.jsonl", tmp_path / "out"
    data.write_text(json.dumps({"prompt": PROMPT, "answer": "b", "verifier": "exact"}) + "\n")
    words = ("eval", "--data", str(data), "--budgets", "40", "--methods", "mcts,beam", "--out", str(out))
    async with a_world(tmp_path) as world, over_network(world) as http:
        code, said = await command(*words, "--server", http.base_url)
        trees = [await world.log.get(row.tree_id) for row in await world.logged()]
    assert code == 0, said
    assert "plain defaults" in said
    params = {tree.algorithm: tree.tree().params for tree in trees}
    for name, plain in (("mcts", search_params("mcts", answer="orm_max")), ("beam", search_params("beam"))):
        followed = {"budget": params[name].budget, "max_depth": params[name].max_depth}
        assert params[name] == replace(plain, **followed)
    assert json.loads((out / "results.json").read_text())["tuned"] is False


async def command(*arguments: object) -> tuple[int, str]:
    """Run `ramify` in a process of its own: exit code, and all that it said."""
    words = [sys.executable, "-m", "ramify", *map(str, arguments)]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*words, stdout=pipe, stderr=asyncio.subprocess.STDOUT)
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


async def test_ramify_calibrate_prints_the_settings_of_a_fit(tmp_path):
    data = tmp_path / "rows.jsonl"
    data.write_text(json.dumps({"prompt": PROMPT, "answer": "b", "verifier": "exact"}) + "\n")
    async with a_world(tmp_path) as world, over_network(world) as http:
        served = world.engines.serving
        world.engines.serving = replace(served, value="scorer")
        asked = [
            "calibrate",
            "--server",
            str(http.base_url),
            "--data",
            str(data),
            "--problems",
            "1",
            "--draws",
            "200",
        ]
        asked += ["--tokens", "2000"]
        said = await asyncio.to_thread(CliRunner().invoke, app, asked)
        assert said.exit_code == 0, said.output
        found = tomllib.loads(said.stdout)["scorer"]
        again = await asyncio.to_thread(CliRunner().invoke, app, [*asked, "--json"])
        assert json.loads(again.stdout)["a"] == pytest.approx(found["a"], rel=1e-4)
        few = await asyncio.to_thread(CliRunner().invoke, app, [*asked, "--draws", "1"])
        assert few.exit_code == 1
        assert "a fit needs right ones and wrong ones" in few.output
        for judge, name in (("model", "value model"), (None, "own confidence")):
            world.engines.serving = replace(served, value=judge)
            none = await asyncio.to_thread(CliRunner().invoke, app, asked)
            assert none.exit_code == 1
            assert "no scorer to calibrate" in none.output
            assert name in none.output


async def test_of_several_scorers_ramify_calibrate_fits_the_one_that_is_named(tmp_path):
    data = tmp_path / "rows.jsonl"
    data.write_text(json.dumps({"prompt": PROMPT, "answer": "b", "verifier": "exact"}) + "\n")
    engines = FakeEngines()
    scorers = {"style": NamedScorer(FakeScorer(lambda _: 0.5)), "prm": NamedScorer(engines.scorer)}
    engines.scorer = Scorers(scorers)
    engines.serving = replace(engines.serving, value="scorer")
    async with a_world(tmp_path, engines) as world, over_network(world) as http:
        asked = ["calibrate", "--server", str(http.base_url), "--data", str(data), "--problems", "1"]
        asked += ["--draws", "200", "--tokens", "2000"]
        said = await asyncio.to_thread(CliRunner().invoke, app, [*asked, "--scorer", "prm"])
        assert said.exit_code == 0, said.output
        assert tomllib.loads(said.stdout)["scorers"]["prm"].keys() == {"a", "b"}
        for options in ([], ["--scorer", "rpm"]):
            none = await asyncio.to_thread(CliRunner().invoke, app, [*asked, *options])
            assert none.exit_code == 1
            assert "the server has style, prm" in none.output


async def test_ramify_eval_writes_its_results_and_goes_on_where_it_stopped(tmp_path):
    data, out = tmp_path / "rows.jsonl", tmp_path / "out"
    row = {"prompt": PROMPT, "answer": "b", "verifier": "exact"}
    data.write_text("".join(json.dumps({**row, "group": f"g{i % 2}"}) + "\n" for i in range(4)))
    async with a_world(tmp_path) as world, over_network(world) as http:
        asked = (
            "eval",
            "--server",
            http.base_url,
            "--data",
            data,
            "--problems",
            4,
            "--budgets",
            "40,80,0.05s",
        )
        code, said = await command(*asked, "--methods", "greedy,best_of_n,default", "--out", out)
        assert code == 0, said
        searches = len(await world.logged())
        again = [str(word) for word in (*asked, "--methods", "greedy,best_of_n,default", "--out", out)]
        refused = await asyncio.to_thread(CliRunner().invoke, app, again)
        lines = (out / "rows.ndjson").read_text().splitlines()
        (out / "rows.ndjson").write_text("\n".join(lines[:-3]) + '\n{"torn')
        third, resumed = await command(
            *asked, "--methods", "greedy,best_of_n,default", "--out", out, "--resume"
        )
        searched = len(await world.logged())
    assert searches == 4 * (2 + 2 + 3)  # two are read off; a bare search may be another at each budget
    assert refused.exit_code == 2
    assert "--resume" in refused.output
    assert third == 0, resumed
    assert searches < searched <= searches + 3
    results = json.loads((out / "results.json").read_text())
    assert results["problems_finished"] == 4
    assert {f["group"] for f in results["figures"]} == {"g0", "g1", "all"}
    assert results["release"]["release"] == "fake"
    assert "host" not in results["machine"]
    for name in ("results.md", "accuracy.png", "accuracy.svg"):
        assert (out / name).stat().st_size > 0
