"""Statistics against hand-computed values, published tables and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from agentrl.run.statistics import (
    bootstrap_band,
    by_task,
    mcnemar,
    mean_interval,
    mean_pass,
    paired_difference,
    pass_at_k,
    pass_hat_k,
    sign_flip_test,
    student_t_quantile,
    success_interval,
    wilson,
)


@pytest.mark.parametrize(
    ("freedom", "confidence", "table"),
    [
        (1, 0.95, 12.706),
        (2, 0.95, 4.303),
        (3, 0.95, 3.182),
        (4, 0.99, 4.604),
        (10, 0.90, 1.812),
        (29, 0.95, 2.045),
        (120, 0.95, 1.980),
        (5000, 0.95, 1.960),
    ],
)
def test_student_t_quantile_matches_the_printed_table(freedom: int, confidence: float, table: float) -> None:
    assert student_t_quantile(freedom, confidence) == pytest.approx(table, abs=6e-4)


def test_interval_is_clustered_by_task() -> None:
    # Task means 1, 0.5, 0: mean 0.5, sd 0.5, se 0.28868; t(2) = 4.3027, half width 1.2421 -> clipped.
    wide = success_interval({"a": [1, 1], "b": [1, 0], "c": [0, 0]})
    assert (wide.mean, wide.low, wide.high, wide.n_tasks, wide.n_rollouts) == (0.5, 0.0, 1.0, 3, 6)
    # Task means .5, .5, 1, 1: mean .75, sd .288675, se .144338, t(3) = 3.182446, half width .459346.
    interval = success_interval({"a": [1, 0], "b": [0, 1], "c": [1, 1], "d": [1, 1]})
    assert interval.mean == 0.75
    assert interval.low == pytest.approx(0.75 - 0.459346, abs=1e-5)
    assert interval.high == 1.0


def test_tasks_weigh_the_same_whatever_their_rollouts() -> None:
    interval = success_interval({"a": [1], "b": [0, 0, 0]})
    assert interval.mean == 0.5
    assert interval.n_rollouts == 4


def test_one_rollout_per_task_uses_wilson() -> None:
    interval = success_interval({str(i): [float(i < 8)] for i in range(10)})
    assert (interval.low, interval.high) == wilson(8, 10)


def test_equal_task_means_do_not_claim_certainty() -> None:
    always = success_interval({str(i): [1, 1, 1, 1] for i in range(10)})
    assert (always.low, always.high) == wilson(10, 10)
    assert always.low == pytest.approx(0.7225, abs=1e-4)  # 1 / (1 + 3.8415 / 10)


def test_mean_interval_of_rewards_is_not_clipped() -> None:
    # -2, 0, 2: sd 2, se 1.1547, half width 4.3027 * 1.1547 = 4.9683.
    interval = mean_interval({"a": [-2], "b": [0], "c": [2]})
    assert interval.low == pytest.approx(-4.9683, abs=1e-3)
    assert math.isinf(mean_interval({"a": [3.0]}).high)


@pytest.mark.parametrize(
    ("outcomes", "sentence"),
    [({}, "no tasks"), ({"a": []}, "no rollouts"), ({"a": [2.0]}, "lies in"), ({"a": [math.nan]}, "lies in")],
)
def test_impossible_outcomes_are_refused(outcomes: dict[str, list[float]], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        success_interval(outcomes)


def test_clustered_interval_covers_and_the_naive_one_does_not() -> None:
    """60 tasks x 4 rollouts with very different tasks: clustered covers about 95 %, naive far less."""
    rng = np.random.default_rng(7)
    trials, tasks, rollouts = 400, 60, 4
    clustered = naive = 0
    for _ in range(trials):
        chance = rng.beta(0.3, 0.3, size=tasks)
        drawn = (rng.random((tasks, rollouts)) < chance[:, None]).astype(float)
        interval = success_interval({str(task): list(row) for task, row in enumerate(drawn)})
        clustered += interval.low <= 0.5 <= interval.high
        low, high = wilson(float(drawn.sum()), drawn.size)
        naive += low <= 0.5 <= high
    assert 0.92 <= clustered / trials <= 0.98
    assert naive / trials < 0.85


def test_mcnemar_is_the_two_sided_binomial() -> None:
    # 7 gained, 1 lost: 2 * (C(8,0) + C(8,1)) / 2^8 = 18 / 256.
    assert mcnemar(7, 1) == pytest.approx(18 / 256)
    assert mcnemar(1, 7) == mcnemar(7, 1)
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(3, 3) == 1.0


def test_paired_with_one_rollout_uses_mcnemar_and_bonett_price() -> None:
    before = {str(i): [0.0] for i in range(10)}
    after = {str(i): [float(i < 6)] for i in range(10)}
    paired = paired_difference(before, after)
    assert paired.test == "mcnemar"
    assert paired.difference == 0.6
    assert paired.p_value == 2 / 64
    # gained 7/12, lost 1/12: centre .5, half 1.96 * sqrt((8/12 - .25) / 12) = .36522.
    assert paired.low == pytest.approx(0.13478, abs=1e-4)
    assert paired.high == pytest.approx(0.86522, abs=1e-4)


def test_paired_with_several_rollouts_permutes_signs() -> None:
    before = {"a": [0, 0], "b": [0, 0], "c": [0, 1], "d": [1, 1]}
    after = {"a": [1, 1], "b": [1, 0], "c": [1, 1], "d": [1, 1]}
    paired = paired_difference(before, after)
    # Differences 1, .5, .5, 0. Of 8 sign patterns of the three that moved, 2 reach |sum| = 2.
    assert paired.test == "permutation"
    assert paired.difference == 0.5
    assert paired.p_value == 2 / 8


def test_no_change_at_all_is_no_evidence_and_no_certainty() -> None:
    same = {str(i): [1.0, 0.0] for i in range(5)}
    paired = paired_difference(same, same)
    assert paired.p_value == 1.0
    assert paired.low < 0 < paired.high


def test_random_sign_patterns_agree_with_enumeration() -> None:
    rng = np.random.default_rng(3)
    difference = rng.normal(0.3, 1.0, size=14)
    exact = sign_flip_test(difference)
    sampled = sign_flip_test(np.concatenate([difference, [1e-13]]), permutations=20_000)
    assert sampled == pytest.approx(exact, abs=0.01)


def test_pairing_refuses_different_tasks() -> None:
    with pytest.raises(ValueError, match="'b' is only after"):
        paired_difference({"a": [1]}, {"a": [1], "b": [0]})


def test_pairing_is_stronger_than_not_pairing() -> None:
    """Tasks differ a lot, the gain is small: paired excludes zero where the two intervals overlap."""
    rng = np.random.default_rng(0)
    chance = rng.beta(0.5, 0.5, size=100) * 0.8
    before = {str(i): list(rng.binomial(1, p, size=8).astype(float)) for i, p in enumerate(chance)}
    after = {str(i): list(rng.binomial(1, p + 0.1, size=8).astype(float)) for i, p in enumerate(chance)}
    assert paired_difference(before, after).low > 0
    assert success_interval(before).high > success_interval(after).low


def test_pass_at_k_and_pass_hat_k() -> None:
    assert pass_at_k(2, 8, 4) == pytest.approx(1 - 15 / 70)  # C(6,4) = 15, C(8,4) = 70
    assert pass_hat_k(6, 8, 4) == pytest.approx(15 / 70)
    assert pass_at_k(1, 1, 1) == pass_hat_k(1, 1, 1) == 1.0
    assert pass_at_k(3, 3, 4) is None
    assert pass_hat_k(3, 3, 4) is None
    with pytest.raises(ValueError, match="successes <= rollouts"):
        pass_at_k(4, 3, 1)


def test_pass_at_k_is_unbiased() -> None:
    """Averaged over c ~ Binomial(n, p), the estimate is exactly 1 - (1 - p)^k."""
    n, p, k = 6, 0.3, 3
    weights = [math.comb(n, c) * p**c * (1 - p) ** (n - c) for c in range(n + 1)]
    expected = sum(weight * (pass_at_k(c, n, k) or 0.0) for c, weight in enumerate(weights))
    assert expected == pytest.approx(1 - (1 - p) ** k)
    all_succeed = sum(weight * (pass_hat_k(c, n, k) or 0.0) for c, weight in enumerate(weights))
    assert all_succeed == pytest.approx(p**k)


def test_mean_pass_is_not_available_when_a_task_is_short() -> None:
    assert mean_pass({"a": [1, 0], "b": [0, 0]}, 2) == 0.5
    assert mean_pass({"a": [1, 0], "b": [1, 1]}, 2, pass_hat_k) == 0.5
    assert mean_pass({"a": [1, 0], "b": [0]}, 2) is None
    assert mean_pass({}, 1) is None


def test_band_over_seeds() -> None:
    curves = np.array([[0.0, 0.2, 1.0], [0.0, 0.4, 1.0], [0.0, 0.6, np.nan]])
    band = bootstrap_band(curves)
    np.testing.assert_allclose(band.mean, [0.0, 0.4, 1.0])
    assert band.low[0] == band.high[0] == 0.0
    assert 0.2 <= band.low[1] < 0.4 < band.high[1] <= 0.6
    assert np.isnan(bootstrap_band(np.full((2, 1), np.nan)).low[0])


def test_band_over_seeds_and_tasks_is_reproducible_and_covers_both() -> None:
    rng = np.random.default_rng(1)
    cube = rng.random((3, 20, 4))
    first, second = bootstrap_band(cube, seed=5), bootstrap_band(cube, seed=5)
    np.testing.assert_array_equal(first.low, second.low)
    assert np.all(first.low < first.mean)
    assert np.all(first.mean < first.high)
    with pytest.raises(ValueError, match="curves must be"):
        bootstrap_band(np.zeros(3))


def test_by_task_needs_equal_lengths() -> None:
    with pytest.raises(ValueError, match="argument"):
        by_task(["a"], [1, 0])
