"""The bootstrap from end to end with a network of a few thousand weights, and the figures it reports."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from ramify import weights
from research.bootstrap import report
from research.bootstrap.canary import probes
from research.bootstrap.checkpoints import load_model
from research.bootstrap.config import BootstrapConfig, TrunkConfig
from research.bootstrap.judge import ValueHead, load_judge
from research.bootstrap.run import bootstrap

CONFIGS = Path(__file__).parents[3] / "research" / "configs"

TINY = BootstrapConfig.model_validate(
    {
        "threads": 1,
        "network": {"hidden": 32, "layers": 1, "heads": 1, "intermediate": 32},
        "policy": {
            "exact_from": 2,
            "warmup": 2,
            "stages": [{"steps": 4, "batch": 4, "count_weights": {3: 1, 4: 1}}],
        },
        "value_rounds": [
            {
                "sampling": {"problems": problems, "answers": 2, "states": 10, "continuations": 2},
                "value": {"batch": 4, "warmup": 2, "check_steps": 4, "exact_from": 2, "check_batch": 4},
            }
            for problems in (40, 20)
        ],
        "report": {"problems": 3, "answers": 4},
    }
)


@pytest.fixture(scope="module", name="run")
def _run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, weights.Release]:
    root = tmp_path_factory.mktemp("bootstrap")
    return root, bootstrap(TINY, root / "work", root / "weights")


def test_a_run_ends_in_a_verified_release_that_says_how_to_use_it(run: tuple[Path, weights.Release]) -> None:
    root, release = run
    loaded = weights.load_release(root / "weights" / "v000001")
    assert loaded == release
    assert loaded.manifest.default_task == "countdown"
    assert loaded.manifest.default_action.stop == ("\n",)
    assert 0 <= loaded.manifest.metrics["policy/all/greedy"] <= 1
    assert (
        (root / "work" / "report.md")
        .read_text()
        .startswith("3 problems of each number count from the dev split")
    )


def test_each_value_model_is_trained_on_from_the_one_before(run: tuple[Path, weights.Release]) -> None:
    root, release = run
    first, second = (load_model(root / "work" / f"value-{i}", "score").state_dict() for i in (1, 2))
    moved = max(float((second[name] - first[name]).abs().max()) for name in first)
    assert 0 < moved < 0.1
    shipped = load_model(release.value_path, "score").state_dict()
    assert all(torch.equal(shipped[name], second[name]) for name in second)


def test_the_canary_is_what_the_published_weights_give(run: tuple[Path, weights.Release]) -> None:
    release = run[1]
    again = probes(
        load_model(release.policy_path, "lm_head"), load_judge(release.policy_path, release.path / "value")
    )
    published = release.manifest.canary
    assert [(one.prompt, one.continuation) for one in again] == [
        (one.prompt, one.continuation) for one in published
    ]
    for one, was in zip(again, published, strict=True):  # in the last digit threads and batches may differ
        assert one.logprobs == pytest.approx(was.logprobs, abs=2e-4)
        assert one.value == pytest.approx(was.value, abs=2e-4)
    assert len(again) == 8


def test_a_finished_run_is_not_done_again_and_another_seed_makes_other_weights(
    run: tuple[Path, weights.Release], tmp_path: Path
) -> None:
    root, first = run
    before = (root / "work" / "policy" / "model.safetensors").stat().st_mtime_ns
    second = bootstrap(TINY, root / "work", root / "more")
    assert (root / "work" / "policy" / "model.safetensors").stat().st_mtime_ns == before
    assert second.manifest.files == first.manifest.files
    with pytest.raises(ValueError, match="other settings"):
        bootstrap(TINY.model_copy(update={"seed": 1}), root / "work", root / "more")


@pytest.mark.parametrize("train_on", [False, True])
def test_the_policy_of_a_release_is_kept_or_trained_on(
    run: tuple[Path, weights.Release], tmp_path: Path, train_on: bool
) -> None:
    config = TINY.model_copy(update={"train_on": train_on})
    release = bootstrap(config, tmp_path / "work", tmp_path / "weights", start=run[1])
    before, after = (load_model(r.policy_path, "lm_head").state_dict() for r in (run[1], release))
    moved = max(float((after[name] - before[name]).abs().max()) for name in before)
    assert (0 < moved < 0.1) if train_on else moved == 0
    assert (
        release.manifest.files["value/model.safetensors"] != run[1].manifest.files["value/model.safetensors"]
    )


def test_a_release_of_two_models_becomes_one_of_one_network(
    run: tuple[Path, weights.Release], tmp_path: Path
) -> None:
    sampling = TINY.value_rounds[0].sampling
    trunk = TrunkConfig(sampling=sampling, epochs=1, batch=4, warmup=2, check_share=0, learning_rate=1e-4)
    config = TINY.model_copy(update={"value_rounds": (), "trunk": trunk})
    release = bootstrap(config, tmp_path / "work", tmp_path / "weights", start=run[1])
    assert release.manifest.value == "trunk"
    judge = load_judge(release.policy_path, release.path / "value")
    assert isinstance(judge, ValueHead)
    assert release.manifest.canary == probes(load_model(release.policy_path, "lm_head"), judge)
    assert 0 <= release.manifest.metrics["value/all/best_of_all"] <= 1
    trunks = [
        load_file(release.policy_path / "model.safetensors"),
        load_file(run[1].path / "value" / "model.safetensors"),
    ]
    moved = [
        float((trunks[0][name] - trunks[1][name]).abs().max()) for name in trunks[1] if "score" not in name
    ]
    assert 0 < max(moved) < 0.1
    with pytest.raises(ValueError, match="no value model to start from"):
        bootstrap(config, tmp_path / "again", tmp_path / "weights", start=release)


def test_without_a_value_model_there_is_nothing_to_make_one_network_of(tmp_path: Path) -> None:
    config = TINY.model_copy(update={"value_rounds": (), "trunk": TrunkConfig()})
    with pytest.raises(ValueError, match="give a release to start from"):
        bootstrap(config, tmp_path / "work", tmp_path / "weights")


def test_the_same_seed_makes_the_same_weights(run: tuple[Path, weights.Release], tmp_path: Path) -> None:
    again = bootstrap(TINY, tmp_path / "work", tmp_path / "weights")
    assert again.manifest.files == run[1].manifest.files
    other = bootstrap(TINY.model_copy(update={"seed": 1}), tmp_path / "other", tmp_path / "weights")
    ours, theirs = (load_file(r.policy_path / "model.safetensors") for r in (again, other))
    assert not torch.equal(ours["lm_head.weight"], theirs["lm_head.weight"])


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("countdown-*.toml")), ids=lambda path: path.name)
def test_every_shipped_bootstrap_config_parses(path: Path) -> None:
    BootstrapConfig.read(path)


def test_the_demo_config_is_the_default() -> None:
    assert BootstrapConfig.read(CONFIGS / "countdown-tiny.toml") == BootstrapConfig()


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(ValidationError, match="lerning_rate"):
        BootstrapConfig.model_validate({"policy": {"lerning_rate": 1e-3}})


def test_pass_at_k_is_the_chance_that_k_of_the_drawn_answers_hold_a_right_one() -> None:
    right, drawn, k = 2, 6, 3
    draws = list(itertools.combinations(range(drawn), k))
    expected = np.mean([any(i < right for i in draw) for draw in draws])
    assert report.pass_at_k(np.array([right]), drawn, k) == pytest.approx(expected)
    assert report.pass_at_k(np.array([0, 6]), drawn, 6) == 0.5


def test_calibration_error_is_zero_for_honest_values_and_one_for_opposite_ones() -> None:
    outcomes = np.array([0, 1, 0, 1], dtype=np.float32)
    assert report.expected_calibration_error(outcomes, outcomes) == 0.0
    assert report.expected_calibration_error(1 - outcomes, outcomes) == 1.0
    assert report.expected_calibration_error(np.full(4, 0.5, np.float32), outcomes) == 0.0
