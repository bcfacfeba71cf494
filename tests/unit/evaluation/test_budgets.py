import pytest

from fakes_evaluation import seconds, tokens
from ramify.evaluation.budgets import parse_budgets


def test_budgets_are_read_in_both_units_each_once_and_in_order():
    found = parse_budgets(["2s", "1000", "0.5s", "300", "2.0s"])
    assert found == [tokens(300), tokens(1000), seconds(0.5), seconds(2)]
    assert [str(budget) for budget in found] == ["300", "1000", "0.5s", "2s"]
    assert parse_budgets(map(str, found)) == found


def test_a_request_is_given_them_as_it_names_them():
    assert tokens(300).limits() == {"tokens": 300}
    assert seconds(0.5).limits() == {"seconds": 0.5}


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        ([], "names no budget"),
        (["1k"], "'1k' is no budget: write tokens as 300"),
        (["2.5"], "'2.5' is no budget"),
        (["s"], "'s' is no budget"),
        (["0"], "'0': tokens go from 1 to"),
        (["0s"], "'0s': seconds go from 0.001 to 86400"),
        (["nans"], "seconds go from"),
    ],
)
def test_what_is_no_budget_is_refused_by_name(names, complaint):
    with pytest.raises(ValueError, match=complaint):
        parse_budgets(names)
