r"""Compare recipes at one budget, from one warm start.

    agentrl train household/train --out runs/household
    python scenarios/compare.py household/train --warm-start runs/household --out runs/credit \
        --recipes GRPO GIGPO GIGPO_OBSERVATION --rates 2e-4 5e-4 --seeds 31 32 33 --steps 80 --every 20

An arm of the comparison is a recipe, or a recipe and settings of its own: "ARPO_HARD rl.members=16". The
first arm is the one that the others are compared with. Every arm begins from the warm start of --warm-start
and ends where the first of the bounds is reached that are given:

    --steps           updates; tasks and members of each are those of the TOML file
    --sampled-tokens  tokens that the policy draws; what a branch inherits from its parent is drawn once
    --cpu-seconds     CPU-seconds of reinforcement, all processes, without evaluations

The table shows all three, whichever was the bound. Where several rates are given, each arm takes the one that
does best on the curve's split with a seed that is not reported (--tuning-seed). Two files are written to
--out: compare.md, the table with the curves as it is printed, and compare.json, the figures behind it.
All else is as the TOML file says; "section.name=value" behind the scenario's name changes it for all arms.

Runs that are finished are not run again, and one that was stopped goes on from its last checkpoint; a folder
that holds a run with other settings is refused. Other comparisons:

    search, step rewards from the belief in the answer
        compare.py search/train --recipes GRPO GIGPO IGPO --rates 2e-4 5e-4 --steps 120 --every 30
    code, with and without the filter of void turns (their policy updates are otherwise equal)
        compare.py code/train --recipes GRPO DAPO SIMPLE_TIR --rates 1e-4 3e-4 --steps 40 --every 10
    household, a critic over turns
        compare.py household/train --recipes GRPO "TURN_PPO rl.critic_optimizer.learning_rate=1e-3" --steps 80
    household, branches, at equal sampled tokens
        compare.py household/train --recipes GRPO ARPO_HARD TREE_GRPO --sampled-tokens 400000 --every 20
"""

from __future__ import annotations

import argparse
import json
import math
import re
import shlex
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING

import agentrl
from agentrl.config import load
from agentrl.errors import AgentrlError, ConfigError
from agentrl.recipes import get
from agentrl.run.check import check_algorithm
from agentrl.run.directory import RunDirectory
from agentrl.run.scenarios import find
from agentrl.run.settings import TrainSettings
from agentrl.run.statistics import student_t_quantile

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

SHARED = ("processes=1", "control.enabled=false", "samples=0", "warm_start.demonstrations=0")
"""One core each, and nothing that only a warm start or a control needs."""
NO_BOUND = 100_000
"""Updates of a run whose budget is told otherwise."""


@dataclass(frozen=True)
class Arm:
    """A recipe, and settings of its own."""

    title: str

    @property
    def words(self) -> list[str]:
        """The recipe and its settings."""
        return shlex.split(self.title)

    @property
    def settings(self) -> tuple[str, ...]:
        """Overrides, the recipe among them."""
        recipe, *own = self.words
        return (f"rl.algorithm={recipe}", *own)

    @property
    def folder(self) -> str:
        """The title as the name of a folder."""
        return re.sub(r"[^\w.=-]+", "_", self.title).strip("_")


@dataclass(frozen=True)
class Trial:
    """One run: who is credited how, at which rate, with which seed, and how it is judged."""

    scenario: str
    folder: Path
    settings: tuple[str, ...]

    def __call__(self) -> dict[str, object]:
        """Train, or go on, and return the summary."""
        if not (self.folder / "summary.json").exists():
            begun = (self.folder / "run.toml").exists()
            agentrl.train(self.scenario, overrides=self.settings, out=self.folder, resume=begun)
        summary: dict[str, object] = json.loads((self.folder / "summary.json").read_text())
        return summary

    def check(self) -> None:
        """Raise `AgentrlError` where the run cannot begin, or another one lies in its folder."""
        settings = load(TrainSettings, find(self.scenario), self.settings)
        check_algorithm(get(settings.rl.algorithm), settings)
        directory = RunDirectory(self.folder)
        changes = directory.changes(settings) if directory.started else []
        if changes:
            raise ConfigError(
                f"{self.folder} holds a run with other settings:\n  " + "\n  ".join(changes) + "\nChoose "
                "another --out, or give the settings that the comparison was begun with."
            )


@dataclass(frozen=True)
class Outcome:
    """What a finished run shows.

    Attributes:
        final, warm: success on the final split, after reinforcement and before.
        curve: success on the curve's split by updates done.
        updates, sampled_tokens, cpu_seconds: what reinforcement took.
    """

    final: float
    warm: float
    curve: dict[int, float]
    updates: int
    sampled_tokens: int
    cpu_seconds: float


@dataclass(frozen=True)
class Comparison:
    """What all trials share."""

    scenario: str
    out: Path
    jobs: int
    settings: tuple[str, ...]

    def trial(self, arm: Arm, rate: float, seed: int, *judged: str) -> Trial:
        """The run of one arm with one rate and seed."""
        own = (f"rl.optimizer.learning_rate={rate}", f"seed={seed}", *judged)
        folder = self.out / f"{arm.folder}-{rate:g}-{seed}"
        return Trial(self.scenario, folder, (*self.settings, *own, *arm.settings))

    def run(self, trials: Sequence[Trial]) -> list[Outcome]:
        """Run trials, some at a time, each in a process of its own."""
        for trial in trials:
            trial.check()
        with ProcessPoolExecutor(self.jobs, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
            summaries = list(pool.map(Trial.__call__, trials))
        return [outcome(trial.folder, summary) for trial, summary in zip(trials, summaries, strict=True)]


def outcome(folder: Path, summary: dict[str, object]) -> Outcome:
    """Read the figures of a finished run."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    steps = [row for row in rows if row["phase"] == "rl"]
    points = [row for row in rows if row["phase"] == "evaluation" and row["stage"] == "rl"]
    return Outcome(
        success(summary, "final"),
        success(summary, "warm_start"),
        {row["step"]: row["success"]["mean"] for row in points if row["step"] >= 0},
        steps[-1]["step"] if steps else 0,
        steps[-1]["sampled_tokens"] if steps else 0,
        steps[-1]["cpu_seconds"] if steps else 0.0,
    )


def success(summary: dict[str, object], stage: str) -> float:
    """The share of tasks that a stage solved."""
    row = summary[stage]
    return float(row["success"]) if isinstance(row, dict) else 0.0


def choose_rates(
    comparison: Comparison, arms: Sequence[Arm], rates: Sequence[float], tuning: argparse.Namespace
) -> dict[Arm, float]:
    """Return for each arm the rate that does best on the curve's split with the tuning seed."""
    if len(rates) == 1:
        return dict.fromkeys(arms, rates[0])
    split = load(TrainSettings, find(comparison.scenario), comparison.settings).evaluation.curve_split
    tasks, seed = tuning.tuning_tasks, tuning.tuning_seed
    judged = (
        f"evaluation.final_tasks={tasks}",
        f"evaluation.final_split={split}",
        "rl.evaluate_every=0",
    )
    pairs = [(arm, rate) for arm in arms for rate in rates]
    results = comparison.run([comparison.trial(*pair, seed, *judged) for pair in pairs])
    found = {pair: result.final for pair, result in zip(pairs, results, strict=True)}
    for (arm, rate), share in found.items():
        print(f"{arm.title}, rate {rate:g}: {share:.3f} of {tasks} tasks of {split}", flush=True)
    shares = {arm: {rate: found[arm, rate] for rate in rates} for arm in arms}
    return {arm: max(share, key=share.__getitem__) for arm, share in shares.items()}


def train_all(
    comparison: Comparison, rates: dict[Arm, float], seeds: Sequence[int], every: int
) -> dict[Arm, list[Outcome]]:
    """Train every arm with every seed: seed after seed, so that one that is stopped holds whole seeds."""
    keys = [(arm, seed) for seed in seeds for arm in rates]
    trials = [comparison.trial(arm, rates[arm], seed, f"rl.evaluate_every={every}") for arm, seed in keys]
    results = dict(zip(keys, comparison.run(trials), strict=True))
    return {arm: [results[arm, seed] for seed in seeds] for arm in rates}


def report(comparison: Comparison, found: dict[Arm, list[Outcome]], rates: dict[Arm, float]) -> str:
    """Return the table and the curves in Markdown."""
    evaluation = load(TrainSettings, find(comparison.scenario), comparison.settings).evaluation
    first = next(iter(found.values()))
    every = [one for outcomes in found.values() for one in outcomes]
    points = sorted(set.intersection(*(set(one.curve) for one in every)))
    warm = mean(one.warm for one in every)
    header = ("arm", "rate", f"{evaluation.final_split} (seeds)", "against the first", "updates",
              "sampled tokens", "CPU-seconds")  # fmt: skip
    rows = [
        (
            f"`{arm.title}`",
            f"{rates[arm]:g}",
            seeds_cell([one.final for one in outcomes]),
            "" if outcomes is first else difference(outcomes, first),
            spread([one.updates for one in outcomes]),
            spread([one.sampled_tokens for one in outcomes]),
            spread([one.cpu_seconds for one in outcomes]),
        )
        for arm, outcomes in found.items()
    ]
    curves = [
        (f"`{arm.title}`", *(f"{mean(one.curve[point] for one in outcomes):.3f}" for point in points))
        for arm, outcomes in found.items()
    ]
    return "\n".join(
        [
            *table(header, rows),
            "",
            f"Warm start {warm:.3f} on {evaluation.final_tasks} tasks of {evaluation.final_split}.",
            "",
            *table((f"{evaluation.curve_split}, mean after updates", *map(str, points)), curves),
        ]
    )


def difference(ours: Sequence[Outcome], theirs: Sequence[Outcome]) -> str:
    """The mean difference, paired by seed, with Student's 95 % interval where there is more than one."""
    gaps = [one.final - other.final for one, other in zip(ours, theirs, strict=True)]
    if len(gaps) == 1:
        return f"{gaps[0]:+.3f}"
    half = student_t_quantile(len(gaps) - 1) * stdev(gaps) / math.sqrt(len(gaps))
    return f"{mean(gaps):+.3f} ({mean(gaps) - half:+.3f} to {mean(gaps) + half:+.3f})"


def seeds_cell(values: Sequence[float]) -> str:
    """Each seed's figure and their mean."""
    return f"{mean(values):.3f} ({', '.join(f'{value:.3f}' for value in values)})"


def spread(values: Sequence[float]) -> str:
    """The smallest and the largest of some counts."""
    low, high = f"{min(values):,.0f}", f"{max(values):,.0f}"
    return low if low == high else f"{low} to {high}"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Rows as Markdown."""
    return ["| " + " | ".join(row) + " |" for row in (header, ["---"] * len(header), *rows)]


def budget(given: argparse.Namespace) -> tuple[str, ...]:
    """The bounds of each run as settings."""
    others = given.sampled_tokens or given.cpu_seconds
    return (
        f"rl.steps={given.steps or (NO_BOUND if others else 80)}",
        f"rl.sampled_tokens={given.sampled_tokens}",
        f"rl.cpu_seconds={given.cpu_seconds}",
    )


def parsed() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scenario", help='a TOML file of agentrl train, or a name such as "household/train"')
    parser.add_argument("settings", nargs="*", help="section.name=value for all arms")
    parser.add_argument("--warm-start", type=Path, required=True, help="a run, or a model folder")
    parser.add_argument("--recipes", nargs="+", required=True, metavar="ARM", help="two arms or more")
    parser.add_argument("--out", type=Path, default=Path("runs/compare"))
    parser.add_argument("--steps", type=int, default=0, help="most updates (80 where no bound is given)")
    parser.add_argument("--sampled-tokens", type=int, default=0, help="most tokens drawn; 0 is no bound")
    parser.add_argument("--cpu-seconds", type=float, default=0.0, help="most CPU-seconds; 0 is no bound")
    parser.add_argument("--rates", type=float, nargs="+", default=[2e-4, 5e-4], help="learning rates to try")
    parser.add_argument("--seeds", type=int, nargs="+", default=[31, 32, 33])
    parser.add_argument("--tuning-seed", type=int, default=900)
    parser.add_argument("--tuning-tasks", type=int, default=256)
    parser.add_argument("--every", type=int, default=20, help="updates between points of the curves")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one core each")
    given = parser.parse_args()
    if given.tuning_seed in given.seeds:
        parser.error(f"--tuning-seed {given.tuning_seed} is among --seeds; rates are chosen on another seed")
    return given


def main() -> None:
    """Choose the rates, train, compare."""
    given = parsed()
    shared = (*SHARED, f"warm_start.path={given.warm_start}", *budget(given), *given.settings)
    comparison = Comparison(given.scenario, given.out, given.jobs, shared)
    arms = [Arm(title) for title in dict.fromkeys(given.recipes)]
    try:
        rates = choose_rates(comparison, arms, given.rates, given)
        found = train_all(comparison, rates, given.seeds, given.every)
    except AgentrlError as error:
        sys.exit(f"{error}")
    text = report(comparison, found, rates)
    (given.out / "compare.md").write_text(text + "\n")
    figures = {arm.title: [vars(one) for one in outcomes] for arm, outcomes in found.items()}
    content = {"seeds": given.seeds, "rates": {arm.title: rates[arm] for arm in arms}, "arms": figures}
    (given.out / "compare.json").write_text(json.dumps(content, indent=1) + "\n")
    print(text)


if __name__ == "__main__":
    main()
