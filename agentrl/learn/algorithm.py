"""An algorithm is a value: typed slots filled by plain functions and frozen dataclasses.

A paper is one `replace(...)` of another (`agentrl.recipes`). Nothing here imports torch, so algorithms print,
compare and pickle without it.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np

from agentrl.credit.advantage import Relative
from agentrl.credit.compose import Advantage, Sum
from agentrl.credit.critic import returns_of
from agentrl.credit.keep import Keep, Kept, keep_all
from agentrl.credit.part import Description, Printed, name_of, parts_inside, per_turn, rebuild, resolve
from agentrl.credit.part import describe as describe_part
from agentrl.credit.reward import Reward, environment_reward
from agentrl.credit.tokens import of_tokens, tells_tokens_apart
from agentrl.credit.tree import Copies, copied_sample, copied_turn, is_branched
from agentrl.errors import AlgorithmError
from agentrl.learn.average import Average, CreditAverage, turn_mean
from agentrl.learn.optimizer import AdamW, Optimizer
from agentrl.learn.ratio import Ratio, turn_ratio
from agentrl.learn.surrogate import Clip, Situated, Surrogate
from agentrl.learn.weight import CreditWeight, TokenWeight, equal_weight
from agentrl.plan import Plan

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from agentrl.learn.critic import Critic
    from agentrl.learn.penalty import Need, Penalty
    from agentrl.trajectory.batch import Batch

    Floats: TypeAlias = NDArray[np.float64]
    Bools: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Credit:
    """What an algorithm made of a batch.

    Attributes:
        reward: (S,) reward that credit was computed from.
        kept: which turns carry loss and which trajectories stand in baselines.
        advantage: (S,) advantage of each turn, 0 where the turn carries no loss.
        advantage_of_sample: (N,) the same on sampled tokens; finer, where the part tells tokens apart.
        keep_of_sample: (N,) whether the token carries loss.
        parts: (S,) advantage of each term by name, where the advantage is a sum.
    """

    reward: Floats
    kept: Kept
    advantage: Floats
    advantage_of_sample: Floats
    keep_of_sample: Bools
    parts: Mapping[str, Floats] = field(default_factory=dict)

    @property
    def empty(self) -> bool:
        """Whether no token carries loss, so there is nothing to learn from the batch."""
        return not np.count_nonzero(self.keep_of_sample)

    def figures(self) -> dict[str, float]:
        """Return health figures by name; those of advantages are over kept turns."""
        advantage = self.advantage[self.kept.loss]
        some = advantage if len(advantage) else np.zeros(1)
        return {
            "kept_turns": float(self.kept.loss.mean()) if len(self.kept.loss) else 0.0,
            "baseline_trajectories": float(self.kept.baseline.mean()) if len(self.kept.baseline) else 0.0,
            "advantage_mean": float(some.mean()),
            "advantage_std": float(some.std()),
            "advantage_largest": float(np.abs(some).max()),
            "advantage_zero": float((np.abs(some) < 1e-8).mean()),
        }


@dataclass(frozen=True, repr=False)
class Algorithm(Printed):
    """How trajectories become a gradient; the default takes the turn as the action.

    Its ratio, clip and average are per turn and its advantage is that of GRPO: the recipe `TURN_PPO_RATIO`.
    Every other recipe names its own ratio and average.

    Attributes:
        reward, keep, advantage: credit, numpy; see `agentrl.credit`.
        token_weight, ratio, surrogate, average, penalties: the loss.
        plan: what a step rolls out, from task sampler to replay; see `agentrl.plan`.
        optimizer: what steps on it; `critic`: how the values are learnt that the advantage reads.
        epochs: passes over each batch; `minibatches`: optimizer steps in each pass, every one on its own
            share of the trajectories.
        on_empty: whether a batch of which the filter keeps nothing is an error or skipped.
    """

    reward: Reward = environment_reward
    keep: Keep = keep_all
    advantage: Advantage = Relative()  # noqa: RUF009  # frozen, so sharing one is safe
    token_weight: TokenWeight | CreditWeight = equal_weight
    ratio: Ratio = turn_ratio
    surrogate: Surrogate | Situated = Clip(0.2, 0.2)  # noqa: RUF009  # frozen
    average: Average | CreditAverage = turn_mean
    penalties: tuple[Penalty, ...] = ()
    plan: Plan = Plan()  # noqa: RUF009  # frozen
    optimizer: Optimizer = AdamW()  # noqa: RUF009  # frozen
    critic: Critic | None = None
    epochs: int = 1
    minibatches: int = 1
    on_empty: Literal["raise", "skip"] = "raise"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("epochs", "minibatches"):
            if getattr(self, name) < 1:
                raise AlgorithmError(f"{name} must be at least 1; got {getattr(self, name)}.")
        if self.critic is not None:
            returns_of(self.advantage)  # refuses two that ask for different values

    def at(self, progress: float) -> Algorithm:
        """Return the algorithm with every schedule replaced by its number at `progress` in [0, 1]."""
        return resolve(self, progress)

    @functools.cached_property
    def needs(self) -> tuple[Need, ...]:
        """What penalties and advantage, and the parts inside them, read besides log-probabilities."""
        inside = parts_inside((*self.penalties, self.advantage))
        return tuple(sorted({need for part in inside if isinstance(part, Needy) for need in part.needs}))

    @functools.cached_property
    def reads_current(self) -> bool:
        """Whether credit depends on the policy as it is now, so that each optimizer step computes it anew."""
        inside = parts_inside(self.advantage)
        return any(isinstance(part, ReadsCurrent) and part.reads_current for part in inside)

    @functools.cached_property
    def _tells_tokens_apart(self) -> bool:
        return tells_tokens_apart(self.advantage)

    def credit(self, batch: Batch) -> Credit:
        """Return the advantages of a batch.

        Turns that branches share with their parent carry loss once, with the mean advantage of the copies;
        an objective over whole trajectories has a slope for each copy, and so has a sum with one inside.

        Raises:
            AlgorithmError: a part gave a wrong shape or a figure that is not finite, or the filter kept
            nothing. MissingColumnError: a part reads a column that no probe measured.
        """
        reward = _turns(batch, self.reward(batch), self.reward)
        kept = _fitting(batch, self.keep(batch, reward), self.keep)
        parts = self.advantage.parts(batch, reward, kept) if isinstance(self.advantage, Sum) else {}
        given = sum(parts.values()) if parts else self.advantage(batch, reward, kept)
        turn, whole = batch.turn_of_sample, int(np.count_nonzero(kept.loss)) == batch.num_turns
        advantage = _turns(batch, np.asarray(given, np.float64), self.advantage)
        advantage = _kept_only(advantage, kept.loss, whole=whole)
        keep_of_sample, of_sample = kept.loss[turn], advantage[turn]
        if self._tells_tokens_apart:
            finer = _tokens(batch, of_tokens(self.advantage, batch, reward, kept), self.advantage)
            of_sample = _kept_only(finer, keep_of_sample, whole=whole)
        shown = {name: _kept_only(part, kept.loss, whole=whole) for name, part in parts.items()}
        credit = Credit(reward, kept, advantage, of_sample, keep_of_sample, shown)
        if is_branched(batch) and not self.reads_current:
            credit = _counted_once(batch, credit)
        if credit.empty and self.on_empty == "raise":
            if not batch.num_sampled:
                raise AlgorithmError(
                    f"the batch is empty: no sampled token in {batch.num_turns} turns of "
                    f"{batch.num_trajectories} trajectories, so there is nothing to learn from. "
                    "Give it what a policy sampled, or set on_empty='skip'."
                )
            raise AlgorithmError(
                f"{self.keep!r} kept none of {batch.num_turns} turns, so there is nothing to "
                "learn from. Loosen the filter, sample more rollouts per task, or set on_empty='skip'."
            )
        return credit


@runtime_checkable
class Needy(Protocol):
    """A part that names figures which a run must measure before credit."""

    @property
    def needs(self) -> tuple[Need, ...]:
        """Names of the figures."""
        ...


@runtime_checkable
class ReadsCurrent(Protocol):
    """An advantage that reads the column `CURRENT_LOGPROB`."""

    reads_current: bool


def describe(algorithm: Algorithm) -> dict[str, Description]:
    """Return the algorithm as plain data for the run card: dotted names of the parts, and their fields."""
    description = describe_part(algorithm)
    if not isinstance(description, dict):
        raise AlgorithmError(f"{algorithm!r} is not an Algorithm.")
    return description


def from_description(description: dict[str, Description]) -> Algorithm:
    """Return the algorithm that `describe` wrote.

    It imports the modules named there: read only run cards you trust.
    """
    algorithm = rebuild(description)
    if not isinstance(algorithm, Algorithm):
        raise AlgorithmError(f"the run card describes {name_of(algorithm)}, not an Algorithm.")
    return algorithm


def _kept_only(values: Floats, kept: Bools, *, whole: bool) -> Floats:
    """Return the values, 0 where they are not kept; `whole` says that all are, which makes it free."""
    return values if whole else np.where(kept, values, 0.0)


def _counted_once(batch: Batch, credit: Credit) -> Credit:
    origin, member = copied_turn(batch), batch.member[batch.trajectory_of_turn]
    turns = Copies(origin, credit.kept.loss, member)
    samples = Copies(copied_sample(batch, origin), credit.keep_of_sample, member[batch.turn_of_sample])
    stands, standing = turns.standing(), samples.standing()
    of_turn = {name: np.where(stands, turns.mean(part), 0.0) for name, part in credit.parts.items()}
    return Credit(
        credit.reward,
        Kept(stands, credit.kept.baseline),
        np.where(stands, turns.mean(credit.advantage), 0.0),
        np.where(standing, samples.mean(credit.advantage_of_sample), 0.0),
        standing,
        of_turn,
    )


def _tokens(batch: Batch, values: Floats, part: object) -> Floats:
    if values.shape != (batch.num_sampled,) or not np.isfinite(values).all():
        raise AlgorithmError(
            f"{name_of(part)} gave shape {values.shape}; expected one finite figure per sampled token, "
            f"({batch.num_sampled},)."
        )
    return values.astype(np.float64)


def _fitting(batch: Batch, given: object, part: object) -> Kept:
    if not isinstance(given, Kept):
        raise AlgorithmError(f"{name_of(part)} gave a {type(given).__name__}; expected Kept(loss, baseline).")
    size = (batch.num_turns,), (batch.num_trajectories,)
    if (given.loss.shape, given.baseline.shape) != size:
        raise AlgorithmError(
            f"{name_of(part)} gave masks of shapes {given.loss.shape} and {given.baseline.shape}; expected "
            f"one entry per turn and one per trajectory, {size[0]} and {size[1]}."
        )
    return given


def _turns(batch: Batch, values: Floats, part: object) -> Floats:
    finite = np.isfinite(per_turn(values, part, batch.num_turns))
    if np.count_nonzero(finite) < len(finite):
        turn = int(np.argmin(finite))
        raise AlgorithmError(
            f"{name_of(part)} gave {values[turn]} at turn {turn}; it must be finite everywhere."
        )
    return values.astype(np.float64, copy=False)
