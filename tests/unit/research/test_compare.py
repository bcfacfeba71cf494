"""Comparisons: their equal costs, their records and their reports."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

import ramify_trainer
from ramify.search.codec import tree_to_dict
from ramify.search.params import search_params
from ramify.search.records import Sampling, Status, Terminal, Usage
from ramify.search.tree import Node, Tree
from ramify_client import ConnectionFailed
from ramify_client.results import SearchResult
from ramify_trainer.errors import TrainerError
from ramify_trainer.gate.policy_scores import PolicyScores
from ramify_trainer.loop.state import State
from research.compare import trl_grpo
from research.compare.config import Arm, CompareConfig, SearchedConfig
from research.compare.costs import costed, value_tokens
from research.compare.intervals import over_seeds
from research.compare.passes import passes
from research.compare.points import Point, keep, means, read, steps_to_reach
from research.compare.report import by_seed, differences, markdown, write
from research.compare.run import compare, searched

FLAT = {
    "name": "flat",
    "label": "flat",
    "search": {"algorithm": "best_of_n"},
    "learning": {"objective": "tree_ppo"},
}
TREE = {
    "name": "tree",
    "label": "tree",
    "search": {"algorithm": "mcts"},
    "learning": {"objective": "tree_ppo"},
}


def point(arm: str, round_: int, mean: float, seed: int = 0, seconds: float = 10.0) -> Point:
    steps, tokens = 20 * round_, 1000 * round_
    return Point(
        arm=arm, seed=seed, round=round_, steps=steps, tokens=tokens, greedy=mean / 2, mean_at_k=mean, searched=mean,
        seconds=seconds if round_ else 0.0, training={"policy/tokens": 1500.0} if round_ else {},
    )  # fmt: skip


def spending(points: Sequence[Point], value: int) -> list[Point]:
    """Return points with so many tokens of the value model for each of the policy's, and known costs of training."""
    return [
        p.model_copy(
            update={"value_tokens": value * p.tokens, "trained_tokens": 50 * p.steps, "read_tokens": p.tokens}
        )
        for p in points
    ]


def of(*arms: dict[str, object], **settings: object) -> CompareConfig:
    return CompareConfig.model_validate({"arms": arms, "rounds": 2, **settings})


@pytest.mark.parametrize("part", ["search", "learning"])
@pytest.mark.parametrize("key", ["budget", "tokens_per_batch"])
def test_no_arm_sets_what_must_be_equal(part: str, key: str):
    with pytest.raises(ValidationError, match=key):
        Arm.model_validate({**FLAT, part: {key: 1}})


def test_no_phase_of_an_arm_sets_what_must_be_equal():
    phases = [{"from_round": 2, "tokens_per_batch": 12}]
    with pytest.raises(ValidationError, match="'flat' sets 'tokens_per_batch'"):
        Arm.model_validate({**FLAT, "learning": {"objective": "sft", "phases": phases}})


def test_two_arms_of_one_name_are_refused():
    with pytest.raises(ValidationError, match="one name"):
        of(FLAT, FLAT)


def test_every_arm_runs_once_before_any_runs_again():
    runs = [run.name for run in of({**FLAT, "seeds": 2}, TREE).runs()]
    assert runs == ["flat-0", "tree-0", "flat-1"]


def test_a_base_beside_the_file_is_found_from_anywhere(tmp_path: Path):
    path = tmp_path / "compare.toml"
    path.write_text(
        'base = "weights/v000001"\n[[arms]]\nname = "a"\nlabel = "a"\nsearch = {}\nlearning = {}\n'
    )
    assert CompareConfig.read(path).base == str(tmp_path / "weights" / "v000001")


def test_points_come_back_as_they_were_kept(tmp_path: Path):
    assert read(tmp_path / "points.json") == []
    points = [point("flat", 0, 0.1), point("flat", 1, 0.2)]
    keep(points, tmp_path / "points.json")
    assert read(tmp_path / "points.json") == points


def test_means_are_over_the_seeds_that_came_so_far():
    points = [point("flat", 0, 0.1), point("flat", 1, 0.2), point("flat", 0, 0.3, seed=1)]
    base, first = means(points)
    assert (base.mean_at_k, base.seeds) == (pytest.approx(0.2), 2)
    assert (first.mean_at_k, first.seeds, first.seconds) == (0.2, 1, 10.0)


def test_steps_to_a_level_are_read_off_a_straight_line():
    curve = means([point("flat", i, mean) for i, mean in enumerate([0.1, 0.3, 0.2, 0.5])])
    assert steps_to_reach(curve, "mean_at_k", 0.2) == pytest.approx(10)
    assert steps_to_reach(curve, "mean_at_k", 0.4) == pytest.approx(40 + 20 * 2 / 3)
    assert steps_to_reach(curve, "mean_at_k", 0.05) == 0
    assert steps_to_reach(curve, "mean_at_k", 0.6) is None


def test_the_table_says_where_each_arm_ended_and_who_was_sooner(tmp_path: Path):
    config = of(FLAT, TREE)
    points = [point("flat", i, m) for i, m in enumerate([0.1, 0.2, 0.3])]
    points += spending([point("tree", i, m) for i, m in enumerate([0.1, 0.3, 0.4])], value=2)
    table = markdown(config, points)
    assert "| base |  | 0 | 0 | 0 | 0 | 0 | 0 | 10.0 | 5.0 | 10.0 |" in table
    assert "| flat | 1 | 40 | 2,000 |  |  |  | 20 | 30.0 | 15.0 | 30.0 |" in table
    assert "| tree | 1 | 40 | 2,000 | 4,000 | 2,000 | 2,000 | 20 | 40.0 | 20.0 | 40.0 |" in table
    assert "| steps to the mean@k of | flat (30.0) | tree (40.0) |" in table
    assert "| flat | 40 | never |" in table
    assert "| tree | 20 | 40 |" in table
    write(tmp_path, config, points)
    assert {p.name for p in tmp_path.iterdir()} == {"results.md", "results.json", "curves.png", "curves.svg"}
    curves = (tmp_path / "curves.svg").read_text()
    for cost in ("steps", "policy tokens", "policy and value tokens", "trained tokens", "seconds"):
        assert f"{cost} -->" in curves
    kept = json.loads((tmp_path / "results.json").read_text())["points"][-1]
    assert [kept[f"{name}tokens"] for name in ("", "value_", "trained_", "read_")] == [2000, 4000, 2000, 2000]


def test_every_seed_is_held_against_the_first_arm_of_the_same_seed():
    config = of({**FLAT, "seeds": 2}, {**TREE, "seeds": 2})
    curves = {("flat", 0): [0.1, 0.2, 0.3], ("tree", 0): [0.1, 0.3, 0.4], ("flat", 1): [0.1, 0.5, 0.6]}
    points = [point(arm, i, m, seed) for (arm, seed), curve in curves.items() for i, m in enumerate(curve)]
    unfinished = [point("tree", i, 0.9, 1) for i in range(2)]
    assert by_seed(config, points + unfinished)[2:] == [
        "| flat | 0 | 30.0 | 15.0 | 30.0 | 40 |",
        "| tree | 0 | 40.0 | 20.0 | 40.0 | 20 |",
        "| flat | 1 | 60.0 | 30.0 | 60.0 | 40 |",
    ]
    assert by_seed(config, points[3:6])[2:] == ["| tree | 0 | 40.0 | 20.0 | 40.0 | never |"]


def finished_points(name: str, rounds: int = 3) -> list[Point]:
    """Return the points of the run in a folder of that name, the base's included."""
    arm, seed = name.rsplit("-", 1)
    return [point(arm, i, 0.1, int(seed)) for i in range(rounds)]


def ended(folder: Path, scores: Mapping[str, float], shares: Sequence[float] = (0.0, 0.5, 1.0)) -> None:
    """Write points and scores of a run of so many rounds, the base included: a share of the last after each."""
    state = State.begin("run", "v000001")
    state.served = [f"v{i + 1:06}" for i in range(len(shares))]
    (folder / "state" / "held_out").mkdir(parents=True)
    keep(finished_points(folder.name, len(shares)), folder / "points.json")
    state.save(folder / "state" / "state.json")
    for release, share in zip(state.served, shares, strict=True):
        greedy = {name: share * x for name, x in scores.items()}
        measured = json.dumps(asdict(PolicyScores(greedy, {name: x / 2 for name, x in greedy.items()})))
        (folder / "state" / "held_out" / f"{release}.json").write_text(measured)


def test_differences_are_paired_by_problem_and_of_finished_runs_alone(tmp_path: Path):
    config = of({**FLAT, "seeds": 2}, {**TREE, "seeds": 2})
    ended(tmp_path / "flat-0", {"easy": 1.0, "hard": 0.0})
    ended(tmp_path / "tree-0", {"hard": 0.5, "easy": 1.5})
    ended(tmp_path / "flat-1", {"easy": 1.0, "hard": 0.0})
    ended(tmp_path / "tree-1", {"hard": 0.5, "easy": 1.5}, (0.0, 0.5))
    assert differences(config, tmp_path)[2:] == [
        "| tree less flat | 0 | +25.0 [+25.0, +25.0] | +50.0 [+50.0, +50.0] |"
    ]


def test_an_arm_that_climbs_in_half_the_steps_is_told_so_with_seeds_and_problems_drawn_anew(tmp_path: Path):
    config, scores = (
        of({**FLAT, "seeds": 2}, {**TREE, "seeds": 2}),
        {f"p{i}": float(i % 2) for i in range(60)},
    )
    for seed in (0, 1):
        ended(tmp_path / f"flat-{seed}", scores)
        ended(tmp_path / f"tree-{seed}", scores, (0.0, 1.0, 1.0 + 0.1 * seed))
    points = [p for seed in (0, 1) for p in spending(finished_points(f"flat-{seed}"), value=0)]
    points += [p for seed in (0, 1) for p in spending(finished_points(f"tree-{seed}"), value=1 + seed)]
    shares = ["0.50 [0.50, 0.50]"] * 2 + ["1.25 [1.00, 1.50]"] * 2
    assert over_seeds(config, tmp_path, points)[2:] == [
        " | ".join(
            ["| tree | 2 | +1.3 [+0.0, +2.8] | +2.5 [+0.0, +5.6]", *["+0.0 [+0.0, +0.0]"] * 2, *shares]
        )
        + " |"
    ]
    (row,) = over_seeds(config, tmp_path, [p.model_copy(update={"value_tokens": None}) for p in points])[2:]
    assert row.endswith("| 0.50 [0.50, 0.50] | 0.50 [0.50, 0.50] |  |  |")


def test_an_arm_of_fewer_steps_a_round_is_held_against_all_steps_of_the_first(tmp_path: Path):
    config, scores = of(FLAT, TREE), {f"p{i}": float(i % 2) for i in range(60)}
    ended(tmp_path / "flat-0", scores)
    ended(tmp_path / "tree-0", scores)
    half = [p.model_copy(update={"steps": p.steps // 2}) for p in finished_points("tree-0")]
    (row,) = over_seeds(config, tmp_path, [*finished_points("flat-0"), *half])[2:]
    assert row.endswith("| 0.50 [0.50, 0.50] | 0.50 [0.50, 0.50] |  |  |")


def test_an_arm_may_have_rounds_of_its_own(tmp_path: Path):
    config, scores = of(FLAT, {**TREE, "rounds": 3}), {f"p{i}": float(i % 2) for i in range(60)}
    assert [config.loop(run, tmp_path).rounds for run in config.runs()] == [2, 3]
    ended(tmp_path / "flat-0", scores)
    ended(tmp_path / "tree-0", scores, (0.0, 0.25, 0.5, 1.0))
    (row,) = over_seeds(config, tmp_path, [*finished_points("flat-0"), *finished_points("tree-0", 4)])[2:]
    # a quarter of flat's end in half of its steps, and all of it after one and a half times as many
    assert row.startswith("| tree | 1 | +0.0 [+0.0, +0.0] | +0.0 [+0.0, +0.0] | -18.8 [")
    assert row.endswith("| 1.50 [1.50, 1.50] | 1.50 [1.50, 1.50] |  |  |")


def test_an_arm_that_never_gets_there_is_told_so(tmp_path: Path):
    config, scores = of(FLAT, TREE), {f"p{i}": float(i % 2) for i in range(60)}
    ended(tmp_path / "flat-0", scores)
    ended(tmp_path / "tree-0", scores, (0.0, 0.4, 0.9))
    points = [p for name in ("flat-0", "tree-0") for p in spending(finished_points(name), value=0)]
    (row,) = over_seeds(config, tmp_path, points)[2:]
    assert row.endswith(" | ".join(["", *["never [never, never]"] * 4, ""]).strip(" "))


def searched_tree(seed: int, scored: int, status: Status = "complete") -> Tree:
    """Return a tree whose prompt has two tokens and whose steps have three each.

    A first simulation draws a finished answer of three steps, of which the verifier judges the last; a second one
    another step after the first of them, and one after that."""
    tree = Tree(
        id=f"tree_{seed}-{status}", created_at=0.0, model="m", prompt="p", prompt_tokens=(1, 2),
        params=search_params("mcts"), sampling=Sampling(), seed=seed, status=status,
        usage=Usage(scored_sequences=scored),
    )  # fmt: skip

    def add(
        parent: Node, simulation: int, value: float | None = 0.5, terminal: Terminal | None = None
    ) -> Node:
        drawn = 3 * parent.depth + simulation
        return tree.add(
            parent, tokens=(drawn, drawn + 1, drawn + 2), logprobs=(0.0,) * 3, length=parent.length + 3,
            value=value, simulation=simulation, terminal=terminal,
        )  # fmt: skip

    first = add(tree.root, 1)
    add(add(first, 1), 1, value=None, terminal="eos")
    add(add(first, 2), 2)
    return tree


def test_the_value_model_reads_each_path_of_a_simulation_once_and_again_what_was_drawn_twice():
    passes = (2 + 6) + (2 + 9)
    assert value_tokens(searched_tree(0, scored=4)) == passes
    assert value_tokens(searched_tree(0, scored=6)) == passes * 6 / 4
    assert value_tokens(searched_tree(0, scored=0)) == 0  # the values came with the policy's draws


def rounds_with_trees(folder: Path, *rounds: Sequence[Tree]) -> None:
    for i, trees in enumerate(rounds, 1):
        here = folder / "state" / f"round-{i:04}"
        here.mkdir(parents=True)
        lines = [{"round": i, "tree_id": t.id, "tree": tree_to_dict(t), "feedback": None} for t in trees]
        (here / "trees.ndjson").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_costs_are_counted_from_a_runs_trees_and_figures_without_searches_that_were_cut_short(tmp_path: Path):
    cut = searched_tree(1, scored=4, status="cancelled")
    rounds_with_trees(tmp_path, [searched_tree(0, scored=4), cut, searched_tree(1, scored=8)], [])
    points = [point("flat", i, 0.1) for i in range(3)]
    points = [p.model_copy(update={"training": {**p.training, "read_tokens": 2000.0}}) for p in points]
    (run,) = of(FLAT).runs()
    base, first, second = costed(points, run, tmp_path)
    assert (base.value_tokens, base.trained_tokens, base.read_tokens) == (0, 0, 0)
    assert (first.value_tokens, first.trained_tokens, first.read_tokens) == (19 + 38, 1500, 2000)
    assert (second.value_tokens, second.trained_tokens, second.read_tokens) == (19 + 38, 3000, 4000)
    assert second.searching_tokens == second.tokens + 19 + 38


def test_costs_that_an_earlier_run_has_not_kept_are_not_known_from_there_on(tmp_path: Path):
    rounds_with_trees(tmp_path, [searched_tree(0, scored=4)])
    (run,) = of(FLAT).runs()
    _, first, second = costed([point("flat", i, 0.1) for i in range(3)], run, tmp_path)
    assert (first.value_tokens, first.read_tokens) == (19, None)
    assert (second.value_tokens, second.trained_tokens, second.searching_tokens) == (None, 3000, None)


FORTY = {"collect": {"problems": 40}}
"""As many problems as a round has steps."""
PEER = {"name": "peer", "label": "peer", "trl": {"generations": 4}}


def test_an_arm_without_searches_has_a_gap_in_its_place(tmp_path: Path):
    config = of(FLAT, PEER, **FORTY)
    points = [point("flat", i, 0.1) for i in range(3)]
    points += [point("peer", i, 0.2).model_copy(update={"searched": None}) for i in range(3)]
    table = write(tmp_path, config, points)
    assert "| peer | 1 | 40 | 2,000 |  |  |  | 20 | 20.0 | 10.0 |  |" in table
    assert "| peer | 20.0 / 10.0 | 20.0 / 10.0 | 20.0 / 10.0 |" in table
    assert "| peer | 0 | 20.0 | 10.0 |  | 0 |" in table


def test_the_end_of_a_peer_is_that_of_its_last_round(tmp_path: Path):
    config = of(FLAT, PEER, **FORTY)
    ended(tmp_path / "flat-0", {"easy": 1.0, "hard": 0.0})
    ended(tmp_path / "peer-0", {"easy": 1.0, "hard": 0.5})
    state = tmp_path / "peer-0" / "state"
    (state / "state.json").unlink()
    for i in range(3):
        (state / "held_out" / f"v{i + 1:06}.json").rename(state / "held_out" / f"{i}.json")
    assert [line.split(" | ")[0] for line in differences(config, tmp_path)[2:]] == ["| peer less flat"]


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"search": {"algorithm": "mcts"}}, "no 'algorithm'"),
        ({"learning": {"imitate": 1.0}}, "no 'imitate'"),
        ({"learning": {"clip_high": 0.2}}, "no 'clip_high'"),
        ({"temperature": {"entropy": 0.3}}, "no 'temperature'"),
    ],
)
def test_a_peer_takes_no_setting_that_its_library_lacks(part: dict[str, object], message: str):
    with pytest.raises(ValidationError, match=message):
        Arm.model_validate({**PEER, **part})


def test_a_peer_needs_as_many_problems_in_every_step():
    with pytest.raises(
        ValidationError, match=r"collect\.problems is 150.*multiple of learning\.steps_per_round, 40"
    ):
        of(PEER, collect={"problems": 150})


def test_pass_at_k_is_of_the_problems_of_all_seeds(tmp_path: Path):
    config = of({**FLAT, "seeds": 2}, TREE, passes={"data": "countdown:test", "answers": 4})

    def drawn(name: str, **right: float) -> None:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(asdict(PolicyScores({}, right))))

    for seed in (0, 1):
        drawn(f"passes-base-{seed}.json", easy=0.5, hard=0.0)
    drawn("flat-0/passes.json", easy=1.0, hard=0.25)
    drawn("flat-1/passes.json", easy=1.0, hard=0.0)
    assert passes(config, tmp_path)[2:] == [
        "| base | 2 | 25.0 | 50.0 |  |  |",
        "| flat | 2 | 56.2 | 75.0 | +25.0 [+0.0, +75.0] |  |",
    ]


def begun(out: Path, config: CompareConfig) -> None:
    """Leave a comparison of which every run is finished."""
    out.mkdir()
    (out / "config.json").write_text(config.model_dump_json())
    for run in config.runs():
        (out / run.name).mkdir()
        keep([point(run.arm.name, i, 0.1, run.seed) for i in range(3)], out / run.name / "points.json")


def test_a_comparison_goes_on_with_more_arms_and_seeds_and_under_no_other_settings(tmp_path: Path):
    out, said = tmp_path / "out", list[str]()
    first, more = of(FLAT), of({**FLAT, "label": "renamed"}, PEER, **FORTY)
    begun(out, first.model_copy(update={"collect": more.collect}))
    points = compare(more, out, lambda what, *_: said.append(what), ["flat-0"])
    assert (len(points), said) == (3, [])
    for other in (of(TREE), of({**FLAT, "search": {"algorithm": "mcts"}}), of(FLAT, rounds=3)):
        with pytest.raises(TrainerError, match="begun with other settings"):
            compare(other, out, lambda *_: None)


def test_only_runs_that_there_are_can_be_asked_for(tmp_path: Path):
    with pytest.raises(TrainerError, match="no arm and seed is called flat-1"):
        compare(of(FLAT), tmp_path / "out", lambda *_: None, ["flat-1"])
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(trl_grpo.installed(), reason="TRL is installed")
def test_a_peer_whose_library_is_away_is_left_out_unless_it_is_asked_for_by_name(tmp_path: Path):
    said: list[str] = []
    assert compare(of(PEER, **FORTY), tmp_path, lambda what, *_: said.append(what)) == []
    assert "peer-0 is left out" in said[0]
    with pytest.raises(TrainerError, match="peer-0 needs TRL"):
        compare(of(PEER, **FORTY), tmp_path, lambda *_: None, ["peer-0"])


@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("ignore")  # TRL's own, such as of a vLLM that it does not use here
@pytest.mark.skipif(not trl_grpo.installed(), reason=f"needs TRL: {trl_grpo.INSTALL}")
def test_a_peer_trains_once_on_the_rounds_problems_and_is_measured_after_each(tmp_path: Path):
    base = str(Path(ramify_trainer.__file__).parent / "models" / "countdown-weak" / "v000001")
    learning = {"policy_learning_rate": 1e-3, "warmup_steps": 0, "steps_per_round": 2, "threads": 1}
    measured = {"data": "countdown:dev?numbers=4", "problems": 3, "answers": 2}
    collect = {"problems": 4, "data": "countdown:train?numbers=4"}
    config = of(PEER, base=base, learning=learning, held_out=measured, collect=collect)
    first = compare(config, tmp_path, lambda *_: None)
    assert [(p.round, p.steps) for p in first] == [(0, 0), (1, 2), (2, 4)]
    assert first[0].tokens == 0 < first[1].tokens < first[2].tokens <= 2 * 4 * 4 * 40
    assert [(p.value_tokens, p.trained_tokens) for p in first] == [(0, p.tokens) for p in first]
    # Four answers to each of four problems a round, each read after its prompt of 8 tokens.
    assert [p.read_tokens for p in first] == [p.tokens + p.round * 4 * 4 * 8 for p in first]
    keep(first[:2], tmp_path / "peer-0" / "points.json")
    said: list[str] = []
    assert compare(config, tmp_path, lambda what, *_: said.append(what)) == first
    assert not [what for what in said if "trained" in what]


class AwayClient:
    """A client whose server is away."""

    async def search(self, *_: object, **__: object) -> SearchResult:
        raise ConnectionFailed("no server answers")


def test_a_server_that_is_away_ends_the_comparison_with_its_own_error():
    client: Any = AwayClient()
    with pytest.raises(ConnectionFailed, match="no server answers"):
        asyncio.run(searched(client, SearchedConfig(problems=3), seed=0))
