"""Three ways to credit turns, at one budget and from one warm start.

GRPO blames every turn of a trajectory alike. GiGPO also compares turns that begin in the same place: in the
same true state (GIGPO, privileged), or after the same observations (GIGPO_OBSERVATION). Each gets as many
updates on as many trajectories, and a learning rate of its own, chosen on `valid_seen` with a seed that is
not reported. The other settings are those of train.toml.

    agentrl train household/train --out runs/household
    python scenarios/household/credit.py --warm-start runs/household --out runs/credit --jobs 2

Runs that are finished are not run again, and one that was stopped goes on. More settings may follow, as for
`agentrl train`: rl.tasks=16.
"""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import mean

import agentrl

ESTIMATORS = ("GRPO", "GIGPO", "GIGPO_OBSERVATION")
TUNING_SEED = 900
SHARED = ("processes=1", "control.enabled=false", "samples=0")


@dataclass(frozen=True)
class Trial:
    """One run: who is credited how, at which rate, with which seed, and how it is judged."""

    folder: Path
    settings: tuple[str, ...]

    def __call__(self) -> dict[str, object]:
        """Train, or go on, and return the summary."""
        if not (self.folder / "summary.json").exists():
            begun = (self.folder / "run.toml").exists()
            agentrl.train("household/train", overrides=self.settings, out=self.folder, resume=begun)
        summary: dict[str, object] = json.loads((self.folder / "summary.json").read_text())
        return summary


@dataclass(frozen=True)
class Comparison:
    """What all trials share."""

    warm_start: Path
    out: Path
    steps: int
    jobs: int
    settings: tuple[str, ...] = ()

    def trial(self, estimator: str, rate: float, seed: int, *judged: str) -> Trial:
        """The run of one estimator with one rate and seed."""
        own = (
            f"warm_start.path={self.warm_start}",
            f"rl.algorithm={estimator}",
            f"rl.steps={self.steps}",
            f"rl.optimizer.learning_rate={rate}",
            f"seed={seed}",
        )
        return Trial(self.out / f"{estimator}-{rate:g}-{seed}", (*SHARED, *own, *self.settings, *judged))

    def run(self, trials: list[Trial]) -> list[dict[str, object]]:
        """Run trials, some at a time, each in a process of its own."""
        with ProcessPoolExecutor(self.jobs, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
            return list(pool.map(Trial.__call__, trials))


def choose_rates(comparison: Comparison, rates: list[float], tasks: int) -> dict[str, float]:
    """Return for each estimator the rate that does best on `valid_seen` with the tuning seed."""
    pairs = [(estimator, rate) for estimator in ESTIMATORS for rate in rates]
    judged = (f"evaluation.final_tasks={tasks}", "evaluation.final_split=valid_seen", "rl.evaluate_every=0")
    results = comparison.run([comparison.trial(*pair, TUNING_SEED, *judged) for pair in pairs])
    found = {pair: success(summary, "final") for pair, summary in zip(pairs, results, strict=True)}
    for (estimator, rate), share in found.items():
        print(f"{estimator:18s} rate {rate:g}: {share:.3f} of {tasks} tasks of valid_seen", flush=True)
    shares = {name: {rate: found[name, rate] for rate in rates} for name in ESTIMATORS}
    return {name: max(share, key=share.__getitem__) for name, share in shares.items()}


def success(summary: dict[str, object], stage: str) -> float:
    """The share of tasks that a stage solved."""
    row = summary[stage]
    return float(row["success"]) if isinstance(row, dict) else 0.0


def curve(folder: Path) -> list[tuple[int, float]]:
    """Updates done and success on the curve's tasks of `valid_seen`."""
    rows = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [
        (row["step"], row["success"]["mean"])
        for row in rows
        if row["phase"] == "evaluation" and row["stage"] == "rl" and row["step"] >= 0
    ]


def cell(values: list[float]) -> str:
    """Each seed's figure and their mean."""
    return f"{mean(values):.3f} ({', '.join(f'{value:.3f}' for value in values)})"


def report(comparison: Comparison, rates: dict[str, float], seeds: list[int], every: int) -> str:
    """Train every estimator with every seed and return a table in Markdown."""
    judged = (f"rl.evaluate_every={every}",)
    trials = {
        (name, seed): comparison.trial(name, rates[name], seed, *judged)
        for seed in seeds  # so that a comparison that is stopped holds whole seeds
        for name in ESTIMATORS
    }
    results = dict(zip(trials, comparison.run(list(trials.values())), strict=True))
    curves = {key: dict(curve(trial.folder)) for key, trial in trials.items()}
    points = sorted(set.intersection(*(set(one) for one in curves.values())))
    lines = [
        f"| estimator | rate | valid_unseen: mean ({', '.join(f'seed {seed}' for seed in seeds)}) | "
        + " | ".join(f"valid_seen, {point} updates" for point in points)
        + " |",
        "|---" * (len(points) + 3) + "|",
    ]
    for name in ESTIMATORS:
        final = cell([success(results[name, seed], "final") for seed in seeds])
        path = [f"{mean(curves[name, seed][point] for seed in seeds):.3f}" for point in points]
        lines.append(f"| {name} | {rates[name]:g} | {final} | " + " | ".join(path) + " |")
    warm = mean(success(summary, "warm_start") for summary in results.values())
    seconds = [float(json.loads(json.dumps(summary["cpu_seconds"]))["rl"]) for summary in results.values()]
    lines.append(
        f"\nWarm start {warm:.3f} on valid_unseen; {comparison.steps} updates, "
        f"{min(seconds):.0f} to {max(seconds):.0f} CPU-seconds each."
    )
    return "\n".join(lines)


def main() -> None:
    """Choose the rates, train, compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--warm-start", type=Path, required=True, help="a run, or a model folder")
    parser.add_argument("--out", type=Path, default=Path("runs/credit"))
    parser.add_argument("--steps", type=int, default=80, help="updates of each run")
    parser.add_argument("--rates", type=float, nargs="+", default=[2e-4, 5e-4])
    parser.add_argument("--seeds", type=int, nargs="+", default=[31, 32, 33])
    parser.add_argument("--tuning-tasks", type=int, default=256)
    parser.add_argument("--every", type=int, default=20, help="updates between points of the curves")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one core each")
    parser.add_argument("settings", nargs="*", help="section.name=value, on top of train.toml")
    given = parser.parse_args()
    comparison = Comparison(given.warm_start, given.out, given.steps, given.jobs, tuple(given.settings))
    rates = choose_rates(comparison, given.rates, given.tuning_tasks)
    table = report(comparison, rates, given.seeds, given.every)
    (given.out / "credit.md").write_text(table + "\n")
    print(table)


if __name__ == "__main__":
    main()
