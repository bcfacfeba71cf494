import json

import pytest

from fakes_evaluation import seconds, tokens
from ramify.evaluation.methods import DEFAULT, Method, load_methods, override, parse_value, sweep
from ramify.settings import BadSettings

FILE = """
[[method]]
name = "flat"
algorithm = "best_of_n"
answer = "orm_max"

[[method]]
name = "tree"
algorithm = "mcts"
search = { kappa = 2.0, action = { stop = ["\\n"] } }
"""


@pytest.fixture
def methods(tmp_path) -> list[Method]:
    path = tmp_path / "methods.toml"
    path.write_text(FILE)
    return load_methods(path)


def write(tmp_path, text: str):
    path = tmp_path / "bad.toml"
    path.write_text(text)
    return path


def test_the_shipped_methods_parse_and_ask_for_what_a_request_can_carry():
    for method in load_methods():
        json.dumps(method.request(tokens(300)))
        assert method.params(tokens(300)).budget.tokens == 300


def test_methods_come_in_the_order_named():
    assert [m.name for m in load_methods(names=["mcts", "greedy"])] == ["mcts", "greedy"]


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(BadSettings, match="did you mean 'gumbel'"):
        load_methods(names=["gumbell"])


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "no \\[\\[method\\]\\]"),
        ("[[method]]\nname = 'a'", "algorithm"),
        ("[[method]]\nname = 'a'\nalgorithm = 'mtcs'", "did you mean 'mcts'"),
        ("[[method]]\nname = 'a'\nalgorithm = 'mcts'\nanswr = 'orm_max'", "did you mean 'answer'"),
        ("[[method]]\nname = 'a'\nalgorithm = 'mcts'\nsearch = { kapa = 1 }", "kapa"),
        ("[[method]]\nname = 'a'\nalgorithm = 'mcts'\nsampling = { heat = 1 }", "heat"),
        ("[[method]]\nname = 'a'\nalgorithm = 'best_of_n'\nsearch = { kappa = 1 }", "kappa"),
        ("[[method]]\nname = 'a'\nalgorithm = 'mcts'\n" * 2, "alike"),
        ("[[method", "not TOML"),
    ],
)
def test_a_bad_file_says_what_is_wrong(tmp_path, text, complaint):
    with pytest.raises(BadSettings, match=complaint):
        load_methods(write(tmp_path, text))


def test_set_without_a_name_changes_the_trees_and_leaves_the_baselines(methods):
    flat, tree = override(methods, ["search.kappa=3", "answer=orm_max"])
    assert tree.params(tokens(100)).kappa == 3
    assert tree.answer == "orm_max"
    assert flat == methods[0]


def test_set_with_a_name_changes_that_method_only(methods):
    flat, tree = override(methods, ["flat.sampling.temperature=0.7", "tree.search.action.max_tokens=9"])
    assert flat.sampling == {"temperature": 0.7}
    assert tree.params(tokens(100)).action.max_tokens == 9
    assert tree.params(tokens(100)).action.stop == ("\n",)
    assert tree.sampling == {}


@pytest.mark.parametrize(
    "setting", ["search.kapa=3", "kappa=3", "search.kappa", "search.kappa=-1", "three.search.kappa=1"]
)
def test_a_setting_that_changes_nothing_is_an_error(methods, setting):
    with pytest.raises(BadSettings):
        override(methods, [setting])


def test_a_sweep_makes_a_method_of_every_combination(methods):
    names = [m.name for m in sweep(methods, ["search.kappa=1,2", "tree.answer=orm_max,orm_vote"])]
    assert names == [
        "flat",
        "tree[kappa=1,answer=orm_max]",
        "tree[kappa=1,answer=orm_vote]",
        "tree[kappa=2,answer=orm_max]",
        "tree[kappa=2,answer=orm_vote]",
    ]


@pytest.mark.parametrize(
    ("text", "value"), [("3", 3), ("0.5", 0.5), ("true", True), ("thompson", "thompson"), ('["a"]', ["a"])]
)
def test_values_are_read_as_toml_and_bare_words_as_strings(text, value):
    assert parse_value(text) == value


def test_methods_that_draw_alike_share_a_run():
    flat = Method("a", "best_of_n", "orm_max")
    assert flat.tree_key("tokens") == Method("b", "self_consistency", "majority").tree_key("tokens")
    cooler = Method("b", "self_consistency", "majority", sampling={"temperature": 0.5})
    assert flat.tree_key("tokens") != cooler.tree_key("tokens")
    tree = Method("a", "mcts", "orm_max")
    assert tree.tree_key("tokens") == Method("b", "mcts", "orm_vote").tree_key("tokens")
    assert tree.tree_key("tokens") != Method("b", "gumbel", "orm_max").tree_key("tokens")


def test_only_draws_that_do_not_look_at_the_budget_are_read_off():
    assert Method("a", "best_of_n").reads_off
    assert Method("a", "self_consistency", "majority").reads_off
    assert not Method("a", "best_of_n", search={"early_stop": "unbeatable"}).reads_off
    for algorithm in ("mcts", "gumbel", "beam"):
        assert not Method("a", algorithm).reads_off


def test_on_the_clock_only_the_same_work_is_shared():
    flat, vote = Method("flat", "best_of_n", "orm_max"), Method("vote", "best_of_n", "orm_vote")
    majority = Method("majority", "self_consistency", "majority")
    assert flat.tree_key("seconds") == vote.tree_key("seconds") != majority.tree_key("seconds")
    assert flat.tree_key("tokens") == majority.tree_key("tokens")
    assert majority.request(seconds(2))["answer"] == "majority"
    assert majority.request(tokens(9))["answer"] == "orm_vote"


def test_default_says_nothing_but_the_budget():
    (method,) = load_methods(names=["default"])
    assert method.request(seconds(0.5)) == {"budget": {"seconds": 0.5}}
    assert not method.sampling
    assert not method.reads_off
    assert override([method], ["search.kappa=3"]) == [DEFAULT]
    (changed,) = override([method], ["default.search.kappa=3"])
    assert changed.request(tokens(9)) == {"kappa": 3, "budget": {"tokens": 9}}
