"""The viewer in a real Chromium, against a real server with vLLM and the shipped model."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import BrowserContext, Page, expect

from ramify.search.budget import Budget
from ramify.search.builder import TreeBuilder
from ramify.search.codec import tree_from_dict
from ramify.search.selection import arms, puct_scores
from ramify.search.tree import Tree
from server_process import ServerProcess

from .conftest import HOSTILE, KEY, watch

pytestmark = [pytest.mark.browser, pytest.mark.vllm, pytest.mark.timeout(600)]
FRAMES = """() => new Promise((done) => {
  const times = [];
  window.stopFrames = () => done(times);
  const frame = (time) => { times.push(time); if (times.length < 2000) requestAnimationFrame(frame); };
  requestAnimationFrame(frame);
})"""


def figure(page: Page, name: str) -> str:
    """The figure of this name in a page's header."""
    return page.locator(f".figures div:has(dt:text-is('{name}')) dd").inner_text()


def open_tree(page: Page, tree: str, where: str = "") -> None:
    page.goto(f"/trees/{tree}{where}")
    page.locator(".panel h2").wait_for()


def count_of(page: Page) -> int:
    """Nodes that the replay shows."""
    found = re.search(r"([\d,]+) nodes", page.locator(".replay output").inner_text())
    assert found
    return int(found[1].replace(",", ""))


def document(api: httpx.Client, tree: str) -> Tree:
    return tree_from_dict(api.get(f"/v1/trees/{tree}").json()["tree"])


def test_the_key_is_asked_for_once_and_never_leaves_the_tab(context: BrowserContext, small: str) -> None:
    page = context.new_page()
    addresses: list[str] = []
    page.on("request", lambda request: addresses.append(request.url))
    page.goto("/")
    page.get_by_role("button", name="Enter a key").click()
    page.get_by_label("API key", exact=True).last.fill(KEY)
    page.get_by_role("button", name="Use this key").click()
    expect(page.locator("table.list tbody tr").first).to_be_visible()
    assert page.evaluate("sessionStorage.getItem('ramify.key')") == KEY
    assert KEY not in page.evaluate("JSON.stringify(localStorage) + document.cookie + location.href")
    assert not [address for address in addresses if KEY in address]


def test_a_search_is_started_and_grows_before_ones_eyes(page: Page) -> None:
    page.goto("/search")
    page.get_by_label("Prompt").fill("2 3 5 7 9 to 61")
    page.get_by_label("Simulations").fill("600")
    page.get_by_role("button", name="Start the search").click()
    canvas = page.locator(".view canvas")
    expect(canvas).to_have_attribute("aria-label", re.compile(r"Tree of \d+ nodes"), timeout=60_000)
    first = canvas.get_attribute("aria-label") or ""
    expect(canvas).not_to_have_attribute("aria-label", first)
    assert figure(page, "State") == "running", "it is seen to grow before it has ended"
    page.locator("[data-open]").wait_for(timeout=120_000)
    assert figure(page, "State").startswith("complete")
    page.locator("[data-open]").click()
    expect(page.locator(".tree-head h1")).to_have_text("2 3 5 7 9 to 61")


def test_a_running_search_is_cancelled_and_keeps_its_best_answer(page: Page) -> None:
    page.goto("/search")
    page.get_by_label("Prompt").fill("2 3 5 7 9 11 to 61")
    page.get_by_label("Simulations").fill("10000")
    page.get_by_role("button", name="Start the search").click()
    expect(page.locator(".live header")).to_contain_text("running", timeout=60_000)
    page.get_by_role("button", name="Cancel").click()
    page.locator("[data-open]").wait_for()
    assert figure(page, "State") == "cancelled · client"
    expect(page.get_by_role("button", name="Start the search")).to_be_enabled()


def test_a_refused_search_says_which_field(context: BrowserContext, server: ServerProcess) -> None:
    context.add_init_script(f"sessionStorage.setItem('ramify.key', '{KEY}')")
    page = context.new_page()
    wrong = watch(page)
    page.goto("/search")
    page.get_by_label("Prompt").fill("3 5 7 8 to 24")
    page.get_by_label("Tokens", exact=True).fill(
        "9999999"
    )  # within its bounds, but above what this server allows
    page.get_by_role("button", name="Start the search").click()
    expect(page.get_by_role("alert")).to_contain_text("search.budget.tokens")
    assert [line for line in wrong if "400" not in line] == []


def test_a_figure_beyond_its_bound_is_refused_by_the_form_itself(page: Page) -> None:
    page.goto("/search")
    page.get_by_label("Prompt").fill("3 5 7 8 to 24")
    simulations = page.get_by_label("Simulations")
    simulations.fill("999999")
    page.get_by_role("button", name="Start the search").click()
    expect(simulations).to_be_focused()
    assert simulations.evaluate("(field) => field.validity.rangeOverflow")


def test_the_form_has_every_search_parameter_of_the_server(page: Page, api: httpx.Client) -> None:
    page.goto("/search")
    page.get_by_text("Every parameter").click()
    found = page.locator(".ask .field:visible > span")
    shown = {text.lower().replace(" ", "_") for text in found.all_inner_texts()}
    schemas = api.get("/openapi.json").json()["components"]["schemas"]

    def named(properties: dict[str, Any], name: str) -> dict[str, Any]:
        """The schema that a property refers to."""
        inner: dict[str, Any] = schemas[properties[name]["anyOf"][0]["$ref"].split("/")[-1]]
        return inner

    asked = schemas["SearchRequest"]["properties"]
    search = named(asked, "search")
    inside = [named(search["properties"], "budget"), named(search["properties"], "action")]
    known = {name for part in (search, named(asked, "sampling"), *inside) for name in part["properties"]}
    mcts = set(search["x-ramify-algorithms"]["mcts"])
    elsewhere = set(search["properties"]) - mcts - {"algorithm"}
    assert known - {"budget", "action"} - elsewhere <= shown
    assert not elsewhere & shown
    page.get_by_label("Algorithm").select_option("beam")
    expect(page.get_by_label("Beam width")).to_be_visible()
    expect(page.get_by_label("Kappa", exact=True)).to_be_hidden()


def test_a_parameter_from_the_form_is_sent_and_a_limit_that_nobody_set_is_not_shown(
    page: Page, api: httpx.Client
) -> None:
    page.goto("/search")
    page.get_by_label("Prompt").fill("3 5 7 8 to 24")
    page.get_by_label("Algorithm").select_option("beam")
    page.get_by_text("Every parameter").click()
    page.get_by_label("Beam width").fill("3")
    page.get_by_label("Tokens", exact=True).fill("400")
    page.get_by_role("button", name="Start the search").click()
    page.locator("[data-open]").wait_for(timeout=60_000)
    assert "of 400" in figure(page, "Tokens generated")
    assert " of " not in figure(page, "Nodes") + figure(page, "Time")
    page.locator("[data-open]").click()
    page.locator(".panel h2").wait_for()
    tree = document(api, page.url.split("/trees/")[1].split("#")[0])
    assert (tree.params.algorithm, tree.params.beam_width) == ("beam", 3)
    assert tree.stop_reason != "budget.nodes"
    assert " of " not in figure(page, "Nodes"), "the log holds the server's own limit"


@pytest.mark.parametrize("width", [320, 360, 390])
def test_the_bar_is_no_wider_than_a_phone(page: Page, small: str, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 740})
    for path in ("/", "/search", "/training", f"/trees/{small}"):
        page.goto(path)
        page.locator(".bar").wait_for()
        assert page.evaluate("document.querySelector('.bar').scrollWidth") <= width, path
        right = page.get_by_role("button", name="Keys and help").bounding_box()
        assert right
        assert right["x"] + right["width"] <= width, path


DRAWN = """(pattern) => new Promise((resolve) => {
    const end = performance.now() + 5000;
    const look = () => {
      const drawn = window.drawn.some((text) => new RegExp(pattern).test(text));
      if (drawn || performance.now() > end) resolve(drawn);
      else requestAnimationFrame(look);
    };
    look();
})"""
"""Tell whether a text that matches is drawn within 5 s. (`wait_for_function` evaluates strings, which our Content
Security Policy forbids.)"""


def test_how_much_a_collapsed_node_hides_is_drawn_at_every_zoom(page: Page, large: str) -> None:
    page.add_init_script(
        """window.drawn = [];
        const fill = CanvasRenderingContext2D.prototype.fillText;
        CanvasRenderingContext2D.prototype.fillText = function (text, ...rest) {
          window.drawn.push(text);
          return fill.call(this, text, ...rest);
        };"""
    )
    open_tree(page, large)
    page.locator(".view canvas").focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    for _ in range(8):
        page.evaluate("window.drawn = []")
        page.keyboard.press("-")
        assert page.evaluate(DRAWN, r"\+[\d,]+ hidden")


def test_2000_nodes_stay_above_30_frames_a_second_under_pan_and_zoom(page: Page, large: str) -> None:
    open_tree(page, large)
    assert "of 2" in figure(page, "Nodes")
    box = page.locator(".view canvas").bounding_box()
    assert box
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.evaluate(f"() => {{ window.frames_ = ({FRAMES})(); }}")
    page.mouse.move(x, y)
    page.mouse.down()
    for i in range(60):
        page.mouse.move(x + 3 * (i % 20), y + 4 * (i % 30))
    page.mouse.up()
    for i in range(30):
        page.mouse.wheel(0, -120 if i < 15 else 120)
    page.evaluate("() => window.stopFrames()")
    times: list[float] = page.evaluate("() => window.frames_")
    rate = 1000 * (len(times) - 1) / (times[-1] - times[0])
    print(f"\n{rate:.0f} frames a second over {len(times)} frames of a tree of 2,000 nodes")
    assert rate > 30


def test_the_slider_goes_back_to_the_first_simulation_and_on(page: Page, large: str) -> None:
    open_tree(page, large)
    slider = page.get_by_role("slider", name="Simulation")
    everything = count_of(page)
    slider.focus()
    page.keyboard.press("Home")
    assert count_of(page) == 1
    page.keyboard.press("ArrowRight")
    first = count_of(page)
    page.keyboard.press("]")
    assert 1 < first <= count_of(page) < everything
    page.keyboard.press("End")
    assert count_of(page) == everything


def test_a_tree_names_the_defaults_that_its_search_used(page: Page, api: httpx.Client) -> None:
    reply = api.post("/v1/search", json={"prompt": "3 5 7 8 to 24"}).json()
    open_tree(page, reply["tree"]["id"])
    used = page.locator(".figures div:has(dt:text-is('Defaults')) span")
    expect(used).to_have_text(f"of {reply['defaults']['source']}")
    expect(used).to_have_attribute("title", re.compile(r"algorithm mcts, .*temperature 0\.8"))


def test_the_replay_says_that_visits_over_time_agree_with_the_log(page: Page, small: str) -> None:
    open_tree(page, small)
    expect(page.locator(".replay p")).to_contain_text("agree with the logged counts")


def test_the_replay_says_where_visits_over_time_are_not_in_the_log(
    page: Page, hostile: tuple[Path, str]
) -> None:
    open_tree(page, hostile[1])
    expect(page.locator(".replay p")).to_contain_text("not in the log of this search")


def test_text_is_found_and_stepped_through(page: Page, api: httpx.Client, small: str) -> None:
    tree = document(api, small)
    wanted = tree.nodes[1].text.strip()
    matching = [n.id for n in tree.nodes if wanted in (tree.prompt if n.id == 0 else n.text)]
    open_tree(page, small)
    page.keyboard.press("/")
    page.keyboard.type(wanted)
    expect(page.locator(".find output")).to_have_text(f"{len(matching)} found")
    page.keyboard.press("Enter")
    expect(page.locator(".panel h2")).to_have_text(f"Node {matching[0]}")
    assert f"node={matching[0]}" in page.url


def test_a_deep_link_opens_its_node_at_its_simulation(page: Page, api: httpx.Client, small: str) -> None:
    node = next(n for n in document(api, small).nodes if n.depth == 2)
    open_tree(page, small, f"#node={node.id}&simulation=2")
    expect(page.locator(".panel h2")).to_have_text(f"Node {node.id}")
    assert page.get_by_role("slider", name="Simulation").input_value() == "2"
    expect(page.locator(".panel pre .own")).to_have_text(node.text)


def test_the_tree_is_walked_by_keys_alone(page: Page, api: httpx.Client, small: str) -> None:
    tree = document(api, small)
    open_tree(page, small)
    page.locator(".view canvas").focus()
    page.keyboard.press("Home")
    expect(page.locator(".panel h2")).to_have_text("Prompt (node 0)")
    page.keyboard.press("ArrowRight")
    first = max(tree.children(tree.root), key=lambda n: (n.visits, -n.id))
    expect(page.locator(".panel h2")).to_have_text(f"Node {first.id}")
    expect(page.locator("#said")).to_contain_text(f"Node {first.id}, depth 1")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("End")
    assert tree.answer
    expect(page.locator(".panel h2")).to_have_text(f"Node {tree.answer.node}")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog", name="Keys")).to_have_count(0)


def test_the_panel_recomputes_selection_as_the_search_computes_it(
    page: Page, api: httpx.Client, small: str
) -> None:
    tree = document(api, small)
    open_tree(page, small)
    found, unseen = page.evaluate(
        """async (id) => {
          const { get } = await import("/static/lib/api.js");
          const { Model } = await import("/static/tree/model.js");
          const { armsAt, puct, unseenBelow } = await import("/static/tree/bandit.js");
          const model = Model.of((await get(`/v1/trees/${id}`)).tree);
          const open = armsAt(model, model.nodes[0], unseenBelow(model)).filter((arm) => arm.open);
          const scores = puct(open, model.params).map(({ arm, score }) => [arm.node?.id ?? null, score]);
          return [scores, open.map((arm) => arm.unseen)];
        }""",
        small,
    )
    builder = TreeBuilder(tree, Budget(tree.params.budget, final=0, clock=lambda: 0.0))
    for leaf in tree.nodes:
        if leaf.terminal is not None:
            builder._see(leaf)
    choices = arms(
        tree.root,
        tree.children(tree.root),
        fresh=builder.unseen(tree.root),
        revisit=False,
        unseen=builder.unseen_below,
    )
    scores = puct_scores(choices, tree.params.c_init, tree.params.c_base)
    assert [node for node, _ in found] == [arm.node.id if arm.node else None for arm in choices]
    assert [score for _, score in found] == pytest.approx(scores)
    assert unseen == pytest.approx([arm.unseen for arm in choices])


def test_a_branch_from_the_page_searches_on_from_its_node(page: Page, api: httpx.Client, small: str) -> None:
    tree = document(api, small)
    node = next(n for n in tree.nodes if n.depth == 1 and n.terminal is None)
    open_tree(page, small, f"#node={node.id}")
    page.get_by_role("link", name="Branch from this node").click()
    expect(page.get_by_label("Prompt and answer so far")).to_have_value(tree.prompt + node.text)
    page.get_by_label("Simulations").fill("6")
    page.get_by_role("button", name="Start the search").click()
    page.locator("[data-open]").click()
    expect(page.locator(".tree-head")).to_contain_text(f"branched from {small[-8:]}, node {node.id}")
    branched = document(api, page.url.split("/trees/")[1].split("#")[0])
    assert branched.prompt_tokens == tree.sequence(node)
    assert branched.answer
    assert branched.answer.text.startswith(node.text)


def test_feedback_from_the_page_is_logged(page: Page, api: httpx.Client, small: str) -> None:
    tree = document(api, small)
    assert tree.answer
    open_tree(page, small, f"#node={tree.answer.node}")
    page.get_by_label("Comment").fill("checked by hand")
    page.get_by_role("button", name="✓ Right").click()
    expect(page.locator(".panel")).to_contain_text("checked by hand")
    (verdict,) = api.get(f"/v1/trees/{small}").json()["feedback"]
    assert (verdict["node"], verdict["outcome"], verdict["source"]) == (tree.answer.node, 1.0, "human")


def test_json_and_svg_are_exported(page: Page, api: httpx.Client, small: str, tmp_path: Path) -> None:
    open_tree(page, small)
    with page.expect_download() as download:
        page.get_by_role("button", name="JSON").click()
    assert tree_from_dict(json.loads(Path(download.value.path()).read_text())) == document(api, small)
    with page.expect_download() as download:
        page.get_by_role("button", name="SVG").click()
    drawing = Path(download.value.path()).read_text()
    assert drawing.count("<text") == 2 * len(document(api, small).nodes)


def test_hostile_text_stays_text_everywhere(page: Page, hostile: tuple[Path, str]) -> None:
    page.goto("/?text=onerror")
    expect(page.locator("td.asked a")).to_contain_text("<img src=x onerror=")
    open_tree(page, hostile[1], "#node=1")
    expect(page.locator(".panel pre .own")).to_contain_text(HOSTILE)
    with page.expect_download() as download:
        page.get_by_role("button", name="SVG").click()
    assert "<img" not in Path(download.value.path()).read_text()
    for path in ("/?text=onerror", f"/trees/{hostile[1]}", f"/search?tree={hostile[1]}&node=1"):
        page.goto(path)
        page.wait_for_load_state("networkidle")
        assert page.locator("img:not(.brand img), body script").count() == 0
        assert "pwned" not in page.title()


def test_the_training_page_shows_gates_what_is_served_and_the_rollback(page: Page) -> None:
    page.goto("/training")
    expect(page.locator(".chart svg")).to_be_visible()
    assert page.locator(".chart .point.s0").count() == 4
    expect(page.locator("tr.active")).to_contain_text("v000001")
    expect(page.get_by_label("What was served when")).to_contain_text("rolled back to")
    expect(page.get_by_label("Releases", exact=True)).to_contain_text("rejected")


def test_filters_narrow_the_list_and_stay_in_the_address(page: Page, small: str, api: httpx.Client) -> None:
    page.goto("/")
    page.locator("table.list tbody tr").first.wait_for()
    schemas = api.get("/openapi.json").json()["components"]["schemas"].values()
    offered = page.locator("select[name=algorithm] option").evaluate_all("all => all.map(one => one.value)")
    (*_, known) = (schema["x-ramify-algorithms"] for schema in schemas if "x-ramify-algorithms" in schema)
    assert offered == ["", *known], "other packages' included"
    page.get_by_label("Nodes, at least").last.fill("100000")
    expect(page.locator(".empty")).to_contain_text("No tree matches")
    assert "min_nodes=100000" in page.url
    page.get_by_role("button", name="Clear the filters").click()
    expect(page.locator("table.list tbody tr").first).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_theme_follows_the_system_until_it_is_chosen(
    context: BrowserContext, server: ServerProcess, scheme: Any
) -> None:
    page = context.new_page()
    wrong = watch(page)
    page.emulate_media(color_scheme=scheme)
    page.goto("/training")
    ground = "getComputedStyle(document.body).backgroundColor"
    before = page.evaluate(ground)
    page.get_by_role("button", name="Dark theme" if scheme == "light" else "Light theme").click()
    after = page.evaluate(ground)
    assert before != after
    page.reload()
    assert page.evaluate(ground) == after
    assert [line for line in wrong if "401" not in line] == []
