import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramify.statistics import auc, bootstrap, paired_difference, resampled_weights, upper_bound


def test_the_mean_is_the_mean_and_the_interval_is_the_binomial_one():
    estimate = bootstrap([1.0] * 30 + [0.0] * 70, seed=1, resamples=40_000)
    assert estimate.mean == pytest.approx(0.30)
    assert estimate.n == 100
    # Resampled counts are Binomial(100, 0.3), whose 2.5th and 97.5th percentiles are 21 and 39.
    assert (estimate.low, estimate.high) == pytest.approx((0.21, 0.39))


def test_the_same_seed_gives_the_same_interval_whatever_the_order_of_the_scores():
    scores = [0.0, 1.0, 1.0, 0.0, 1.0]
    assert bootstrap(scores, seed=7) == bootstrap(scores[::-1], seed=7)


def test_a_score_that_never_varies_has_no_spread():
    assert bootstrap([1.0] * 20).low == 1.0 == bootstrap([1.0] * 20).high


def test_many_different_scores_resample_as_a_plain_bootstrap_does():
    scores = np.random.default_rng(0).random(50)
    ours = bootstrap(list(scores), resamples=20_000)
    plain = np.random.default_rng(1).choice(scores, (20_000, 50)).mean(axis=1)
    assert (ours.low, ours.high) == pytest.approx(tuple(np.percentile(plain, [2.5, 97.5])), abs=0.01)


def test_no_scores_are_an_error():
    with pytest.raises(ValueError, match="no scores"):
        bootstrap([])


def test_a_paired_difference_uses_only_the_problems_that_both_have():
    ours = {"a": 1.0, "b": 1.0, "c": 0.0, "only ours": 1.0}
    theirs = {"a": 0.0, "b": 1.0, "c": 0.0, "only theirs": 0.0}
    difference = paired_difference(ours, theirs)
    assert difference.n == 3
    assert difference.mean == pytest.approx(1 / 3)


def test_pairing_cancels_what_makes_a_problem_hard_for_both():
    hard = {str(i): float(i % 2) for i in range(200)}
    better = {**hard, "0": 1.0, "2": 1.0, "4": 1.0, "6": 1.0, "8": 1.0, "10": 1.0}
    difference = paired_difference(better, hard, resamples=20_000)
    assert difference.mean == pytest.approx(0.03)
    assert difference.low > 0
    assert bootstrap(list(better.values())).low < bootstrap(list(hard.values())).mean


def test_the_one_sided_bound_is_the_95th_percentile_of_the_same_means():
    # Resampled counts are Binomial(100, 0.3), whose 95th percentile is 38.
    assert upper_bound([1.0] * 30 + [0.0] * 70, resamples=40_000) == pytest.approx(0.38)


def test_weights_are_how_often_each_problem_appears():
    weights = np.concatenate(list(resampled_weights(7, resamples=250)))
    assert weights.shape == (250, 7)
    assert set(weights.sum(axis=1)) == {7.0}
    scores = np.random.default_rng(0).random(40)
    means = np.concatenate([w @ scores / 40 for w in resampled_weights(40, resamples=20_000)])
    ours = bootstrap(list(scores), resamples=20_000)
    assert (ours.low, ours.high) == pytest.approx(tuple(np.percentile(means, [2.5, 97.5])), abs=0.01)


def test_an_estimate_is_written_in_percent_and_a_difference_with_its_sign():
    assert bootstrap([1.0] * 4).percent() == "100.0 [100.0, 100.0]"
    assert paired_difference({"a": 1.0}, {"a": 0.5}).percent(signed=True) == "+50.0 [+50.0, +50.0]"


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=30))
def test_auc_is_the_share_of_pairs_in_order_ties_half(rows: list[tuple[int, bool]]) -> None:
    scores = np.array([s for s, _ in rows], dtype=np.float32)
    labels = np.array([label for _, label in rows], dtype=np.float32)
    pairs = list(itertools.product(scores[labels == 1], scores[labels == 0]))
    expected = np.mean([(p > n) + 0.5 * (p == n) for p, n in pairs]) if pairs else None
    assert auc(scores, labels == 1) == (None if expected is None else pytest.approx(expected))


def test_auc_is_the_share_of_pairs_in_order() -> None:
    assert auc(np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True])) == 0.75
