from __future__ import annotations

import json

import pytest

from ramify.search.codec import tree_from_dict

from .world import World

pytestmark = pytest.mark.anyio


async def test_people_page_through_the_log_newest_first(world: World) -> None:
    ids = [(await world.search(search={"budget": {"simulations": 2}})).json()["tree"]["id"] for _ in range(5)]
    seen, before = [], ""
    while True:
        page = (await world.http.get(f"/v1/trees?limit=2{before}")).json()
        seen += [row["id"] for row in page["data"]]
        if not page["has_more"]:
            break
        before = f"&before={page['next_before']}"
    assert seen == ids[::-1]
    assert page["next_before"] is None


async def test_filters_narrow_the_list(world: World) -> None:
    await world.search(search={"algorithm": "best_of_n", "budget": {"simulations": 2}})
    await world.search(search={"budget": {"simulations": 2}})

    async def found(query: str) -> int:
        return len((await world.http.get(f"/v1/trees?{query}")).json()["data"])

    assert await found("algorithm=best_of_n") == 1
    assert await found("status=complete") == 2
    assert await found("status=failed") == 0
    assert await found("model=letters&release=fake&task=none") == 2
    assert await found("text=%3F") == 2
    assert (await world.http.get("/v1/trees?limit=0")).status_code == 400
    assert (await world.http.get("/v1/trees?limit=5000")).status_code == 400
    assert (await world.http.get("/v1/trees?min_value=nan")).status_code == 400


async def test_consumers_read_every_line_with_its_seq_to_the_high_water_mark(world: World) -> None:
    ids = [(await world.search(search={"budget": {"simulations": 2}})).json()["tree"]["id"] for _ in range(3)]
    await world.http.post(f"/v1/trees/{ids[0]}/feedback", json={"outcome": 1, "comment": "yes"})
    response = await world.http.get("/v1/trees?after=0")
    lines = [json.loads(line) for line in response.text.splitlines()]
    assert [line["seq"] for line in lines] == [1, 2, 3, 4]
    assert [line["kind"] for line in lines] == ["tree", "tree", "tree", "outcome"]
    assert response.headers["x-ramify-high-water"] == "4"
    assert response.headers["content-type"] == "application/x-ndjson"
    assert [tree_from_dict(line["tree"]).id for line in lines[:3]] == ids
    assert lines[3]["outcome"] == 1.0
    rest = await world.http.get("/v1/trees?after=2&limit=1")
    assert [json.loads(line)["seq"] for line in rest.text.splitlines()] == [3]
    assert (await world.http.get("/v1/trees?after=4")).text == ""


async def test_a_consumer_may_not_filter(world: World) -> None:
    response = await world.http.get("/v1/trees?after=0&status=complete")
    assert response.status_code == 400


async def test_one_tree_comes_whole_with_later_verdicts(world: World) -> None:
    reply = (await world.search()).json()
    await world.http.post(
        f"/v1/trees/{reply['id']}/feedback", json={"outcome": 0.5, "node": 1, "source": "verifier"}
    )
    await world.http.post(f"/v1/trees/{reply['id']}/feedback", json={"outcome": 1, "answer": "c\nc"})
    found = (await world.http.get(reply["tree"]["url"].replace("/trees", "/v1/trees"))).json()
    tree = tree_from_dict(found["tree"])
    assert tree.id == reply["tree"]["id"]
    assert [(v["outcome"], v["node"], v["answer"], v["source"]) for v in found["feedback"]] == [
        (0.5, 1, None, "verifier"),
        (1.0, None, "c\nc", "human"),
    ]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"outcome": 2},
        {"outcome": 1, "node": 10_000},
        {"outcome": 1, "node": 1, "answer": "x"},
        {"outcme": 1},
    ],
)
async def test_bad_feedback_is_refused(world: World, body: object) -> None:
    reply = (await world.search()).json()
    answer = await world.http.post(f"/v1/trees/{reply['id']}/feedback", json=body)
    assert answer.status_code == 400, answer.text


async def test_dot_is_graphviz(world: World) -> None:
    reply = (await world.search()).json()
    response = await world.http.get(f"/v1/trees/{reply['id']}?format=dot")
    assert response.headers["content-type"].startswith("text/vnd.graphviz")
    assert response.text.startswith("digraph tree {")
    assert response.text.count(" -> ") == reply["usage"]["nodes"] - 1
    assert (await world.http.get(f"/v1/trees/{reply['id']}?format=png")).status_code == 400


async def test_a_deleted_tree_is_gone(world: World) -> None:
    reply = (await world.search()).json()
    path = f"/v1/trees/{reply['tree']['id']}"
    assert (await world.http.delete(path)).json()["deleted"] is True
    assert (await world.http.get(path)).status_code == 404
    assert (await world.http.delete(path)).status_code == 404


async def test_a_consumer_is_registered_and_moved_by_its_etag(world: World) -> None:
    await world.search(search={"budget": {"simulations": 2}})
    path = "/v1/consumers/trainer-1"
    assert (await world.http.get(path)).status_code == 404
    made = await world.http.put(path, json={"cursor": 0})
    assert made.status_code == 200, made.text
    assert made.headers["etag"] == '"1"'
    assert (await world.http.put(path, json={"cursor": 1})).status_code == 409, "it exists already"
    moved = await world.http.put(path, json={"cursor": 1}, headers={"If-Match": '"1"'})
    assert (moved.json()["cursor"], moved.headers["etag"]) == (1, '"2"')
    stale = await world.http.put(path, json={"cursor": 1}, headers={"If-Match": '"1"'})
    assert stale.status_code == 409
    assert stale.json()["error"]["code"] == "stale_version"
    read = await world.http.get(path)
    assert (read.headers["etag"], read.json()["high_water"]) == ('"2"', 1)


async def test_a_cursor_stays_inside_the_log_and_goes_back_only_when_told(world: World) -> None:
    await world.search(search={"budget": {"simulations": 2}})
    path = "/v1/consumers/c"
    assert (await world.http.put(path, json={"cursor": 99})).status_code == 400
    await world.http.put(path, json={"cursor": 1})
    back = await world.http.put(path, json={"cursor": 0}, headers={"If-Match": '"1"'})
    assert (back.status_code, back.json()["error"]["param"]) == (400, "cursor")
    told = await world.http.put(path, json={"cursor": 0, "rewind": True}, headers={"If-Match": '"1"'})
    assert told.json()["cursor"] == 0
    assert (await world.http.put(path, json={}, headers={"If-Match": "x"})).status_code == 400


async def test_a_lease_keeps_a_second_reader_off(world: World) -> None:
    path = "/v1/consumers/c"
    await world.http.put(path, json={"owner": "one", "lease_seconds": 60})
    refused = await world.http.put(
        path, json={"owner": "two", "lease_seconds": 60}, headers={"If-Match": '"1"'}
    )
    assert refused.status_code == 409
    assert refused.json()["error"]["code"] == "lease_held"
    renewed = await world.http.put(
        path, json={"owner": "one", "lease_seconds": 60}, headers={"If-Match": '"1"'}
    )
    assert renewed.json()["owner"] == "one"
    assert (await world.http.put(path, json={"owner": "one"}, headers={"If-Match": '"2"'})).status_code == 400


async def test_the_list_is_narrowed_by_size_and_by_verdict(world: World) -> None:
    right = {"name": "exact", "problem": {"answer": "a"}}
    search = {"grader": "verifier", "budget": {"simulations": 60}}
    await world.search(task=right, search=search, seed=1)
    await world.search(search={"budget": {"simulations": 2}})

    async def found(query: str) -> list[float | None]:
        return [row["outcome"] for row in (await world.http.get(f"/v1/trees?{query}")).json()["data"]]

    assert await found("outcome=none") == [None]
    judged = (await found("outcome=right")) + (await found("outcome=wrong"))
    assert judged in ([1.0], [0.0])
    assert len(await found("min_nodes=30")) == 1
    assert (await world.http.get("/v1/trees?outcome=perhaps")).status_code == 400
    assert (await world.http.get("/v1/trees?min_nodes=0")).status_code == 400
