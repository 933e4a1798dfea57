"""What an evaluation found, as rows, as JSON and as a table of text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from agentrl.run.judge import interval_row
from agentrl.run.statistics import mean_pass, pass_hat_k, success_interval
from agentrl.trajectory import TurnKind

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agentrl.run.judge import Verdict
    from agentrl.run.statistics import Interval
    from agentrl.run.suite import Mode, ScenarioSettings

SCHEMA = 1
"""Version of `eval.json`."""

COLUMNS = (
    "scenario", "policy", "mode", "tasks", "success [95 %]", "pass@k", "turns", "tokens", "refused",
    "truncated", "failed",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One policy on one scenario in one mode."""

    scenario: ScenarioSettings
    policy: str
    mode: Mode
    verdict: Verdict
    seconds: float

    @property
    def title(self) -> str:
        """Name of the row, unique within an evaluation."""
        return f"{self.policy} {self.scenario.title} {self.mode}"

    @property
    def success(self) -> Interval:
        """Success over tasks with a 95 % interval clustered by task; failed rollouts left out."""
        return self.verdict.success

    @property
    def pass_at(self) -> dict[int, float]:
        """pass@k for k = 1, 2, 4, ... and the number of rollouts."""
        rollouts = self.scenario.rollouts
        wanted = sorted({2**power for power in range(rollouts.bit_length())} | {rollouts})
        found = {k: mean_pass(self.verdict.outcomes, k) for k in wanted if k <= rollouts}
        return {k: value for k, value in found.items() if value is not None}

    def worst_case(self) -> Interval:
        """Success where every failed rollout counts as a failure of the agent; of NaN where it is unknown."""
        if self.verdict.unknown:
            return self.success
        outcomes = {task: list(values) for task, values in self.verdict.outcomes.items()}
        for item in self.verdict.invalid:
            outcomes.setdefault(item.task, []).append(0.0)
        return success_interval(outcomes)

    def counts(self) -> dict[str, int]:
        """Counts over trajectories and turns: what went wrong, each kind apart."""
        trajectories = self.verdict.trajectories
        turns = [turn for item in trajectories for turn in item.turns]
        return {
            "trajectories": len(trajectories),
            "infrastructure": len(self.verdict.invalid),
            "truncated": sum(item.truncated for item in trajectories),
            "turns": len(turns),
            "refused": sum(not turn.valid for turn in turns),
            "parse_errors": sum(turn.kind is TurnKind.PARSE_ERROR for turn in turns),
            "cut": sum(turn.kind is TurnKind.TRUNCATED for turn in turns),
            "spoofed": sum(turn.spoofed for turn in turns),
            "rewritten": sum(turn.fresh for turn in turns),
            "tool_calls": sum(len(turn.tool_calls) for turn in turns),
            "unjudged": self.verdict.unjudged,
        }

    def usage(self) -> dict[str, float | None]:
        """Tokens, cost and repeated calls of a policy behind a server, summed; empty for others.

        What a server did not count in every turn is None, and so is a cost that needs it.
        """
        turns = [turn.measures for item in self.verdict.trajectories for turn in item.turns]
        asked = [measures for measures in turns if "server_attempts" in measures]
        if not asked:
            return {}
        tokens = {
            name: [measures.get(f"server_{name}") for measures in asked]
            for name in ("prompt_tokens", "completion_tokens")
        }
        sums = {name: _sum(values) for name, values in tokens.items()}
        cost = None if None in sums.values() else sum(measures.get("server_cost", 0.0) for measures in asked)
        return sums | {"cost": cost} | {"retries": sum(measures["server_attempts"] - 1 for measures in asked)}

    def content(self) -> dict[str, object]:
        """The row as plain data."""
        usage = self.usage()
        rollouts = self.scenario.rollouts
        hat = {k: mean_pass(self.verdict.outcomes, k, pass_hat_k) for k in self.pass_at}
        seconds = [
            sum(turn.generate_seconds + turn.environment_seconds for turn in item.turns)
            for item in self.verdict.trajectories
        ]
        return {
            "scenario": self.scenario.title,
            "split": self.scenario.split,
            "policy": self.policy,
            "mode": self.mode,
            "rollouts": rollouts,
            "success": interval_row(self.success),
            "failed_counted_as_zero": interval_row(self.worst_case()),
            "pass_at": {str(k): value for k, value in self.pass_at.items()},
            "pass_hat": {str(k): value for k, value in hat.items() if value is not None},
            "means": self.verdict.figures(),
            "counts": self.counts(),
            "stop_reasons": self.verdict.stops(),
            "by_type": self.verdict.by_type(),
            "sandbox_tiers": self.verdict.tiers(),
            "seconds": self.seconds,
            "trajectory_seconds": {
                "p50": float(np.median(seconds)),
                "p95": float(np.quantile(seconds, 0.95)),
            },
            "outcomes": self.verdict.outcomes,
            **({"usage": usage} if usage else {}),
        }

    def cells(self) -> tuple[str, ...]:
        """The row as text, one cell for each of `COLUMNS`."""
        counts, verdict = self.counts(), self.verdict
        figures, success = verdict.figures(), verdict.success
        rollouts = f" x {self.scenario.rollouts}" if self.scenario.rollouts > 1 else ""
        passes = " ".join(f"@{k} {value:.1%}" for k, value in self.pass_at.items() if k > 1)
        return (
            self.scenario.title,
            self.policy,
            self.mode,
            f"{success.n_tasks}{rollouts}",
            "-" if verdict.unknown else f"{success.mean:.1%} [{success.low:.1%}, {success.high:.1%}]",
            passes or "-",
            f"{figures['turns']:.1f}",
            f"{figures['tokens']:.0f}" if figures["tokens"] else "-",
            f"{counts['refused'] / max(counts['turns'], 1):.1%}",
            str(counts["truncated"]),
            str(counts["infrastructure"]),
        )


@dataclass(frozen=True)
class Evaluation:
    """Every row of an evaluation; prints as a table.

    Attributes:
        suite: the settings it was made with, as plain values.
        about: when, with which versions and by which command it was made.
    """

    suite: Mapping[str, object]
    rows: tuple[Row, ...]
    seconds: float
    about: Mapping[str, object]

    def row(self, policy: str, scenario: str = "", mode: Mode = "sampled") -> Row:
        """Return the first row of a policy, on a scenario where one is named; `KeyError` without one."""
        for row in self.rows:
            if row.policy == policy and row.mode == mode and scenario in {"", row.scenario.title}:
                return row
        titles = ", ".join(row.title for row in self.rows)
        raise KeyError(f"there is no row {policy} {scenario} {mode}; there are {titles}")

    def below(self, bound: float | None, policies: Sequence[str] = ()) -> list[Row]:
        """Return the rows whose interval begins below `bound`, or below their scenario's own threshold.

        Args:
            policies: whose rows count; all by default.
        """
        failing: list[Row] = []
        for row in self.rows:
            least = row.scenario.threshold if bound is None else bound
            below = least is not None and (row.verdict.unknown or row.success.low < least)
            if below and (not policies or row.policy in policies):
                failing.append(row)
        return failing

    def content(self) -> dict[str, object]:
        """The evaluation as plain data, as it stands in `eval.json`."""
        return {
            "schema": SCHEMA,
            "suite": self.suite,
            **self.about,
            "seconds": self.seconds,
            "rows": [row.content() for row in self.rows],
        }

    def __str__(self) -> str:
        table = [COLUMNS, *(row.cells() for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = ("  ".join(map(str.ljust, line, widths)).rstrip() for line in table)
        return "\n".join((*lines, *self.notes()))

    def notes(self) -> list[str]:
        """Return a sentence for each row whose success nobody knows."""
        return [f"{row.title}: {unknown_success(row.verdict)}" for row in self.rows if row.verdict.unknown]


def unknown_success(verdict: Verdict) -> str:
    """Return why the success of a verdict is unknown, what is known, and the repair."""
    return (
        f'{verdict.unjudged} of {len(verdict.trajectories)} episodes ended without info["success"] and none '
        f"with it, so success is unknown; the mean reward is {verdict.figures()['reward']:.3g}. Let the step "
        'that ends an episode set info["success"] to True or False; a tool calls self.finish().'
    )


def _sum(values: Sequence[float | None]) -> float | None:
    """The sum, unknown where a part of it is."""
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None
