"""Action `refine`: a node is a whole answer, and those below it were drawn to better it."""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes import ASKED, FakePolicy, FakeReviser, FakeTask, decode, encode
from ramify.search.codec import BadTree, tree_from_dict, tree_to_dict
from ramify.search.library import search
from ramify.search.params import ParamError, search_params
from ramify.search.protocols import Write
from ramify.search.records import Action, BudgetLimits, Revision, Sampling
from ramify.search.tree import Node
from search_worlds import ONE_AT_A_TIME, PROMPT, REFINE, World, check, ran, shape, words, world


class Bettering(FakePolicy):
    """Writes an `a` more than the answer that it is to better has, and to the prompt alone one; then three letters that
    tell its answers apart."""

    step = 1

    def answer(self, text: str) -> str:
        return text.removeprefix(self.prompt)

    def _draws(self, text: str, sampling: Sampling, seeds: Any) -> Any:
        given, asked, _ = text.partition("|")
        size = max(0, given.count("a") + self.step) if asked else 1

        def rule(said: str) -> Mapping[str, float]:
            if len(said) < size:
                return {"a": 1.0}
            return dict.fromkeys("uvwxyz", 1 / 6) if len(said) < size + 3 else {"": 1.0}

        return [FakePolicy(rule)._one("", sampling, random.Random(seed)) for seed in seeds]


class Worsening(Bettering):
    step = -1


def many_a(text: str) -> float:
    return min(1.0, text.count("a") / 8)


def refined(found: World) -> list[Node]:
    """The answers that better another."""
    return [node for node in found.tree.nodes if node.depth > 1]


@given(
    seed=st.integers(0, 10_000),
    simulations=st.integers(1, 40),
    tokens=st.one_of(st.none(), st.integers(12, 200)),
    nodes=st.one_of(st.none(), st.integers(1, 20)),
    parallel=st.integers(1, 6),
    select=st.sampled_from(["puct", "thompson"]),
    schedule=st.sampled_from(["waves", "continuous"]),
    grader=st.sampled_from(["model", "verifier", "mixed", "confidence"]),
)
@settings(max_examples=60, deadline=None)
def test_a_child_is_drawn_after_the_template_of_problem_answer_and_feedback(
    seed: int, simulations: int, tokens: int | None, nodes: int | None, parallel: int, **params: Any
) -> None:
    found = ran(
        policy=FakePolicy(words, jitter=random.Random(seed)),
        seed=seed,
        parallel=parallel,
        action=REFINE,
        early_stop="off",
        sampling=Sampling(max_tokens=12),
        budget=BudgetLimits(simulations=simulations, tokens=tokens, nodes=nodes),
        **params,
    )
    check(found)
    tree, told = found.tree, params["grader"] in ("verifier", "mixed")
    asked_for = {PROMPT}
    for node in tree.nodes[1:]:
        parent = tree.nodes[node.parent or 0]
        # A child of the prompt is a fresh answer; one of an answer is drawn after that answer and what was said of it.
        asks = (
            found.reviser.asks(tree.text(parent), parent.outcome if told else None)
            if node.depth > 1
            else PROMPT
        )
        asked_for.add(asks)
        assert decode(tree.prompt_of(node)) == asks
        assert tree.sequence(node) == encode(asks) + node.tokens
        assert node.length == len(node.tokens)
        assert tree.text(node) == node.text
        # The words of its rule, from the first: its log-probs are those of its own prompt.
        assert math.exp(sum(node.logprobs)) == pytest.approx(probability(node.text, node.terminal))
        assert not told or parent.outcome != 1.0
    in_tree = {text for text, *_ in found.policy.requests} & asked_for
    assert in_tree == asked_for - ({PROMPT} if len(tree.nodes) == 1 else set())
    # An answer is asked about by the first plan that goes on from it, and never again.
    assert len(found.reviser.asked) >= sum(node.revision is not None for node in tree.nodes)
    assert all(outcome is None for _, outcome in found.reviser.asked) or told


def probability(text: str, terminal: str | None) -> float:
    found = math.prod(words(text[:i])[letter] for i, letter in enumerate(text))
    return found * (words(text)[""] if terminal == "eos" else 1.0)


def test_an_answer_is_asked_about_once_however_many_better_it() -> None:
    found = ran(words, action=REFINE, parallel=6, budget=BudgetLimits(simulations=60))
    asked = Counter(text for text, _ in found.reviser.asked)
    assert asked == Counter(found.tree.text(node) for node in found.tree.nodes if node.revision is not None)
    assert max(len(node.children) for node in found.tree.nodes[1:]) > 1


def test_scorers_judge_an_answer_as_one_to_the_problem_whatever_it_betters() -> None:
    found = ran(policy=Bettering(words), value=many_a, action=REFINE, budget=BudgetLimits(simulations=20))
    assert refined(found)
    assert all(node.value == many_a(node.text) for node in found.tree.nodes[1:])


def test_confidence_is_that_of_the_answer_alone() -> None:
    found = ran(words, None, action=REFINE, grader="confidence", budget=BudgetLimits(simulations=30))
    assert refined(found)
    for node in found.tree.nodes[1:]:
        assert node.value == pytest.approx(math.exp(sum(node.logprobs) / len(node.logprobs)))


@pytest.mark.parametrize(("policy", "deeper"), [(Bettering, True), (Worsening, False)])
def test_it_goes_deeper_where_answers_get_better_and_wider_where_they_do_not(
    policy: type[Bettering], deeper: bool
) -> None:
    found = ran(
        policy=policy(words),
        value=many_a,
        action=REFINE,
        width=1,
        sampling=Sampling(max_tokens=12),
        budget=BudgetLimits(simulations=40),
        **ONE_AT_A_TIME,
    )
    depth = max(node.depth for node in found.tree.nodes)
    if deeper:
        assert depth > 4
    else:
        assert depth <= 3


def test_no_answer_is_bettered_below_the_greatest_depth() -> None:
    found = ran(words, action=REFINE, max_depth=1, budget=BudgetLimits(simulations=40))
    assert not refined(found)
    assert not found.reviser.asked
    assert found.tree.stop_reason in ("exhausted", "budget.simulations")


def test_a_right_answer_is_not_bettered() -> None:
    task = FakeTask(lambda text: text.startswith("a"))
    found = ran(
        words,
        task=task,
        action=REFINE,
        grader="verifier",
        early_stop="off",
        budget=BudgetLimits(simulations=60),
    )
    check(found)
    assert refined(found)
    assert not any(node.text.startswith("a") for node in found.tree.nodes if node.children and node.depth)
    assert {outcome for _, outcome in found.reviser.asked} == {0.0}


class Critical(FakeReviser):
    """Has the policy say at most three tokens of an answer."""

    async def __call__(self, text: str, outcome: float | None, write: Write) -> Revision:
        revision = await super().__call__(text, outcome, write)
        return replace(revision, feedback=await write(encode(f"{PROMPT}{text}?{ASKED}"), 3))


@pytest.mark.parametrize("tokens", [40, 200])
def test_a_critique_is_paid_for_by_the_search_and_by_the_answer_that_it_betters(tokens: int) -> None:
    how = Sampling(max_tokens=5)
    found = ran(words, reviser=Critical(), sampling=how, action=REFINE, budget=BudgetLimits(1000, tokens))
    check(found)
    critiques = [
        (text, how.max_tokens) for text, how, _ in found.policy.requests if text.endswith(f"?{ASKED}")
    ]
    bettered = [node for node in found.tree.nodes[1:] if node.children]
    assert critiques
    assert bettered
    for node in bettered:
        assert node.revision is not None
        first = found.tree.nodes[node.children[0]]
        assert len(first.tokens) + len(encode(node.revision.feedback)) <= 5
    assert found.policy.generated == found.tree.usage.completion_tokens <= tokens


def test_an_answer_that_was_cut_short_is_not_bettered() -> None:
    found = ran(words, action=REFINE, sampling=Sampling(max_tokens=2), budget=BudgetLimits(simulations=60))
    check(found)
    cut = [node for node in found.tree.nodes if node.terminal == "truncated"]
    assert cut
    assert not any(node.children or node.revision for node in cut)


@pytest.mark.parametrize(
    ("reviser", "closed", "said"),
    [
        (FakeReviser(full=lambda text: text.startswith("a")), "context", "too long"),
        (FakeReviser(mute=lambda text: text.startswith("a")), "feedback", "the fake task has nothing to say"),
    ],
)
def test_an_answer_that_cannot_be_bettered_is_closed_by_name(
    reviser: FakeReviser, closed: str, said: str
) -> None:
    found = ran(words, reviser=reviser, action=REFINE, budget=BudgetLimits(simulations=60))
    check(found)
    shut = [node for node in found.tree.nodes if node.revision is not None and node.revision.closed]
    assert shut
    for node in shut:
        assert node.text.startswith("a")
        assert node.revision == Revision(said, closed=closed)  # type: ignore[arg-type]
        assert not node.children
    assert any(node.text.startswith("b") and node.children for node in found.tree.nodes[1:])


def test_a_search_ends_once_nothing_can_bring_anything_new() -> None:
    def one(text: str) -> Mapping[str, float]:
        return {"": 1.0} if text else {"a": 1.0}

    found = ran(
        one, action=REFINE, max_depth=3, width=1, budget=BudgetLimits(simulations=500), **ONE_AT_A_TIME
    )
    assert found.tree.stop_reason == "exhausted"
    assert [node.depth for node in found.tree.nodes] == [0, 1, 2, 3]


def test_what_has_landed_is_kept_when_a_search_is_stopped() -> None:
    async def stopped() -> World:
        found = world(words, action=REFINE, parallel=4, budget=BudgetLimits(simulations=1000))
        found.search.observe = lambda progress: (
            found.search.stop("cancelled", "client") if progress.simulations == 20 else None
        )
        await found.run()
        return found

    found = asyncio.run(stopped())
    check(found)
    assert found.tree.status == "cancelled"
    assert found.tree.answer is not None
    assert refined(found)


def test_a_plan_that_is_cancelled_leaves_no_prompt_behind() -> None:
    async def cancelled() -> World:
        found = world(words, action=REFINE, parallel=4, budget=BudgetLimits(simulations=1000))
        running = asyncio.create_task(found.run())
        while len(found.reviser.asked) < 3:  # noqa: ASYNC110  (a turn of the loop, not a wait)
            await asyncio.sleep(0)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        return found

    found = asyncio.run(cancelled())
    check(found)
    assert all(node.children for node in found.tree.nodes if node.revision is not None)


def test_waves_repeat_a_refinement() -> None:
    asked: dict[str, Any] = {"action": REFINE, "schedule": "waves", "parallel": 4, "budget": BudgetLimits(50)}
    assert shape(ran(words, **asked).tree) == shape(ran(words, **asked).tree)


def test_a_program_can_refine_with_a_reviser_of_its_own() -> None:
    tree = asyncio.run(
        search(
            encode(PROMPT),
            Bettering(words),
            None,
            FakeTask(lambda text: text.startswith("aaaa")),
            reviser=FakeReviser(),
            action=REFINE,
            grader="verifier",
            budget=BudgetLimits(simulations=200),
        )
    )
    assert tree.answer is not None
    assert tree.answer.outcome == 1.0
    assert tree.answer.text.startswith("aaaa")
    assert decode(tree.prompt_of(tree.nodes[tree.answer.node])).endswith(ASKED)


def test_without_a_reviser_a_refinement_is_refused_before_anything_is_drawn() -> None:
    policy = FakePolicy(words)
    with pytest.raises(ParamError, match="needs a reviser") as refused:
        asyncio.run(search(encode(PROMPT), policy, None, FakeTask(), action=REFINE))
    assert (refused.value.field, policy.requests) == ("action.kind", [])


@pytest.mark.parametrize(
    ("given", "field", "words_of_it"),
    [
        ({"algorithm": "beam"}, "action.kind", "refines answers: mcts"),
        ({"algorithm": "gumbel"}, "action.kind", "refines answers: mcts"),
        ({"algorithm": "best_of_n"}, "action", "has no effect"),
        ({"expand": "step"}, "expand", "whole answer"),
        ({"commit": "step"}, "commit", "no step"),
        ({"abandon": True}, "abandon", "only at its end"),
        ({"kappa_growth": 2.0}, "kappa_growth", "no steps left"),
        ({"answer": "most_visited"}, "answer", "ends none"),
    ],
)
def test_a_parameter_that_means_nothing_for_whole_answers_is_refused(
    given: dict[str, Any], field: str, words_of_it: str
) -> None:
    with pytest.raises(ParamError, match=words_of_it) as refused:
        search_params(**{"action": REFINE, **given})
    assert refused.value.field == field


def test_a_template_has_no_effect_on_other_actions() -> None:
    with pytest.raises(ParamError, match="no effect on actions of kind 'step'") as refused:
        search_params(action=Action(template="{feedback}"))
    assert refused.value.field == "action.template"


@pytest.mark.parametrize(
    ("node", "revision", "fault"),
    [
        (1, None, "has answers below its own, and no prompt"),
        (0, {"prompt": [1]}, "ends no answer"),
        (1, {"prompt": []}, "closed by None"),
        (1, {"prompt": [], "closed": "context"}, "closed by context"),
        (1, {"prompt": [1], "closed": "context"}, "closed by context"),
    ],
)
def test_a_tree_whose_prompts_do_not_fit_its_nodes_is_refused(
    node: int, revision: dict[str, Any] | None, fault: str
) -> None:
    found = ran(policy=Bettering(words), value=many_a, action=REFINE, budget=BudgetLimits(simulations=20))
    document = tree_to_dict(found.tree)
    parent = next(n.id for n in found.tree.nodes[1:] if n.children) if node else 0
    whole = {"feedback": "", "shortened": False, "closed": None}
    document["nodes"][parent]["revision"] = None if revision is None else {**whole, **revision}
    with pytest.raises(BadTree, match=fault):
        tree_from_dict(document)
