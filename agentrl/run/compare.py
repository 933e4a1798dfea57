"""Two evaluations side by side: paired by task, with intervals and corrected p-values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from agentrl.errors import ConfigError, did_you_mean
from agentrl.run.outcome import SCHEMA
from agentrl.run.settings import Arguments
from agentrl.run.statistics import holm, paired_difference

if TYPE_CHECKING:
    from pathlib import Path

    from agentrl.run.statistics import Paired


class SavedRow(msgspec.Struct):
    """What a comparison needs of a row of `eval.json`."""

    scenario: str
    policy: str
    mode: str
    outcomes: dict[str, list[float]]


class SavedEnvironment(msgspec.Struct):
    """The world of an evaluation."""

    id: str
    kwargs: Arguments = {}


class SavedSuite(msgspec.Struct):
    """The settings of an evaluation."""

    environment: SavedEnvironment


class Saved(msgspec.Struct):
    """An `eval.json`."""

    schema: int
    suite: SavedSuite
    rows: list[SavedRow]


@dataclass(frozen=True)
class Comparison:
    """One scenario and mode: `after` minus `before`, paired by task.

    `corrected` is the p-value after Holm's correction for all comparisons made together.
    """

    scenario: str
    mode: str
    before: str
    after: str
    paired: Paired
    corrected: float

    def content(self) -> dict[str, object]:
        """The comparison as plain data."""
        return {
            "scenario": self.scenario,
            "mode": self.mode,
            "before": self.before,
            "after": self.after,
            "difference": self.paired.difference,
            "ci": [self.paired.low, self.paired.high],
            "p_value": self.paired.p_value,
            "p_value_corrected": self.corrected,
            "test": self.paired.test,
            "tasks": self.paired.n_tasks,
        }


def read_evaluation(path: Path) -> Saved:
    """Read an `eval.json`, or the one of a folder. Raises `ConfigError` where there is none."""
    file = path / "eval.json" if path.is_dir() else path
    try:
        saved = msgspec.json.decode(file.read_bytes(), type=Saved)
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}. Make one with agentrl eval.") from error
    except msgspec.MsgspecError as error:
        raise ConfigError(f"{file} is not an evaluation that agentrl eval wrote: {error}.") from error
    if saved.schema > SCHEMA:
        raise ConfigError(f"{file} was written by a later version of agentrl; upgrade agentrl to read it.")
    return saved


def compare(before: Path, after: Path, policy_before: str = "", policy_after: str = "") -> list[Comparison]:
    """Compare two evaluations on every scenario and mode that both have.

    Args:
        before, after: files or folders; one file twice compares two policies of it.
        policy_before, policy_after: whose rows; where a file has one policy, that one. Without names,
            policies that both files have are compared with themselves.

    Raises:
        ConfigError: the worlds or the tasks differ, or it is not clear which rows belong together.
    """
    first, second = read_evaluation(before), read_evaluation(after)
    if first.suite.environment != second.suite.environment:
        raise ConfigError(
            f"{before} was made on {_world(first)} and {after} on {_world(second)}; "
            "evaluate both on the same environment to compare them."
        )
    pairs = _pairs(first, second, policy_before, policy_after)
    found = [(old, new, _paired(old, new)) for old, new in pairs]
    corrected = holm([paired.p_value for _, _, paired in found])
    return [
        Comparison(old.scenario, old.mode, old.policy, new.policy, paired, p_value)
        for (old, new, paired), p_value in zip(found, corrected, strict=True)
    ]


def _pairs(first: Saved, second: Saved, one: str, other: str) -> list[tuple[SavedRow, SavedRow]]:
    ours, theirs = _policies(first), _policies(second)
    for name, known in ((one, ours), (other, theirs)):
        if name and name not in known:
            raise ConfigError(
                f"there is no policy {name!r}.{did_you_mean(name, known)} There is {', '.join(known)}."
            )
    shared = [name for name in ours if name in theirs]
    if one or other or not shared:
        chosen = [(_only(one, ours, "--policy-before"), _only(other, theirs, "--policy-after"))]
    else:
        chosen = [(name, name) for name in shared]
    pairs = [
        (old, new)
        for mine, yours in chosen
        for old in first.rows
        for new in second.rows
        if (old.policy, new.policy) == (mine, yours) and (old.scenario, old.mode) == (new.scenario, new.mode)
    ]
    if not pairs:
        raise ConfigError("the evaluations share no scenario in the same mode; evaluate both on one suite.")
    return pairs


def _only(name: str, known: list[str], option: str) -> str:
    if name:
        return name
    if len(known) != 1:
        raise ConfigError(f"the evaluation holds the policies {', '.join(known)}; choose one with {option}.")
    return known[0]


def _paired(old: SavedRow, new: SavedRow) -> Paired:
    for row in (old, new):
        if not row.outcomes:
            raise ConfigError(
                f"{row.scenario} ({row.mode}) cannot be compared: the success of {row.policy} is unknown, "
                'since its episodes ended without info["success"]. Let the world set it, and evaluate again.'
            )
    try:
        return paired_difference(old.outcomes, new.outcomes)
    except ValueError as error:
        raise ConfigError(f"{old.scenario} ({old.mode}) cannot be compared. {error}") from error


def _policies(saved: Saved) -> list[str]:
    return list(dict.fromkeys(row.policy for row in saved.rows))


def _world(saved: Saved) -> str:
    given = ", ".join(f"{name}={value!r}" for name, value in saved.suite.environment.kwargs.items())
    return f"{saved.suite.environment.id}({given})"
