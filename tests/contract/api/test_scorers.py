"""Several scorers and safety scorers behind the routes: what replies, events and metrics say of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from fakes import FakeScorer
from ramify.search.scorers import NamedScorer, Scorers

from .openai_asks import ask, content, frames
from .world import FakeEngines, World, a_world

pytestmark = pytest.mark.anyio
SEARCH: dict[str, Any] = {"budget": {"simulations": 12}}


def engines(prune_below: float) -> FakeEngines:
    """Texts are worth the mean of their shares of `a` and `b`, 3 to 1. Those that begin with a vowel are safer."""
    named = {
        "a": NamedScorer(FakeScorer(lambda t: t.count("a") / max(1, len(t))), weight=3),
        "b": NamedScorer(FakeScorer(lambda t: t.count("b") / max(1, len(t))), weight=1),
        "safety": NamedScorer(
            FakeScorer(lambda t: 0.8 if t[:1] in "aeiou" else 0.2), prune_below=prune_below
        ),
    }
    return FakeEngines(scorer=Scorers(named))  # type: ignore[arg-type]


@pytest.fixture
async def some(tmp_path: Path) -> AsyncIterator[World]:
    async with a_world(tmp_path, engines(0.5)) as world:
        yield world


@pytest.fixture
async def none(tmp_path: Path) -> AsyncIterator[World]:
    async with a_world(tmp_path, engines(0.9)) as world:
        yield world


async def test_only_safe_answers_are_given_and_what_was_pruned_is_counted_and_logged(some: World) -> None:
    # With another seed a search may draw no vowel.
    reply = (await some.search(search=SEARCH, n=20, seed=1)).json()
    assert reply["candidates"]
    assert all(answer["text"][0] in "aeiou" for answer in reply["candidates"])
    tree = (await some.http.get(f"/v1/trees/{reply['tree']['id']}")).json()["tree"]
    pruned = [node for node in tree["nodes"] if node["terminal"] == "pruned"]
    assert {node["pruned_by"] for node in pruned} == {"safety"}
    assert {node["scores"]["safety"] for node in pruned} == {0.2}
    count = sum(node["multiplicity"] for node in pruned)
    assert reply["usage"]["pruned_branches"] == count > 0
    metrics = (await some.http.get("/metrics")).text
    assert f'ramify_pruned_branches_total{{scorer="safety"}} {float(count)}' in metrics


async def test_if_all_is_pruned_a_search_is_complete_without_an_answer(none: World) -> None:
    reply = (await none.search(search=SEARCH)).json()
    assert (reply["status"], reply["stop_reason"], reply["answer"]) == ("complete", "pruned", None)


@pytest.mark.parametrize("route", ["completion", "chat"])
async def test_if_all_is_pruned_an_openai_client_is_told_as_by_a_content_filter(
    none: World, route: str
) -> None:
    reply = (await ask(none, route, search=SEARCH)).json()
    (choice,) = reply["choices"]
    assert (content(choice), choice["finish_reason"]) == ("", "content_filter")
    assert reply["ramify"]["stop_reason"] == "pruned"
    assert reply["ramify"]["pruned_branches"] > 0
    streamed = frames((await ask(none, route, search=SEARCH, stream=True)).text)
    assert streamed[-1]["choices"][0]["finish_reason"] == "content_filter"


async def test_values_come_with_what_each_scorer_gave(some: World) -> None:
    body = {"prompt": "?\n", "continuations": ["ab", "bb"]}
    reply = (await some.http.post("/v1/value", json=body)).json()
    assert reply["values"] == [0.5, 0.25]
    assert reply["scores"] == [{"a": 0.5, "b": 0.5, "safety": 0.8}, {"a": 0.0, "b": 1.0, "safety": 0.2}]
    assert reply["usage"]["scored_sequences"] == 6


async def test_a_safety_scorer_alone_judges_no_values(tmp_path: Path) -> None:
    alone = Scorers({"safety": NamedScorer(FakeScorer(lambda _: 0.9), prune_below=0.5)})
    async with a_world(tmp_path, FakeEngines(scorer=alone)) as world:  # type: ignore[arg-type]
        reply = await world.http.post("/v1/value", json={"prompt": "?", "continuations": ["a"]})
    assert reply.status_code == 400
    assert "no value model" in reply.text
