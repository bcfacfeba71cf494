"""Refinement over HTTP: which requests can be refined, what a better answer is drawn after, what is logged of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fakes import ASKED, FakePolicy, decode, encode, letters
from ramify.search.codec import tree_from_dict
from ramify.search.tree import Tree
from ramify.service.refinement import CRITIQUE, TEMPLATE, filled, shortened

from .world import SERVING, FakeEngines, FakeTokenizer, World, a_world

pytestmark = pytest.mark.anyio
ASK = "Feedback: {feedback}" + ASKED
MESSAGES = [{"role": "user", "content": "?\n"}]
EXACT = {"name": "exact", "problem": {"answer": "ab", "ignore_case": False}}
REFINE = {"action": {"kind": "refine", "template": ASK}, "grader": "verifier", "budget": {"simulations": 30}}
AB = letters({"a": 0.5, "b": 0.5}, 1)


class Turns(FakeTokenizer):
    """A chat template that shows every role but the first."""

    def encode_chat(
        self, messages: Sequence[Mapping[str, str]], template: Mapping[str, Any] | None = None
    ) -> list[int]:
        first, *rest = messages
        if (template or {}).get("one_turn") and rest:
            raise ValueError("this template takes one turn")
        if any(m["content"].startswith(str((template or {}).get("refused"))) for m in rest):
            raise ValueError("this template refuses the answer")
        said = "".join(f"<{m['role']}>{m['content']}" for m in rest)
        return self.encode(first["content"] + said)


def engines(**fields: Any) -> FakeEngines:
    return FakeEngines(policy=FakePolicy(AB), tokenizer=Turns(), **fields)


@dataclass
class Asked:
    """A search that was asked for, and its tree."""

    world: World
    body: Mapping[str, Any]

    async def tree(self) -> Tree:
        response = await self.world.http.post("/v1/search", json={**self.body, "include_tree": True})
        assert response.status_code == 200, response.text
        return tree_from_dict(response.json()["tree_document"])

    async def refused(self) -> tuple[str, str]:
        response = await self.world.http.post("/v1/search", json=self.body)
        assert response.status_code == 400, response.text
        error = response.json()["error"]
        return error["param"], error["message"]


def body(**changes: Any) -> dict[str, Any]:
    search = {**REFINE, **changes.pop("search", {})}
    return {"messages": MESSAGES, "task": EXACT, "search": search, **changes}


async def test_a_better_answer_is_drawn_after_the_conversation_with_the_answer_and_its_feedback(
    tmp_path: Path,
) -> None:
    async with a_world(tmp_path, engines()) as world:
        tree = await Asked(world, body()).tree()
        logged = [await world.log.get(row.tree_id) for row in await world.logged()]
    better = [node for node in tree.nodes if node.depth > 1]
    assert better
    for node in better:
        parent = tree.nodes[node.parent or 0]
        said = f"the answer {parent.text.strip()!r} is not right"
        asks = f"?\n<assistant>{parent.text}<user>Feedback: {said}{ASKED}"
        assert decode(tree.prompt_of(node)) == asks
        assert parent.revision is not None
        assert parent.revision.feedback == said
    # The log holds the prompts that were sent, and no other went to the policy.
    sent = {text for text, _, _ in world.engines.policy.requests}
    assert sent == {decode(tree.prompt_of(node)) for node in tree.nodes[1:]}
    assert [entry.tree() for entry in logged if entry is not None] == [tree]
    prompts = [node.revision.prompt for node in tree.nodes if node.revision is not None]
    assert tree.usage.prompt_tokens == len("?\n") + sum(map(len, prompts))


async def test_the_reference_answer_is_in_no_prompt(tmp_path: Path) -> None:
    exact = {"name": "exact", "problem": {"answer": "the secret", "ignore_case": False}}
    async with a_world(tmp_path, engines()) as world:
        await Asked(world, body(task=exact)).tree()
    assert not any("secret" in text for text, _, _ in world.engines.policy.requests)


async def test_a_task_whose_rules_the_prompt_states_needs_no_verdict(tmp_path: Path) -> None:
    countdown = {"name": "countdown", "problem": {"numbers": [3, 5], "target": 8}}
    async with a_world(tmp_path, engines()) as world:
        tree = await Asked(world, body(task=countdown, search={"grader": "model"})).tree()
    said = {node.revision.feedback for node in tree.nodes if node.revision is not None}
    assert said == {"a line is not of the form `a op b = c`"}
    assert all(node.outcome is None for node in tree.nodes)


async def test_a_text_is_refined_by_a_template_that_writes_all_of_it(tmp_path: Path) -> None:
    template = "{prompt}[{answer}|{feedback}]" + ASKED
    asked = body(prompt="?\n", search={"action": {"kind": "refine", "template": template}})
    del asked["messages"]
    async with a_world(tmp_path, engines()) as world:
        tree = await Asked(world, asked).tree()
    parent = next(node for node in tree.nodes[1:] if node.children)
    said = f"the answer {parent.text.strip()!r} is not right"
    assert parent.revision is not None
    assert decode(parent.revision.prompt) == f"?\n[{parent.text}|{said}]{ASKED}"


@pytest.mark.parametrize(
    ("release", "given", "holds"),
    [("", {}, TEMPLATE), ("R {feedback}", {}, "R {feedback}"), ("R {feedback}", {"template": ASK}, ASK)],
)
async def test_the_words_are_the_requests_the_releases_or_the_servers(
    tmp_path: Path, release: str, given: dict[str, str], holds: str
) -> None:
    from dataclasses import replace

    serving = replace(SERVING, refine_template=release)
    async with a_world(tmp_path, engines(serving=serving, max_model_len=4096)) as world:
        asked = body(search={"action": {"kind": "refine", **given}, "budget": {"simulations": 1}})
        tree = await Asked(world, asked).tree()
    assert tree.params.action.template == holds


async def test_an_answer_that_leaves_no_room_is_shown_in_part(tmp_path: Path) -> None:
    long = letters({"abcdefghijklmnopqrstuvwxyz": 1.0, "zyxwvutsrqponmlkjihgfedcba": 1.0}, 1)
    crowded = FakeEngines(policy=FakePolicy(long), tokenizer=Turns(), max_model_len=140)
    asked = body(sampling={"max_tokens": 40}, search={"action": {"kind": "refine", "template": ASK}})
    async with a_world(tmp_path, crowded) as world:
        tree = await Asked(world, asked).tree()
    revisions = [node.revision for node in tree.nodes if node.revision is not None]
    assert revisions
    assert all(one.shortened and len(one.prompt) <= 100 for one in revisions)


async def test_an_answer_that_leaves_none_even_so_is_closed_by_name(tmp_path: Path) -> None:
    crowded = engines(max_model_len=60)
    asked = body(sampling={"max_tokens": 8}, search={"action": {"kind": "refine", "template": ASK}})
    async with a_world(tmp_path, crowded) as world:
        tree = await Asked(world, asked).tree()
    revisions = [node.revision for node in tree.nodes if node.revision is not None]
    assert {one.closed for one in revisions} == {"context"}
    assert all("is not right" in one.feedback for one in revisions)
    assert tree.status == "complete"


@pytest.mark.parametrize(
    ("changes", "param", "says"),
    [
        (
            {"task": {"name": "none"}, "search": {"grader": "model"}},
            "search.action.kind",
            "gives feedback: code, ",
        ),
        ({"search": {"grader": "model"}}, "search.grader", "'verifier' or 'mixed'"),
        ({"search": {"algorithm": "beam"}}, "search.action.kind", "refines answers: mcts"),
        ({"search": {"action": {"kind": "refine", "stop": ["x"]}}}, "search.action.stop", "no effect"),
        ({"search": {"action": {"kind": "step", "template": ASK}}}, "search.action.template", "no effect"),
        (
            {"search": {"action": {"kind": "refine", "template": "again"}}},
            "search.action.template",
            "{feedback}",
        ),
        (
            {"search": {"action": {"kind": "refine", "template": "{feedback}" * 2000}}},
            "search.action.template",
            "at most 10000",
        ),
        ({"messages": [*MESSAGES, {"role": "assistant", "content": "a"}]}, "messages", "must not end"),
        ({"chat_template_kwargs": {"one_turn": True}}, "messages", "takes one turn"),
        ({"sampling": {"max_tokens": 490}}, "sampling.max_tokens", "leave no room"),
    ],
)
async def test_what_cannot_be_refined_is_refused_by_name(
    tmp_path: Path, changes: dict[str, Any], param: str, says: str
) -> None:
    async with a_world(tmp_path, engines()) as world:
        found, message = await Asked(world, body(**changes)).refused()
    assert found == param
    assert says in message


async def test_a_text_needs_a_template_with_all_its_parts(tmp_path: Path) -> None:
    asked = body(prompt="?\n")
    del asked["messages"]
    async with a_world(tmp_path, engines()) as world:
        param, message = await Asked(world, asked).refused()
    assert param == "search.action.template"
    assert "lacks {prompt} and {answer}: the prompt is no conversation" in message


async def test_an_answer_that_the_chat_template_refuses_is_closed_and_counted_and_the_search_goes_on(
    tmp_path: Path,
) -> None:
    async with a_world(tmp_path, engines()) as world:
        tree = await Asked(world, body(chat_template_kwargs={"refused": "a"})).tree()
        counted = (await world.http.get("/metrics")).text
    said = {node.text[0]: node.revision for node in tree.nodes[1:] if node.revision is not None}
    assert said["a"].closed == "feedback"
    assert said["a"].feedback.endswith("could be written: this template refuses the answer")
    assert said["b"].closed is None
    assert tree.status == "complete"
    assert '\nramify_feedback_failures_total{kind="no_feedback"} ' in counted


class Asking(Turns):
    """A chat template after whose last turn the policy writes an answer anew."""

    def encode_chat(
        self, messages: Sequence[Mapping[str, str]], template: Mapping[str, Any] | None = None
    ) -> list[int]:
        return super().encode_chat(messages, template) + self.encode(ASKED if len(messages) > 1 else "")


NO_TASK = {"task": {"name": "none"}, "search": {"grader": "model"}}


async def test_where_the_task_has_no_feedback_the_policy_criticises_its_answer(tmp_path: Path) -> None:
    engines_ = FakeEngines(policy=FakePolicy(AB), tokenizer=Asking(), max_model_len=1000)
    async with a_world(tmp_path, engines_, limits={"critique_tokens": 4}) as world:
        tree = await Asked(world, body(**NO_TASK)).tree()
        other = await Asked(world, body()).tree()
    bettered = [node for node in tree.nodes[1:] if node.children]
    assert bettered
    asked = [text for text, _, _ in world.engines.policy.requests if CRITIQUE in text]
    for node in bettered:
        assert node.revision is not None
        assert node.revision.feedback in ("a", "b")
        assert f"?\n<assistant>{node.text}<user>{CRITIQUE}{ASKED}" in asked
        assert f"Feedback: {node.revision.feedback}{ASKED}" in decode(node.revision.prompt)
    assert all("is not right" in node.revision.feedback for node in other.nodes if node.revision is not None)


@pytest.mark.parametrize(
    ("changes", "param", "says"),
    [
        ({"sampling": {"max_tokens": 4}, **NO_TASK}, "sampling.max_tokens", "limits.critique_tokens"),
        (
            {"messages": None, "prompt": "?\n", **NO_TASK},
            "search.action.kind",
            "conversations (`messages`) alone",
        ),
    ],
)
async def test_a_critique_that_cannot_be_asked_for_is_refused_by_name(
    tmp_path: Path, changes: dict[str, Any], param: str, says: str
) -> None:
    asked = {name: value for name, value in body(**changes).items() if value is not None}
    async with a_world(tmp_path, engines(), limits={"critique_tokens": 4}) as world:
        found, message = await Asked(world, asked).refused()
    assert found == param
    assert says in message


async def test_a_critique_without_room_is_refused_by_its_own_limit(tmp_path: Path) -> None:
    """The request for a critique is longer than that for a better answer."""
    narrow = FakeEngines(policy=FakePolicy(AB), tokenizer=Asking(), max_model_len=len(CRITIQUE))
    async with a_world(tmp_path, narrow, limits={"critique_tokens": 4}) as world:
        found, message = await Asked(world, body(sampling={"max_tokens": 8}, **NO_TASK)).refused()
    assert found == "messages"
    assert f"a critique may have 4 (setting limits.critique_tokens) of the model's {len(CRITIQUE)}" in message


async def test_a_branch_is_not_refined_and_a_refined_answer_not_branched(tmp_path: Path) -> None:
    async with a_world(tmp_path, engines()) as world:
        tree = await Asked(world, body(sampling={"max_tokens": 1})).tree()
        cut = next(node.id for node in tree.nodes if node.terminal == "truncated")
        for node, search, param in ((0, REFINE, "search.action.kind"), (cut, {}, "node")):
            url = f"/v1/trees/{tree.id}/branch"
            response = await world.http.post(url, json={"node": node, "search": search})
            assert response.status_code == 400
            assert response.json()["error"]["param"] == param


def test_what_an_answer_holds_in_braces_stays_as_it_is() -> None:
    assert filled("{answer} {feedback}", prompt="p", answer="{feedback}", feedback="{answer}") == (
        "{feedback} {answer}"
    )


def test_a_shortened_text_keeps_its_beginning_and_its_end() -> None:
    assert shortened("0123456789", 1.0) == "0123456789"
    assert shortened("0123456789", 0.5) == "01\n[…]\n89"
    assert encode(shortened("ab", 0.125)) == encode("a\n[…]\nb")


async def test_a_refining_search_goes_on_after_the_same_conversation(tmp_path: Path) -> None:
    def asked(simulations: int) -> dict[str, Any]:
        search = {
            "schedule": "waves",
            "parallel": 2,
            "early_stop": "off",
            "budget": {"simulations": simulations},
        }
        return body(search={**REFINE, **search}, seed=3)

    async with a_world(tmp_path, engines()) as world:
        first = await Asked(world, asked(4)).tree()
        assert first.conversation == {"messages": MESSAGES, "template": {}}
        answer = await world.http.post(
            f"/v1/search/{first.id}/continue", json={"budget": {"simulations": 16}, "include_tree": True}
        )
        assert answer.status_code == 200, answer.text
        longer = tree_from_dict(answer.json()["tree_document"])
        whole = await Asked(world, asked(16)).tree()
    asks = [sum(node.revision is not None for node in tree.nodes) for tree in (first, longer)]
    assert asks[0] < asks[1]
    assert longer.nodes == whole.nodes
