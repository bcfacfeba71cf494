"""The demo release that comes with the package: whole, small, and what its manifest says it is."""

from pathlib import Path

import numpy as np
import pytest

from models import TWO_MODELS
from ramify import weights
from research.bootstrap.canary import probes
from research.bootstrap.checkpoints import load_model
from research.bootstrap.config import ReportConfig
from research.bootstrap.judge import load_judge
from research.bootstrap.report import measure

WEAK = (
    Path(__file__).resolve().parents[3]
    / "trainer"
    / "ramify_trainer"
    / "models"
    / "countdown-weak"
    / "v000001"
)


def test_the_shipped_release_verifies_and_is_under_20_megabytes() -> None:
    release = weights.load_release(weights.shipped())
    assert sum(file.size for file in release.manifest.files.values()) < 20_000_000
    assert release.manifest.name == "countdown-tiny"
    assert release.manifest.default_task == "countdown"


def test_the_other_releases_verify_and_all_together_are_under_20_megabytes() -> None:
    held = [weights.load_release(path).manifest for path in (weights.shipped(), TWO_MODELS, WEAK)]
    assert sum(file.size for manifest in held for file in manifest.files.values()) < 20_000_000
    assert [manifest.value for manifest in held] == ["trunk", "model", "model"]
    assert held[2].name == "countdown-weak"


def test_the_one_network_is_nearly_as_good_a_policy_and_judge_as_the_two_models() -> None:
    two = weights.load_release(TWO_MODELS, verify=False).manifest.metrics
    one = weights.load_release(weights.shipped(), verify=False).manifest.metrics
    for figure in ("policy/all/pass@1", "value/all/auc_step_1", "value/all/auc_step_2", "value/all/auc_end"):
        assert one[figure] > two[figure] - 0.03, figure


def test_the_weak_base_is_weak_and_its_value_model_is_not() -> None:
    metrics = weights.load_release(WEAK, verify=False).manifest.metrics
    assert 0.1 < metrics["policy/4/greedy"] < 0.3
    assert metrics["value/4/auc_end"] > 0.97


@pytest.mark.parametrize("path", [weights.shipped(), TWO_MODELS], ids=["trunk", "two models"])
def test_its_weights_give_the_figures_of_its_canary(path: Path) -> None:
    release = weights.load_release(path, verify=False)
    found = probes(
        load_model(release.policy_path, "lm_head"), load_judge(release.policy_path, release.path / "value")
    )
    assert len(found) == len(release.manifest.canary) >= 4
    for ours, published in zip(found, release.manifest.canary, strict=True):
        assert ours.continuation == published.continuation
        np.testing.assert_allclose(ours.logprobs, published.logprobs, atol=1e-3)
        assert ours.value == pytest.approx(published.value, abs=1e-3)


@pytest.mark.parametrize(
    "path", [weights.shipped(), pytest.param(TWO_MODELS, marks=pytest.mark.slow)], ids=["trunk", "two models"]
)
def test_it_is_as_good_on_dev_as_its_metrics_say(path: Path) -> None:
    release = weights.load_release(path, verify=False)
    policy, judge = (
        load_model(release.policy_path, "lm_head"),
        load_judge(release.policy_path, release.path / "value"),
    )
    figures = measure(policy, judge, ReportConfig(problems=24, answers=8), "dev", seed=11)
    stated = release.manifest.metrics
    assert figures["policy"]["all"]["greedy"] == pytest.approx(stated["policy/all/greedy"], abs=0.15)
    assert figures["policy"]["all"]["pass@1"] == pytest.approx(stated["policy/all/pass@1"], abs=0.08)
    assert figures["value"]["all"]["auc_end"] > 0.97
