"""Rewards, filters, peers from texts, anchor statistics, the ledger, and what all parts share."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from agentrl.credit.anchors import anchor_groups, anchor_statistics
from agentrl.credit.keep import (
    All,
    KeepAll,
    Kept,
    MixedGroups,
    NoVoid,
    complete_only,
    keep_all,
    mixed_groups,
    no_code_or_answer,
    no_parsed_action,
    no_valid_action,
)
from agentrl.credit.ledger import IMPROVEMENT, PAST_MEAN, Ledger, TaskRecord
from agentrl.credit.part import describe, load, rebuild, resolve
from agentrl.credit.peers import SimilarObservation, same_observation, same_state
from agentrl.credit.reward import (
    Component,
    InvalidPenalty,
    Scaled,
    Sum,
    environment_reward,
    episode_reward_at_end,
)
from agentrl.errors import AlgorithmError, MissingColumnError
from agentrl.learn.schedule import Linear
from agentrl.testing.make import make_trajectories
from agentrl.trajectory.batch import KINDS, STOPS, Batch, reward_component
from agentrl.trajectory.detail import TurnDetail
from agentrl.trajectory.pack import pack
from agentrl.trajectory.turn import StopReason, TurnKind

if TYPE_CHECKING:
    from numpy.typing import NDArray


def detail(observation: str = "", text: str = "") -> TurnDetail:
    return TurnDetail(
        observation=observation, text=text, action="", reward=0.0, rewards={}, tool_calls=(), spans=(),
        finish="stop", generate_seconds=0.0, environment_seconds=0.0, snapshot=None, loss_prompt_tokens=None,
        measures={}, token_measures={},
    )  # fmt: skip


def rewards(batch: Batch) -> NDArray[np.float64]:
    return batch.reward.astype(np.float64)


class TestReward:
    batch = Batch.from_arrays(
        group=[0, 0, 0], turns_per_trajectory=[2, 0, 1], reward=[1, 2, 5], valid=[True, False, True]
    )

    def test_values(self) -> None:
        assert environment_reward(self.batch).tolist() == [1, 2, 5]
        assert episode_reward_at_end(self.batch).tolist() == [0, 3, 5]
        assert InvalidPenalty(0.5)(self.batch).tolist() == [0, -0.5, 0]

    def test_component(self) -> None:
        column = reward_component("format")
        batch = self.batch.with_column(column, np.array([0, 0.5, 1], np.float32))
        assert Component("format")(batch).tolist() == [0, 0.5, 1]
        with pytest.raises(MissingColumnError, match="format"):
            Component("format")(self.batch)

    def test_composition(self) -> None:
        both = environment_reward + 2.0 * InvalidPenalty(0.5) + episode_reward_at_end
        assert both == Sum((environment_reward, Scaled(2.0, InvalidPenalty(0.5)), episode_reward_at_end))
        assert both(self.batch).tolist() == [1, 4, 10]

    def test_plain_function_joins_a_sum(self) -> None:
        total = half_point + environment_reward
        assert total(self.batch).tolist() == [1.5, 2.5, 5.5]
        assert pickle.loads(pickle.dumps(total)) == total


def half_point(batch: Batch, /) -> NDArray[np.float64]:
    return np.full(batch.num_turns, 0.5)


class TestKeep:
    def test_mixed_groups(self) -> None:
        # Group 0: totals 1 and 1. Group 1: 1 and 0. Group 2: one member, so no spread.
        batch = Batch.from_arrays(
            group=[0, 0, 1, 1, 2], turns_per_trajectory=[2, 1, 1, 1, 1], reward=[0, 1, 1, 1, 0, 7]
        )
        kept = mixed_groups(batch, rewards(batch))
        assert kept.loss.tolist() == [False, False, False, True, True, False]
        assert kept.baseline.tolist() == [False, False, True, True, False]

    def test_mixed_groups_tolerance(self) -> None:
        batch = Batch.from_arrays(group=[0, 0], turns_per_trajectory=[1, 1], reward=[0.5, 0.4])
        assert mixed_groups(batch, rewards(batch)).loss.all()
        assert not MixedGroups(tolerance=0.2)(batch, rewards(batch)).loss.any()

    def test_void_trajectories_leave_the_loss_and_stay_in_the_baseline(self) -> None:
        batch = Batch.from_arrays(
            group=[0, 0], turns_per_trajectory=[2, 1], reward=[0, 1, 0], valid=[True, False, True]
        )
        kept = NoVoid(no_valid_action)(batch, rewards(batch))
        assert (kept.loss.tolist(), kept.baseline.tolist()) == ([False, False, True], [True, True])
        kept = NoVoid(no_valid_action, scope="turn", in_baseline=False)(batch, rewards(batch))
        assert (kept.loss.tolist(), kept.baseline.tolist()) == ([True, False, True], [False, True])

    def test_complete_only(self) -> None:
        batch = Batch.from_arrays(
            group=[0, 0], turns_per_trajectory=[1, 2], reward=[0, 1, 0],
            stop=[STOPS.index(StopReason.TERMINATED), STOPS.index(StopReason.MAX_TURNS)],
        )  # fmt: skip
        kept = complete_only(batch, rewards(batch))
        assert (kept.loss.tolist(), kept.baseline.tolist()) == ([True, False, False], [True, False])

    def test_conjunction(self) -> None:
        batch = Batch.from_arrays(
            group=[0, 0, 1, 1],
            turns_per_trajectory=[1] * 4,
            reward=[1, 0, 1, 1],
            valid=[True, False, True, True],
        )
        both = mixed_groups & NoVoid(no_valid_action) & complete_only
        assert (
            both
            == All((mixed_groups, NoVoid(no_valid_action), complete_only))
            == mixed_groups & (NoVoid(no_valid_action) & complete_only)
        )
        assert both(batch, rewards(batch)).loss.tolist() == [True, False, False, False]
        assert (everything & keep_all)(batch, rewards(batch)).loss.all()

    def test_predicates(self) -> None:
        batch = Batch.from_arrays(
            group=[0], turns_per_trajectory=[2], reward=[0, 0], valid=[False, True],
            kind=[KINDS.index(TurnKind.OK), KINDS.index(TurnKind.PARSE_ERROR)],
        )  # fmt: skip
        assert no_valid_action(batch).tolist() == [True, False]
        assert no_parsed_action(batch).tolist() == [False, True]

    @pytest.mark.parametrize(
        ("text", "void"),
        [
            ("", True),
            ("plain words", True),
            ("```js\n1\n```", True),
            ("```python\nprint(1)\n", True),
            ("```python\nprint(1) ```", True),
            ("```python\nprint(1)\n```", False),
            ("```py\n1/0\n```", False),
            ("```\nx = 1\n```", False),
            ("so \\boxed{4", False),
        ],
    )
    def test_simple_tir_void_turn(self, text: str, void: bool) -> None:
        batch = Batch.from_arrays(
            group=[0], turns_per_trajectory=[1], reward=[0], turn_details=(detail(text=text),)
        )
        assert no_code_or_answer(batch).tolist() == [void]

    def test_texts_are_asked_for(self) -> None:
        batch = Batch.from_arrays(group=[0], turns_per_trajectory=[1], reward=[0])
        for part in (no_code_or_answer, SimilarObservation(0.9)):
            with pytest.raises(AlgorithmError, match="pack"):
                part(batch)


def everything(batch: Batch, reward: NDArray[np.float64], /) -> Kept:
    return KeepAll()(batch, reward)


class TestAnchors:
    def test_groups_and_statistics(self) -> None:
        batch = Batch.from_arrays(
            group=[0, 0, 1], turns_per_trajectory=[3, 2, 2], reward=[0] * 7,
            state_key=["a", "b", None, "a", "a", "a", "c"],
        )  # fmt: skip
        ids = anchor_groups(batch, same_state)
        assert ids.tolist() == [0, 1, -1, 0, 0, 2, 3]
        statistics = anchor_statistics(batch, same_state)
        assert (statistics.groups, statistics.mean_size) == (4, 1.5)
        assert statistics.shared == statistics.largest == pytest.approx(3 / 7)
        assert statistics.figures()["anchor_keyless"] == pytest.approx(1 / 7)

    def test_no_keys_at_all(self) -> None:
        batch = Batch.from_arrays(group=[0], turns_per_trajectory=[2], reward=[0, 0])
        assert anchor_statistics(batch, same_observation).figures() == {
            "anchor_groups": 0.0, "anchor_mean_size": 0.0, "anchor_shared": 0.0, "anchor_largest": 0.0,
            "anchor_keyless": 1.0,
        }  # fmt: skip

    def test_similar_observations_join_the_first_cluster_that_fits(self) -> None:
        # ratio("abcd", "abce") = 2 * 3 / 8 = .75; "abxy" against "abcd" is .5; groups never mix.
        texts = ["abcd", "abce", "abxy", "abcd", "abcd"]
        batch = Batch.from_arrays(
            group=[0, 0, 1], turns_per_trajectory=[3, 1, 1], reward=[0] * 5,
            turn_details=tuple(detail(observation=text) for text in texts),
        )  # fmt: skip
        ids = SimilarObservation(0.7)(batch).tolist()
        assert ids[0] == ids[1] == ids[3]
        assert len({ids[0], ids[2], ids[4]}) == 3
        assert len(set(SimilarObservation(0.8)(batch).tolist())) == 4
        assert SimilarObservation(0.4)(batch)[2] == SimilarObservation(0.4)(batch)[0]

    @pytest.mark.parametrize("threshold", [0.0, 1.0, 2.0])
    def test_threshold_lies_inside(self, threshold: float) -> None:
        with pytest.raises(AlgorithmError, match="between 0 and 1"):
            SimilarObservation(threshold)


class TestLedger:
    batch = Batch.from_arrays(
        group=[0, 0, 1],
        turns_per_trajectory=[1, 1, 1],
        reward=[1, 0, 4],
        task=["a", "a", "b"],
        success=[1, 0, -1],
    )

    def test_record_is_pure_and_averages(self) -> None:
        empty = Ledger(decay=0.5)
        first = empty.record(self.batch)
        assert not empty.tasks
        assert first.tasks == {"a": TaskRecord(2, 1, 0.5, 0), "b": TaskRecord(1, 0, 4.0)}
        second = first.record(self.batch.select([0]))
        # .5 * .5 + .5 * 1
        assert second.tasks["a"] == TaskRecord(3, 2, 0.75, 0)
        assert second.batches == 2

    def test_annotate_reads_the_past(self) -> None:
        fresh = Ledger().annotate(self.batch)
        assert fresh[PAST_MEAN].tolist() == [0, 0, 0]
        assert Ledger().record(self.batch).annotate(self.batch)[PAST_MEAN].tolist() == [0.5, 0.5, 4.0]

    def test_improvement_is_that_of_this_step_over_the_past(self) -> None:
        # Past means 1 and 3, mean 2, deviation 1. This step's trajectory earned 5, an older one 9.
        old, new = make_trajectories(groups=2, members=1)
        batch = pack([replace(old, step=3), replace(new, step=4)])
        rewards = np.zeros(batch.num_turns, np.float32)
        rewards[batch.turn_start[1:] - 1] = [9, 5]
        batch = replace(batch, reward=rewards)
        found = Ledger(means=(1.0, 3.0)).annotate(batch)[IMPROVEMENT]
        assert found[0] == pytest.approx(3.0)
        assert np.isnan(found[1])
        for past in ((), (1.0,), (1.0, 1.005)):  # too little, or a plateau
            assert Ledger(means=past).annotate(batch)[IMPROVEMENT][0] == 0
        means = Ledger(means=tuple(float(k) for k in range(8))).record(self.batch).means
        assert means == pytest.approx((1, 2, 3, 4, 5, 6, 7, 5 / 3))

    def test_json_round_trip(self) -> None:
        ledger = Ledger().record(self.batch)
        assert Ledger.from_json(ledger.to_json()) == ledger
        for text in ("", "{}", "[]", '{"decay": 1, "batches": 0, "tasks": {"a": {"x": 1}}}'):
            with pytest.raises(AlgorithmError, match=r"Ledger\.to_json"):
                Ledger.from_json(text)


@dataclass(frozen=True)
class Holder:
    value: object = 1.0
    others: tuple[object, ...] = ()


class TestPart:
    def test_local_functions_and_strangers_cannot_be_described(self) -> None:
        def local() -> None: ...

        for value in (local, Holder(local), lambda: None):
            with pytest.raises(AlgorithmError, match="top of a module"):
                describe(value)
        with pytest.raises(AlgorithmError, match="frozen dataclass"):
            describe(object())

    def test_unknown_names_are_corrected(self) -> None:
        with pytest.raises(AlgorithmError, match="Did you mean 'mixed_groups'"):
            load("agentrl.credit.keep:mixed_group")
        with pytest.raises(AlgorithmError, match="dotted path"):
            load("mixed_groups")

    def test_rebuild_refuses_what_is_not_a_part(self) -> None:
        with pytest.raises(AlgorithmError, match="not a class"):
            rebuild({"part": "agentrl.credit.keep:mixed_groups"})

    def test_schedules_are_resolved_at_any_depth(self) -> None:
        nested = Holder(Holder(Linear(0.0, 1.0)), (Linear(2.0, 4.0), "kept"))
        assert resolve(nested, 0.5) == Holder(Holder(0.5), (3.0, "kept"))
        untouched = replace(nested, value=1.0, others=())
        assert resolve(untouched, 0.5) is untouched
