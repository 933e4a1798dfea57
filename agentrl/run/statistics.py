"""Numbers that evaluations stand on: intervals clustered by task, paired differences, pass@k, curve bands.

Rollouts of one task are alike, so the task is the unit that is counted: treating 60 tasks x 4 rollouts as
240 independent draws makes a nominal 95 % interval cover about 80 %. Everything here is pure numpy; outcomes
are given as a mapping from task to the outcomes of its rollouts (see `by_task`).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from statistics import NormalDist
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Outcomes: TypeAlias = Mapping[str, Sequence[float]]
Floats: TypeAlias = NDArray[np.float64]

EXACT_TASKS = 14
"""Up to this many differing tasks, the permutation test enumerates all 2^n sign patterns."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over tasks and the bounds of its confidence interval."""

    mean: float
    low: float
    high: float
    n_tasks: int
    n_rollouts: int


@dataclass(frozen=True, slots=True)
class Paired:
    """After minus before on the same tasks, its interval, and the p-value of "no difference".

    `test` names where the p-value comes from: `mcnemar` (one binary rollout per task) or `permutation`.
    """

    difference: float
    low: float
    high: float
    p_value: float
    test: str
    n_tasks: int


@dataclass(frozen=True, slots=True, eq=False)
class Band:
    """(P,) mean of a curve and the bounds of its bootstrap interval at each point."""

    mean: Floats
    low: Floats
    high: Floats


def by_task(tasks: Iterable[str], outcomes: Iterable[float]) -> dict[str, list[float]]:
    """Group the outcomes of rollouts by their task.

    >>> by_task(["a", "b", "a"], [1, 0, 0])
    {'a': [1.0, 0.0], 'b': [0.0]}
    """
    grouped: dict[str, list[float]] = {}
    for task, outcome in zip(tasks, outcomes, strict=True):
        grouped.setdefault(task, []).append(float(outcome))
    return grouped


def success_interval(outcomes: Outcomes, confidence: float = 0.95) -> Interval:
    """Return the mean success over tasks with an interval clustered by task.

    A t interval over task means; Wilson's where every task has one rollout, and where the task means do not
    differ (a t interval of width zero would claim certainty), with the tasks as the trials.

    Args:
        outcomes: outcomes in [0, 1] of each task's rollouts.
        confidence: share of intervals that should hold the truth.

    Raises:
        ValueError: no task, a task without rollouts, or an outcome outside [0, 1].

    >>> interval = success_interval({f"task-{i}": [0.0] for i in range(30)})
    >>> round(interval.low, 3), round(interval.high, 3)
    (0.0, 0.114)
    """
    means = _task_means(outcomes)
    if any(not 0 <= value <= 1 for value in chain.from_iterable(outcomes.values())):
        raise ValueError("A success lies in [0, 1]; use `mean_interval` for rewards and other numbers.")
    rollouts = sum(len(values) for values in outcomes.values())
    mean = float(means.mean())
    if rollouts == means.size or np.ptp(means) == 0:
        low, high = wilson(mean * means.size, means.size, confidence)
    else:
        half = _half_width(means, confidence)
        low, high = max(0.0, mean - half), min(1.0, mean + half)
    return Interval(mean, low, high, means.size, rollouts)


def mean_interval(outcomes: Outcomes, confidence: float = 0.95) -> Interval:
    """Return the mean over tasks of any number (reward, turns) with a t interval clustered by task.

    With a single task the bounds are infinite: nothing is known about other tasks.
    """
    means = _task_means(outcomes)
    rollouts = sum(len(values) for values in outcomes.values())
    half = _half_width(means, confidence)
    mean = float(means.mean())
    return Interval(mean, mean - half, mean + half, means.size, rollouts)


def wilson(successes: float, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return Wilson's score interval of a proportion; sensible at 0 and at `trials` successes.

    >>> tuple(round(bound, 3) for bound in wilson(8, 10))
    (0.49, 0.943)
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(f"wilson needs 0 <= successes <= trials, trials >= 1; got {successes} of {trials}.")
    z2 = _normal_quantile(confidence) ** 2
    share = successes / trials
    centre = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = math.sqrt(z2 * (share * (1 - share) / trials + z2 / (4 * trials**2))) / (1 + z2 / trials)
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == trials else min(1.0, centre + half)
    return low, high


def paired_difference(
    before: Outcomes, after: Outcomes, confidence: float = 0.95, permutations: int = 10_000, seed: int = 0
) -> Paired:
    """Return the mean over tasks of success after minus success before, paired by task.

    One binary rollout per task on both sides: McNemar's exact test and Bonett & Price's (2012) interval.
    Otherwise a sign-flip permutation test and a t interval over the tasks' differences.

    Args:
        before, after: outcomes in [0, 1] of the same tasks.
        confidence: share of intervals that should hold the truth.
        permutations, seed: for the test's random sign patterns where there are too many to enumerate.

    Raises:
        ValueError: the two sides do not hold the same tasks.
    """
    if before.keys() != after.keys():
        raise ValueError(_different_tasks(before, after))
    tasks = sorted(before)
    difference = _task_means({task: after[task] for task in tasks}) - _task_means(
        {task: before[task] for task in tasks}
    )
    single = _single_binary(before) and _single_binary(after)
    if single:
        p_value = mcnemar(int(np.sum(difference > 0)), int(np.sum(difference < 0)))
    else:
        p_value = sign_flip_test(difference, permutations, seed)
    mean = float(difference.mean())
    if single or np.ptp(difference) == 0:
        low, high = _discordant_interval(difference, confidence)
    else:
        half = _half_width(difference, confidence)
        low, high = max(-1.0, mean - half), min(1.0, mean + half)
    test = "mcnemar" if single else "permutation"
    return Paired(mean, min(low, mean), max(high, mean), p_value, test, difference.size)


def mcnemar(gained: int, lost: int) -> float:
    """Return the two-sided exact p-value that tasks are gained and lost with equal chance.

    >>> mcnemar(5, 0)
    0.0625
    """
    discordant = gained + lost
    tail = sum(math.comb(discordant, count) for count in range(min(gained, lost) + 1))
    return min(1.0, float(2 * tail / 2**discordant))


def sign_flip_test(difference: Floats, permutations: int = 10_000, seed: int = 0) -> float:
    """Return the two-sided p-value that the differences (tasks,) are symmetric around zero.

    Exact where few tasks differ; otherwise (hits + 1) / (permutations + 1) over random sign patterns.
    """
    moved = difference[difference != 0]
    observed = abs(float(moved.sum())) - 1e-12
    if moved.size <= EXACT_TASKS:
        patterns = np.arange(2**moved.size)[:, None] >> np.arange(moved.size) & 1
        return float(np.mean(np.abs((1.0 - 2.0 * patterns) @ moved) >= observed))
    signs = np.random.default_rng(seed).choice(np.array([-1.0, 1.0]), size=(permutations, moved.size))
    hits = int(np.sum(np.abs(signs @ moved) >= observed))
    return (hits + 1) / (permutations + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for testing several suites at once (Holm's step-down).

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    corrected = [0.0] * len(p_values)
    running = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = running
    return corrected


def pass_at_k(successes: int, rollouts: int, k: int) -> float | None:
    """Return the unbiased chance that at least one of `k` rollouts succeeds; None (n/a) where rollouts < k.

    >>> round(pass_at_k(2, 8, 4), 3)
    0.786
    """
    if not _defined(successes, rollouts, k):
        return None
    return 1.0 - math.comb(rollouts - successes, k) / math.comb(rollouts, k)


def pass_hat_k(successes: int, rollouts: int, k: int) -> float | None:
    """Return the unbiased chance that all of `k` rollouts succeed (pass^k); None (n/a) where rollouts < k.

    >>> round(pass_hat_k(6, 8, 2), 3)
    0.536
    """
    if not _defined(successes, rollouts, k):
        return None
    return math.comb(successes, k) / math.comb(rollouts, k)


PassAt: TypeAlias = Callable[[int, int, int], float | None]


def mean_pass(outcomes: Outcomes, k: int, estimate: PassAt = pass_at_k) -> float | None:
    """Return `pass_at_k` or `pass_hat_k` averaged over tasks; None where any task has fewer than k rollouts.

    An outcome of 1 is a success, anything less is not.
    """
    estimates = [
        estimate(sum(value >= 1 for value in values), len(values), k) for values in outcomes.values()
    ]
    known = [value for value in estimates if value is not None]
    return sum(known) / len(known) if known and len(known) == len(estimates) else None


def bootstrap_band(curves: Floats, confidence: float = 0.95, resamples: int = 2000, seed: int = 0) -> Band:
    """Return the mean curve and its percentile bootstrap band.

    Args:
        curves: (rows, P), rows being seeds or tasks; or (seeds, tasks, P), where seeds are drawn first and
            tasks within each. NaN marks a point that a row does not have.
        confidence: share of bands that should hold the truth at a point.
        resamples, seed: of the bootstrap.

    Raises:
        ValueError: `curves` has another number of axes, or no row.
    """
    if curves.ndim not in {2, 3} or 0 in curves.shape[:-1]:
        raise ValueError(f"curves must be (rows, P) or (seeds, tasks, P), with rows; got {curves.shape}.")
    cube = curves[:, None, :] if curves.ndim == 2 else curves
    rng = np.random.default_rng(seed)
    draws = np.stack([_point_means(_resample(cube, rng)) for _ in range(resamples)])
    tail = (1 - confidence) / 2
    empty = np.isnan(draws).all(axis=0)
    bounds = np.nanquantile(np.where(empty, 0.0, draws), [tail, 1 - tail], axis=0)
    low, high = np.where(empty, np.nan, bounds)
    return Band(_point_means(cube), low, high)


@functools.lru_cache(maxsize=512)
def student_t_quantile(freedom: int, confidence: float = 0.95) -> float:
    """Return t with P(|T| <= t) = confidence for integer degrees of freedom.

    Bisects the finite sums of Abramowitz & Stegun 26.7.3-4, which are exact.

    >>> round(student_t_quantile(9), 3)
    2.262
    """
    if freedom < 1 or not 0 < confidence < 1:
        raise ValueError(f"needs freedom >= 1 and 0 < confidence < 1; got {freedom} and {confidence}.")
    low, high = 0.0, math.pi / 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if _student_t_mass(middle, freedom) < confidence else (low, middle)
    return math.sqrt(freedom) * math.tan((low + high) / 2)


def _student_t_mass(angle: float, freedom: int) -> float:
    """P(|T| <= sqrt(freedom) tan(angle))."""
    cosine, odd = math.cos(angle), freedom % 2
    orders = np.arange(1, (freedom - odd) // 2)
    factors = (2 * orders - 1 + odd) / (2 * orders + odd) * cosine**2
    series = 1.0 + float(np.cumprod(factors).sum())
    if not odd:
        return math.sin(angle) * series
    tail = 0.0 if freedom == 1 else math.sin(angle) * cosine * series
    return 2 / math.pi * (angle + tail)


def _task_means(outcomes: Outcomes) -> Floats:
    if not outcomes:
        raise ValueError("There are no tasks, so there is nothing to average.")
    empty = [task for task, values in outcomes.items() if not len(values)]
    if empty:
        raise ValueError(f"Task {empty[0]!r} has no rollouts; leave it out or count it apart as invalid.")
    return np.array([float(np.mean(values)) for values in outcomes.values()])


def _half_width(means: Floats, confidence: float) -> float:
    if means.size < 2:
        return math.inf
    deviation = float(means.std(ddof=1))
    return student_t_quantile(means.size - 1, confidence) * deviation / math.sqrt(means.size)


def _discordant_interval(difference: Floats, confidence: float) -> tuple[float, float]:
    """Bonett & Price's adjusted Wald interval: one task added to each kind of change."""
    trials = difference.size + 2
    gained = (float(np.maximum(difference, 0).sum()) + 1) / trials
    lost = (float(np.maximum(-difference, 0).sum()) + 1) / trials
    centre = gained - lost
    half = _normal_quantile(confidence) * math.sqrt((gained + lost - centre**2) / trials)
    return max(-1.0, centre - half), min(1.0, centre + half)


def _normal_quantile(confidence: float) -> float:
    return NormalDist().inv_cdf((1 + confidence) / 2)


def _single_binary(outcomes: Outcomes) -> bool:
    return all(len(values) == 1 and values[0] in {0, 1} for values in outcomes.values())


def _defined(successes: int, rollouts: int, k: int) -> bool:
    if k < 1 or not 0 <= successes <= rollouts:
        raise ValueError(f"needs k >= 1, 0 <= successes <= rollouts; got k={k}, {successes} of {rollouts}.")
    return rollouts >= k


def _different_tasks(before: Outcomes, after: Outcomes) -> str:
    example = min(before.keys() ^ after.keys())
    side = "before" if example in before else "after"
    return (
        f"A paired comparison needs the same tasks on both sides; {example!r} is only {side}. "
        "Evaluate both on the same split and limit."
    )


def _resample(cube: Floats, rng: np.random.Generator) -> Floats:
    seeds, tasks, _ = cube.shape
    rows = rng.integers(seeds, size=(seeds, 1))
    return np.asarray(cube[rows, rng.integers(tasks, size=(seeds, tasks))])


def _point_means(cube: Floats) -> Floats:
    known = ~np.isnan(cube)
    count = known.sum(axis=(0, 1))
    total = np.where(known, cube, 0.0).sum(axis=(0, 1))
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
