"""Search defaults: read off the manifest, chosen by the budget, refused at publication if no request could say them."""

import tomllib
from typing import Any

import pytest
from pydantic import ValidationError

from ramify.search.records import BudgetLimits
from ramify.weights import Action, Details, SearchDefaults, for_budget, toml_of

FEW = {"up_to": {"tokens": 600}, "search": {"algorithm": "best_of_n"}, "sampling": {"temperature": 0.8}}
QUICK = {"up_to": {"seconds": 0.5}, "search": {"algorithm": "best_of_n", "answer": "majority"}}
SLOW = {"up_to": {"seconds_worth": 100}, "search": {"algorithm": "mcts", "parallel": 6}}
REST = {"search": {"algorithm": "mcts", "kappa": 0.9, "abandon": True}, "sampling": {"top_p": 0.95}}


def details(*entries: dict[str, Any], **rest: Any) -> Details:
    return Details.model_validate({"name": "tiny", "search": entries, **rest})


@pytest.mark.parametrize(
    ("budget", "chosen"),
    [
        (BudgetLimits(tokens=600), FEW),
        (BudgetLimits(tokens=601), REST),
        (BudgetLimits(seconds=0.5), QUICK),
        (BudgetLimits(tokens=5000, seconds=0.2), QUICK),
        (BudgetLimits(), REST),
        (BudgetLimits(simulations=2), REST),
    ],
)
def test_the_first_entry_that_covers_the_budget_is_used(budget: BudgetLimits, chosen: dict[str, Any]) -> None:
    entries = details(FEW, QUICK, REST).search
    assert for_budget(entries, budget) == SearchDefaults(**chosen)


@pytest.mark.parametrize(
    ("budget", "worth", "chosen"),
    [
        (BudgetLimits(seconds=2), 100, SLOW),
        (BudgetLimits(seconds=2), 101, REST),
        (BudgetLimits(seconds=2), None, REST),
        (BudgetLimits(tokens=50), 100, REST),
    ],
)
def test_seconds_are_covered_by_what_they_are_worth(
    budget: BudgetLimits, worth: int | None, chosen: dict[str, Any]
) -> None:
    def of(seconds: float, most: int) -> int | None:
        assert (seconds, most) == (2, 6)  # with as many draws in flight as the entry has
        return worth

    assert for_budget(details(SLOW, REST).search, budget, of) == SearchDefaults(**chosen)


def test_a_release_without_search_defaults_has_none_for_any_budget() -> None:
    assert for_budget(details().search, BudgetLimits(tokens=600)) is None


def test_a_manifest_says_them_in_json_as_they_were_given() -> None:
    given = details(FEW, QUICK, REST)
    assert Details.model_validate_json(given.model_dump_json()) == given
    assert given.model_dump(mode="json")["search"][0] == FEW


def test_the_file_of_settings_holds_the_same() -> None:
    given = details(FEW, QUICK, REST).search
    read = tomllib.loads(toml_of(given))
    assert details(*read["search"]).search == given


@pytest.mark.parametrize(
    ("entries", "fault"),
    [
        ([{"search": {"algorithm": "mcts", "kapa": 1}}], "0.search.kapa: no such search parameter"),
        ([{"search": {"algorithm": "mcts", "kappa": 5000}}], "0.search.kappa: 5000 is not a number from"),
        (
            [{"search": {"algorithm": "beam", "kappa": 1}}],
            "0.search.kappa: has no effect with algorithm 'beam'",
        ),
        ([{"search": {"algorithm": "mtcs"}}], "did you mean 'mcts'"),
        ([{"search": {"algorithm": ["mcts"]}}], "0.search.algorithm"),
        ([{"search": {"kappa": 1}}], "0.search.algorithm: is missing"),
        ([{"search": {"algorithm": "mcts", "budget": {"tokens": 9}}}], "0.search.budget: is the request's"),
        ([{"search": {"algorithm": "mcts", "action": {}}}], "0.search.action: is the release's own"),
        ([{**REST, "sampling": {"max_tokens": 9}}], "0.sampling.max_tokens: is the release's own"),
        ([{**REST, "sampling": {"temperature": 3}}], "0.sampling.temperature: 3 is not a number from 0 to 2"),
        ([{**REST, "sampling": {"temperature": 0}}], "0.sampling.temperature: is 0, at which all draws"),
        ([{**REST, "sampling": {"warmth": 1}}], "0.sampling.warmth: no such sampling parameter"),
        ([{**REST, "answers": 1}], "answers"),
        ([FEW], "0.up_to: the last entry is for every budget"),
        ([REST, REST], "0.up_to: is missing"),
        ([SLOW, SLOW, REST], "1.up_to: no budget is left for it: an entry above is up to 100"),
        ([FEW, FEW, REST], "1.up_to: no budget is left for it: an entry above is up to 600"),
        ([{**FEW, "up_to": {"tokens": 1, "seconds": 1}}, REST], "up_to"),
        ([{**FEW, "up_to": {"tokens": 0}}, REST], "up_to"),
        ([{**FEW, "up_to": {"nodes": 1}}, REST], "up_to"),
    ],
)
def test_a_wrong_field_is_refused_by_its_name(entries: list[dict[str, Any]], fault: str) -> None:
    with pytest.raises(ValidationError) as caught:
        details(*entries)
    assert fault in str(caught.value)


def test_they_fit_the_action_of_their_release() -> None:
    tokens = Action(kind="token")
    with pytest.raises(ValidationError, match=r"0\.search\.action\.kind: 'token' enumerates next tokens"):
        details({"search": {"algorithm": "mcts"}}, default_action=tokens)
    assert details({"search": {"algorithm": "mcts", "expand": "step"}}, default_action=tokens).search
    assert details({"search": {"algorithm": "best_of_n"}}, default_action=tokens).search
