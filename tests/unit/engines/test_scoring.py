"""The scorers that the settings name: each by its name, on its engine, with its weight or its threshold."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from ramify.engine_options import ScorerOptions
from ramify.engines import EngineConfig, Serving
from ramify.engines.errors import EngineStartFailed
from ramify.engines.judges import ONE_LABEL, JudgeModel
from ramify.engines.remote import RemoteScorer, read_remote
from ramify.engines.scorer import VllmScorer
from ramify.engines.scoring import Judge, ScorerMaker, read_judges, role_of
from ramify.engines.tokenizer import Tokenizer
from ramify.weights import load_release, shipped

HTTP = ScorerOptions(kind="http", url="http://scorer.test/values", prune_below=0.2)
OWN = ScorerOptions(weight=2.0)
PRM = ScorerOptions(kind="model", model=Path("prm"))


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(load_release(shipped()).policy_path)


def test_each_scorer_has_its_name_its_engine_and_its_part_in_the_judgement(tokenizer: Tokenizer) -> None:
    config = EngineConfig(Path("p"), Path("v"), scorers={"own": OWN, "prm": PRM, "safety": HTTP})
    model = JudgeModel(cast(Any, None), ONE_LABEL, tokenizer, None)
    judges: dict[str, Judge] = {"own": model, "prm": model, "safety": read_remote(HTTP, tokenizer)}
    engines = {role: cast(Any, object()) for role in ("policy", "value", "scorer_prm")}
    maker = ScorerMaker(config, tokenizer, engines, cast(Any, engines), Serving)
    own = maker.own(judges)
    scorers = maker.all(judges, own)
    named = scorers.named
    assert [type(one.scorer) for one in named.values()] == [VllmScorer, VllmScorer, RemoteScorer]
    assert named["own"].scorer is own
    assert [(one.weight, one.prune_below) for one in named.values()] == [(2.0, None), (1.0, None), (1.0, 0.2)]
    assert [role_of(name, options) for name, options in config.scorers.items()][:2] == ["value", "scorer_prm"]


def test_beside_a_scorer_of_the_settings_alone_the_release_judges_nothing(tokenizer: Tokenizer) -> None:
    config = EngineConfig(Path("p"), scorers={"": PRM})
    engines = {role: cast(Any, object()) for role in ("policy", "value")}
    maker = ScorerMaker(config, tokenizer, engines, cast(Any, engines), Serving)
    judges: dict[str, Judge] = {"": JudgeModel(cast(Any, None), ONE_LABEL, tokenizer, None)}
    assert maker.own(judges) is None
    assert maker.all(judges, None).weighing == ("",)


def test_a_policy_alone_with_a_safety_scorer_has_none_that_says_what_an_answer_is_worth(
    tokenizer: Tokenizer,
) -> None:
    config = EngineConfig(Path("p"), scorers={"": ScorerOptions(), "safety": HTTP})
    judges = read_judges(config, tokenizer)
    assert list(judges) == ["safety"]
    engines = {"policy": cast(Any, object())}
    scorers = ScorerMaker(config, tokenizer, engines, cast(Any, engines), Serving).all(judges, None)
    assert (scorers.weighing, scorers.pruning) == ((), ("safety",))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (OWN, "scorers.x has no kind, so it is the value model or head"),
        (ScorerOptions(kind="model", model=Path("nowhere")), "scorers.x: .*nowhere"),
    ],
)
def test_what_cannot_be_used_is_refused_by_its_name(
    tokenizer: Tokenizer, options: ScorerOptions, said: str
) -> None:
    with pytest.raises(EngineStartFailed, match=said):
        read_judges(EngineConfig(Path("p"), scorers={"x": options}), tokenizer)
