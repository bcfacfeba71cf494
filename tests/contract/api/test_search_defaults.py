"""Search defaults, as a client of the routes sees them: what is filled in, what is said of it, what a request wins."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fakes_releases import write_release
from ramify.search.crowd import Crowd, StepTime
from ramify.service.serving import serving_of
from ramify.settings import BadSettings, Settings
from ramify.weights import SearchDefaults, toml_of

from .openai_asks import BOTH, ask
from .site import a_site
from .world import SERVING, FakeEngines, World, a_world

pytestmark = pytest.mark.anyio

FEW = SearchDefaults(
    up_to={"tokens": 100},
    search={"algorithm": "best_of_n", "answer": "orm_vote"},
    sampling={"temperature": 0.8},
)
REST = SearchDefaults(
    search={"algorithm": "mcts", "kappa": 0.9, "abandon": True, "parallel": 2},
    sampling={"temperature": 0.7, "top_p": 0.95},
)
TOKENS = {"budget": {"tokens": 200}}


@pytest.fixture
async def tuned(tmp_path: Path) -> AsyncIterator[World]:
    """A server whose release carries search defaults."""
    serving = replace(SERVING, search=(FEW, REST), search_from="v000007")
    async with a_world(tmp_path, FakeEngines(serving=serving)) as world:
        yield world


async def searched(world: World, **body: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The reply and the logged tree."""
    reply = (await world.search(**body)).json()
    tree = (await world.http.get(f"/v1/trees/{reply['tree']['id']}")).json()["tree"]
    assert tree.get("defaults") == reply["defaults"]
    return reply, tree


@pytest.mark.parametrize("search", [{}, {"search": {}}, {"search": TOKENS}])
async def test_a_request_that_says_nothing_of_the_search_is_searched_as_the_release_says(
    tuned: World, search: dict[str, Any]
) -> None:
    reply, tree = await searched(tuned, **search)
    params, sampling = tree["params"], tree["sampling"]
    assert (params["algorithm"], params["kappa"], params["abandon"], params["parallel"]) == (
        "mcts",
        0.9,
        True,
        2,
    )
    assert (sampling["temperature"], sampling["top_p"]) == (0.7, 0.95)
    assert reply["defaults"] == {"source": "v000007", "search": REST.search, "sampling": REST.sampling}
    assert (await tuned.http.get(f"/v1/search/{reply['id']}")).json()["defaults"] == reply["defaults"]


async def test_the_budget_chooses_between_them(tuned: World) -> None:
    reply, tree = await searched(tuned, search={"budget": {"tokens": 100}})
    assert (tree["params"]["algorithm"], tree["params"]["answer"]) == ("best_of_n", "orm_vote")
    assert reply["defaults"] == {"source": "v000007", "search": FEW.search, "sampling": FEW.sampling}


async def test_seconds_choose_by_what_they_are_worth_on_this_engine(tmp_path: Path) -> None:
    crowd = Crowd(lambda: StepTime(fixed=0.01, each=0.001))
    slow = REST.model_copy(update={"up_to": {"seconds_worth": 100}})
    serving = replace(SERVING, search=(slow, FEW.model_copy(update={"up_to": None})), search_from="v000007")
    async with a_world(tmp_path, FakeEngines(serving=serving, crowd=crowd)) as world:
        for seconds, entry in (
            (0.5, REST),
            (1, FEW),
        ):  # two draws in flight, 12 ms a step: about 83 tokens, and 167
            reply, _ = await searched(world, search={"budget": {"seconds": seconds}})
            assert reply["defaults"]["search"] == entry.search
        # with one draw in flight a second is worth half as much
        reply, _ = await searched(world, search={"budget": {"seconds": 1}, "parallel": 1})
        assert reply["defaults"]["search"].items() < REST.search.items()
        async with AsyncExitStack() as others:
            for _ in range(8):
                await others.enter_async_context(crowd.joined())
            reply, _ = await searched(world, search={"budget": {"seconds": 1}})
            assert reply["defaults"]["search"] == REST.search


async def test_a_field_that_is_named_wins_and_the_others_stay(tuned: World) -> None:
    reply, tree = await searched(tuned, search={"kappa": 3, **TOKENS}, sampling={"top_p": 1})
    assert (tree["params"]["kappa"], tree["params"]["abandon"]) == (3, True)
    assert (tree["sampling"]["temperature"], tree["sampling"]["top_p"]) == (0.7, 1)
    assert reply["defaults"]["search"] == {"algorithm": "mcts", "abandon": True, "parallel": 2}
    assert reply["defaults"]["sampling"] == {"temperature": 0.7}


async def test_naming_the_algorithm_of_the_release_keeps_what_it_says(tuned: World) -> None:
    reply, tree = await searched(tuned, search={"algorithm": "mcts", **TOKENS})
    assert tree["params"]["kappa"] == 0.9
    assert reply["defaults"]["search"] == {"kappa": 0.9, "abandon": True, "parallel": 2}


async def test_another_algorithm_has_its_own_defaults(tuned: World) -> None:
    reply, tree = await searched(tuned, search={"algorithm": "gumbel", **TOKENS})
    assert (tree["params"]["parallel"], tree["sampling"]["temperature"]) == (8, 1)
    assert reply["defaults"] is None


async def test_a_default_without_effect_beside_what_is_named_gives_way(tuned: World) -> None:
    reply, tree = await searched(tuned, search={"expand": "step", "select": "puct", **TOKENS})
    assert (tree["params"]["expand"], tree["params"]["kappa"], "abandon" in tree["params"]) == (
        "step",
        2,
        False,
    )
    assert reply["defaults"]["search"] == {"algorithm": "mcts", "parallel": 2}


async def test_a_field_that_the_algorithm_of_the_release_lacks_is_refused_and_told_whose_it_is(
    tuned: World,
) -> None:
    error = (await tuned.search(search={"kappa": 3, "budget": {"tokens": 100}})).json()["error"]
    assert error["param"] == "search.kappa"
    assert "('best_of_n' is the default of v000007)" in error["message"]


@BOTH
async def test_openais_routes_say_it_beside_the_choices(tuned: World, route: str) -> None:
    said = (await ask(tuned, route, search=TOKENS, temperature=0)).json()["ramify"]
    assert said["defaults"] == {"source": "v000007", "search": REST.search, "sampling": REST.sampling}
    assert said["temperature"] == 0.7
    plain = (await ask(tuned, route, search={**TOKENS, "defaults": False})).json()["ramify"]
    assert (plain["defaults"], plain["temperature"]) == (None, 1)


async def test_a_request_can_do_without_them(tuned: World) -> None:
    reply, tree = await searched(tuned, search=TOKENS, defaults=False)
    assert (tree["params"]["kappa"], tree["sampling"]["temperature"]) == (2, 1)
    assert reply["defaults"] is None


async def test_a_search_by_name_has_them_if_it_names_their_algorithm(tuned: World) -> None:
    reply, _ = await searched(tuned, model="letters:mcts", search=None)
    assert reply["defaults"]["search"] == {"kappa": 0.9, "abandon": True, "parallel": 2}
    reply, _ = await searched(tuned, headers={"x-ramify-search": '{"algorithm": "mcts", "defaults": false}'})
    assert reply["defaults"] is None


async def test_a_branch_is_searched_as_the_release_says(tuned: World) -> None:
    reply, _ = await searched(tuned, search=TOKENS)
    branch = (
        await tuned.http.post(f"/v1/trees/{reply['tree']['id']}/branch", json={"node": 0, "search": TOKENS})
    ).json()
    assert branch["defaults"]["source"] == "v000007"


async def test_the_models_route_shows_them(tuned: World) -> None:
    first, *named = (await tuned.http.get("/v1/models")).json()["data"]
    assert first["search_defaults"] == [entry.model_dump() for entry in (FEW, REST)]
    assert all(model["search_defaults"] == [] for model in named)


async def test_without_any_a_search_says_so(world: World) -> None:
    reply, tree = await searched(world)
    assert (reply["defaults"], tree["params"]["algorithm"]) == (None, "mcts")
    assert (await world.http.get("/v1/models")).json()["data"][0]["search_defaults"] == []


async def test_another_release_brings_its_own(tmp_path: Path) -> None:
    root = tmp_path / "weights"
    write_release(root, 1.0, 0.1, search=[REST])
    write_release(root, 2.0, 0.2, parent="v000001", search=[FEW.model_copy(update={"up_to": None})])
    write_release(root, 3.0, 0.3, parent="v000002")
    async with a_site(tmp_path) as site:
        for release, algorithm in (("v000001", "mcts"), ("v000002", "best_of_n"), ("v000003", None)):
            assert (await site.activate(release)).status_code == 200
            used = (await site.search(search=TOKENS)).json()["defaults"]
            said = used and (used["source"], used["search"]["algorithm"])
            assert said == (algorithm and (release, algorithm))


async def test_the_operator_switches_them_off_or_puts_a_file_in_their_place(tmp_path: Path) -> None:
    release = write_release(tmp_path / "weights", 1.0, 0.1, search=[REST])
    file = tmp_path / "defaults.toml"
    file.write_text(toml_of([FEW.model_copy(update={"up_to": None})]))
    for setting, algorithm, source in (
        ("release", "mcts", "v000001"),
        ("none", None, "settings"),
        (file, "best_of_n", "settings"),
    ):
        serving = serving_of(release, Settings(search_defaults=setting))
        assert [entry.algorithm for entry in serving.search] == ([algorithm] if algorithm else [])
        assert serving.search_from == source


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("[[search]]\nsearch = { algorithm = 'mcts', kappa = 5000 }", "search.0.search.kappa: 5000 is not"),
        ("[[search]]\nsearch = { algorithm = 'mcts' }\nn = 3", "search.0.n: Extra inputs"),
        ("[[method]]\nname = 'mcts'", "search: Field required"),
        ("search = ", "is not valid TOML"),
        (None, "cannot read"),
    ],
)
async def test_a_bad_file_of_the_operators_ends_the_start_by_name(
    tmp_path: Path, content: str | None, fault: str
) -> None:
    file = tmp_path / "defaults.toml"
    if content is not None:
        file.write_text(content)
    release = write_release(tmp_path / "weights", 1.0, 0.1)
    with pytest.raises(BadSettings) as caught:
        serving_of(release, Settings(search_defaults=file))
    assert str(file) in str(caught.value)
    assert fault in str(caught.value)
