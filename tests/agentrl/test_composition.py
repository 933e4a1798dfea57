"""Sums and multiples of advantages: what parts inside declare, single tokens, and what makes no sense."""

from __future__ import annotations

import operator
import pickle
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import pytest
from numpy.testing import assert_allclose

from agentrl.credit.advantage import Relative, episode_total, one
from agentrl.credit.compose import Advantage, Composable, Sum, Weighted
from agentrl.credit.critic import BiLevelGae, TokenGae, TurnGae, returns_of
from agentrl.credit.history import MeanAmong, NestedHistory
from agentrl.credit.keep import keep_all
from agentrl.credit.normalise import FirstTurns, HarderFirst
from agentrl.credit.objective import Contrast, Desirable, GroupObjective, Members, NegativeAware, Regression
from agentrl.credit.part import load
from agentrl.credit.peers import same_task
from agentrl.credit.refine import Confident, EarlierTool, Improved, Novelty
from agentrl.credit.tokens import tells_tokens_apart
from agentrl.credit.tree import Whitened
from agentrl.credit.uniform import UniformValue
from agentrl.errors import AlgorithmError, MissingColumnError
from agentrl.learn.penalty import Entropy
from agentrl.learn.schedule import Linear
from agentrl.recipes import GRPO, get
from agentrl.run.check import check_algorithm
from agentrl.run.settings import TrainSettings
from agentrl.trajectory.batch import REFERENCE_LOGPROB, VALUE, Batch

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from agentrl.credit.keep import Kept

    Floats: TypeAlias = NDArray[np.float64]

PAIR = Batch.from_arrays(
    group=[0, 0], turns_per_trajectory=[1, 1], reward=[1, 0], tokens_per_turn=[3, 1],
    columns={VALUE: [0.1, 0.5, 0.9, 0.2]},
)  # fmt: skip


def among_the_task(part: Advantage) -> Advantage:
    return MeanAmong(part, same_task)


def harder_first(part: Advantage) -> Advantage:
    return HarderFirst(part, same_task)


def nested(part: Advantage) -> Advantage:
    return NestedHistory(base=part)


def scaled(part: Advantage) -> Advantage:
    return 0.5 * Whitened(part)


def episode_total_less_half(batch: Batch, reward: Floats, kept: Kept, /) -> Floats:
    return episode_total(batch, reward) - 0.5


class TestTokens:
    # TokenGae() from the last token back, gamma 1 within a turn, lambda 0.95. First member:
    # 1 - 0.9 = 0.1; 0.9 - 0.5 + 0.95 * 0.1 = 0.495; 0.5 - 0.1 + 0.95 * 0.495 = 0.87025. Second: 0 - 0.2.
    # Relative(scale=one): 1 - 0.5 and 0 - 0.5, the same at each token of the turn.
    own = (0.87025, 0.495, 0.1, -0.2)

    @pytest.mark.parametrize(
        ("advantage", "turns", "tokens"),
        [
            (1.0 * TokenGae(), 0.0, 1.0),
            (Relative(scale=one) + TokenGae(), 1.0, 1.0),
            (TokenGae() + 2 * Relative(scale=one), 2.0, 1.0),
            (0.5 * (TokenGae() - Relative(scale=one)), -0.5, 0.5),
            (-TokenGae() + TokenGae(), 0.0, 0.0),
        ],
    )
    def test_single_tokens_survive(self, advantage: Advantage, turns: float, tokens: float) -> None:
        credit = replace(GRPO, advantage=advantage).credit(PAIR)
        own, relative = np.array(self.own), np.array([0.5, 0.5, 0.5, -0.5])
        assert_allclose(credit.advantage_of_sample, tokens * own + turns * relative, rtol=0, atol=1e-7)
        means = np.array([own[:3].mean(), own[3]])
        assert_allclose(credit.advantage, tokens * means + turns * relative[[0, 3]], rtol=0, atol=1e-7)

    def test_a_sum_of_turns_stays_one(self) -> None:
        assert not tells_tokens_apart(Relative() + 0.5 * Relative())
        assert not tells_tokens_apart(TurnGae() - Relative())
        assert tells_tokens_apart(Sum((episode_total_less_half, TokenGae())))

    @pytest.mark.parametrize("part", [TokenGae(), 0.5 * BiLevelGae() + Relative(), NegativeAware()])
    @pytest.mark.parametrize(
        "wrap",
        [
            Whitened, FirstTurns, EarlierTool, Novelty, Confident, Improved, UniformValue,
            among_the_task, harder_first, nested, scaled,
        ],
    )  # fmt: skip
    def test_a_part_of_turns_refuses_what_it_would_lose(
        self, wrap: Callable[[Advantage], Advantage], part: Advantage
    ) -> None:
        with pytest.raises(
            AlgorithmError, match=r"works on turns, and (TokenGae|BiLevelGae|NegativeAware)\("
        ):
            wrap(part)


class TestDeclarations:
    @pytest.mark.parametrize(
        "advantage",
        [
            0.5 * Contrast(), Relative() + Contrast(), Relative() - 2 * Desirable(),
            Linear(0, 1) * Contrast(),
            Whitened(Relative() + Contrast()),
            MeanAmong(0.5 * Desirable(), same_task), NestedHistory(base=Contrast()),
        ],
    )  # fmt: skip
    def test_needs_of_parts_inside_are_needs(self, advantage: Advantage) -> None:
        algorithm = replace(get("COPG"), advantage=advantage, penalties=(Entropy(0.1),))
        assert algorithm.needs == ("entropy", "reference_logprob")
        assert algorithm.reads_current
        assert pickle.loads(pickle.dumps(algorithm)).needs == algorithm.needs

    @pytest.mark.parametrize("part", [Regression(), NegativeAware(), UniformValue()])
    def test_what_reads_the_policy_of_the_moment(self, part: Composable) -> None:
        for advantage in (part, 0.5 * part, Relative() + part, part - Relative()):
            assert replace(GRPO, advantage=advantage).reads_current
        assert not replace(GRPO, advantage=Relative() + 0.5 * Relative()).reads_current

    @pytest.mark.parametrize("name", ["COPG", "KTO"])
    def test_a_missing_reference_is_named(self, name: str) -> None:
        part = get(name).advantage
        assert isinstance(part, Composable)
        for advantage in (part, 0.5 * part, Relative() + part):
            with pytest.raises(MissingColumnError, match=r"reference_logprob.*agentrl\.learn\.probes"):
                replace(get(name), advantage=advantage).credit(PAIR)

    def test_a_run_refuses_a_need_that_it_does_not_measure(self) -> None:
        algorithm = replace(get("COPG"), advantage=Relative() + 0.5 * Misspelt())
        with pytest.raises(AlgorithmError, match=r"Misspelt needs 'reference_logprobs'.*Did you mean"):
            check_algorithm(algorithm, TrainSettings.model_validate({"environment": {"id": "x"}}))


@dataclass(frozen=True)
class Misspelt(GroupObjective):
    @property
    def needs(self) -> tuple[str, ...]:
        return ("reference_logprobs",)

    def slope(self, members: Members, /) -> Floats:
        return members.total


class TestCritic:
    def test_equal_parts_have_one_critic(self) -> None:
        both = 0.5 * TokenGae() + Relative() + 0.5 * TokenGae()
        assert returns_of(replace(get("POAD"), advantage=both).advantage) == TokenGae()

    def test_different_returns_are_refused(self) -> None:
        with pytest.raises(AlgorithmError, match=r"TokenGae\(.*TurnGae\(.*a critic learns one"):
            replace(get("POAD"), advantage=TokenGae() + 0.5 * TurnGae())
        assert replace(GRPO, advantage=TokenGae() + 0.5 * TurnGae()).critic is None


class TestNonsense:
    @pytest.mark.parametrize("other", [1.0, 0, "Relative", None, Linear(0.0, 1.0)])
    def test_only_advantages_add(self, other: object) -> None:
        for combine in (operator.add, operator.sub):
            for pair in ((Relative(), other), (other, Relative())):
                with pytest.raises(AlgorithmError, match="is no advantage"):
                    combine(*pair)  # pyright: ignore[reportCallIssue, reportArgumentType]  # what is refused

    @pytest.mark.parametrize("weight", [Relative(), "0.5", None, episode_total])
    def test_only_numbers_scale(self, weight: object) -> None:
        with pytest.raises(AlgorithmError, match="scaled by a number"):
            Relative() * weight  # type: ignore[operator]

    def test_differences_are_sums(self) -> None:
        assert Relative() - TurnGae() == Sum((Relative(), Weighted(-1.0, TurnGae())))
        assert -TurnGae() == Weighted(-1.0, TurnGae())
        reward = PAIR.reward.astype(float)
        total = (episode_total_less_half - Relative(scale=one))(PAIR, reward, keep_all(PAIR, reward))
        assert total.tolist() == [0.0, 0.0]


def test_parts_are_found_where_earlier_run_cards_name_them() -> None:
    assert load("agentrl.credit.advantage:Sum") is Sum
    assert load("agentrl.credit.advantage:Weighted") is Weighted


def test_reference_is_read_where_it_was_measured() -> None:
    batch = PAIR.with_column(REFERENCE_LOGPROB, np.zeros(4, np.float32))
    assert np.isfinite(replace(get("COPG"), advantage=0.5 * Contrast()).credit(batch).advantage).all()
