"""Plans: which tasks, how many members, what is hinted, shown, replaced and replayed."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from agentrl.credit.ledger import Ledger, TaskRecord
from agentrl.errors import AlgorithmError, ConfigError, RolloutError
from agentrl.learn.algorithm import describe, from_description
from agentrl.learn.schedule import Linear, Staircase
from agentrl.plan import (
    Acceptance,
    Expand,
    ExpertPrefix,
    InOrder,
    NearRate,
    Plan,
    Proportional,
    Recap,
    Refill,
    Replay,
    Supply,
    Weighted,
    WhenFailing,
    Window,
    Within,
    alike,
    hard,
    uncertain,
)
from agentrl.policy.hf import HfPolicy
from agentrl.policy.scripted import RandomPolicy
from agentrl.recipes import GRPO
from agentrl.rollout import Stock, collect
from agentrl.rollout.memory import Past
from agentrl.run.slots import memory_of, with_slots
from agentrl.testing import WordWorld
from agentrl.trajectory import StopReason, Trajectory, Turn
from agentrl.trajectory.builder import stream_tokens
from tests.agentrl.rollouts import groups, play, small_model, small_renderer, valid

if TYPE_CHECKING:
    from agentrl.plan.sampler import Weight
    from agentrl.world import StepResult

torch.set_num_threads(1)


# -- samplers ----------------------------------------------------------------------------------------------


def supply(ledger: Ledger | None = None, *, size: int | None = None, dealt: int = 0, step: int = 0) -> Supply:
    return Supply("train", size, 100, dealt, 1, step, 0, ledger or Ledger())


def known(**records: tuple[int, int]) -> Ledger:
    return Ledger(tasks={f"train/{name[1:]}": TaskRecord(*record) for name, record in records.items()})


def test_tasks_come_in_order_and_a_split_that_ends_is_shuffled() -> None:
    assert InOrder()(supply(dealt=3), 2) == [103, 104]
    rounds = [InOrder()(supply(size=5, dealt=dealt), 5) for dealt in (0, 5, 10)]
    assert all(sorted(one) == [0, 1, 2, 3, 4] for one in rounds)
    assert len({tuple(one) for one in rounds}) > 1


def test_a_split_too_large_to_shuffle_goes_on_from_its_beginning() -> None:
    size = 2**31
    assert InOrder()(supply(size=size, dealt=size - 102), 4) == [size - 2, size - 1, 0, 1]


@pytest.mark.parametrize(
    ("weight", "expected"),
    [
        # Laplace's rule: 0 of 8 is 1/10, 4 of 8 is 1/2, 8 of 8 is 9/10, never tried is 1/2.
        (alike, [1, 1, 1, 1]),
        (uncertain, [0.3, 0.5, 0.3, 0.5]),
        (hard, [0.9, 0.5, 0.1, 0.5]),
        (Acceptance(0.125), [0, 0.75**-0.5, 1.125**-0.5, 0.75**-0.5]),
        (NearRate(0.9, 0.2), [np.exp(-8), np.exp(-2), 1, np.exp(-2)]),
        (Within(0.1, 0.9), [0, 1, 0, 1]),
    ],
)
def test_weights_of_tasks(weight: Weight, expected: list[float]) -> None:
    records = [TaskRecord(8, 0), TaskRecord(8, 4), TaskRecord(8, 8), TaskRecord()]
    assert [weight(record) for record in records] == pytest.approx(expected)


def test_weighted_draws_by_weight_none_twice_and_the_same_again() -> None:
    ledger = known(t100=(50, 25), t101=(50, 50), t102=(50, 0))
    sampler = Weighted(Within(), pool=3, floor=1e-6)
    counts = np.zeros(3)
    for step in range(60):
        drawn = sampler(supply(ledger, step=step), 1)
        assert drawn == sampler(supply(ledger, step=step), 1)
        counts[drawn[0] - 100] += 1
    assert counts.tolist() == [60, 0, 0]
    assert sorted(sampler(supply(ledger), 3)) == [100, 101, 102]
    with pytest.raises(AlgorithmError, match="a pool of 3 tasks cannot give 4"):
        sampler(supply(ledger), 4)
    assert set(Weighted(pool=9)(supply(size=4), 4)) == {0, 1, 2, 3}


def test_an_allocation_adds_up_and_follows_the_weights() -> None:
    records = [TaskRecord(8, 0), TaskRecord(8, 4), TaskRecord(8, 8)]
    # Six spare members by (.3, .5, .3) / 1.1: 1.64, 2.73, 1.64; the two largest remainders get one more.
    assert Proportional()(records, 4) == [4, 5, 3]
    assert Proportional(hard, least=1)(records, 6) == [10, 6, 2]
    for members in range(2, 9):
        assert sum(Proportional()(records, members)) == 3 * members
    with pytest.raises(AlgorithmError, match="at least 2 members"):
        Proportional()(records, 1)


def test_hints_follow_the_record() -> None:
    assert ExpertPrefix(0.4)(TaskRecord()) == 0.4
    failing = WhenFailing(0.5, attempts=4)
    assert [failing(TaskRecord(*record)) for record in ((0, 0), (3, 0), (4, 0), (4, 1))] == [0, 0, 0.5, 0]


# -- dynamic sampling and replay ---------------------------------------------------------------------------


def group(number: int, step: int, *rewards: float) -> tuple[Trajectory, ...]:
    return tuple(
        Trajectory(
            id=f"{step}:{number}:{row}", environment="e", task=f"t/{number}", group=str(number), step=step,
            turns=(Turn(np.zeros(0, np.int32), None, None, "o", "t", "a", reward),),
            stop=StopReason.TERMINATED,
        )
        for row, reward in enumerate(rewards)
    )  # fmt: skip


def test_groups_that_differ_tell_something() -> None:
    assert Refill().telling(group(0, 0, 0, 1))
    assert not Refill().telling(group(0, 0, 1, 1))
    assert not Refill(tolerance=0.5).telling(group(0, 0, 0.4, 0.8))


def test_a_replay_forgets_the_old_and_the_equal_and_draws_by_spread() -> None:
    replay = Replay(groups=1, capacity=2, age=3)
    shelf = replay.keep((), [group(0, 0, 0, 1), group(1, 0, 1, 1), group(2, 0, 0, 3)], 0)
    assert [one[0].group for one in shelf] == ["0", "2"]
    assert [one[0].group for one in replay.keep(shelf, [group(3, 1, 0, 1)], 1)] == ["2", "3"]
    assert replay.keep(shelf, (), 3) == ()
    drawn = [replay.draw(shelf, np.random.default_rng(seed))[0][0].group for seed in range(400)]
    assert drawn.count("2") == pytest.approx(300, abs=30)  # spreads 1 and 3
    assert replay.draw((), np.random.default_rng(0)) == ()


# -- memory ------------------------------------------------------------------------------------------------


class Long(WordWorld):
    def __init__(self) -> None:
        super().__init__(length=5)


@pytest.fixture(scope="module")
def policy() -> HfPolicy:
    renderer = small_renderer()
    return HfPolicy(small_model(renderer), renderer, slots=4, context=256)


def test_a_window_holds_the_task_and_the_last_turns(policy: HfPolicy) -> None:
    (item,) = valid(
        collect(Stock(Long), replace(play(policy, turn_tokens=6), memory=Window(1)), groups(1, 1))
    )
    assert [turn.fresh for turn in item.turns] == [False, False, True, True, True]
    turns, renderer = item.turns, policy.renderer
    # Turn 3 sees the first observation, turn 2 as it was, and its own observation.
    assert turns[2].tokens is not None
    shown = [
        renderer.begin("", f"{turns[0].observation}\n\n{turns[2].observation}"),
        turns[2].tokens,
        renderer.extend(turns[3].observation, closed=int(turns[2].tokens[-1]) in renderer.stop_tokens),
    ]
    assert turns[3].prompt_tokens.tolist() == np.concatenate(shown).tolist()
    assert len(stream_tokens(item)) == 4


@pytest.mark.parametrize("memory", [Window(2), Recap(2)])
def test_logprobs_are_those_of_each_stream(policy: HfPolicy, memory: Window | Recap) -> None:
    (item,) = valid(collect(Stock(Long), replace(play(policy, turn_tokens=6), memory=memory), groups(1, 1)))
    streams = iter(stream_tokens(item))
    place, said = 0, torch.zeros(0)
    for number, turn in enumerate(item.turns):
        if turn.fresh or not number:
            with torch.no_grad():
                stream = torch.from_numpy(next(streams).astype(np.int64))[None]
                said = torch.log_softmax(policy.model(input_ids=stream).logits[0].double(), -1)
            place = 0
        assert turn.tokens is not None
        assert turn.logprobs is not None
        place += len(turn.prompt_tokens)
        for token, logprob in zip(turn.tokens.tolist(), turn.logprobs.tolist(), strict=True):
            assert float(said[place - 1, token]) == pytest.approx(logprob, abs=2e-5)
            place += 1


def test_a_recap_retells_and_begins_again() -> None:
    past = Past(["task", "b", "c"], ["x", "y"], begun=1)
    assert Recap(2)(past) is None
    assert Recap(1)(past) is not None
    for wrong in (lambda: Recap(0), lambda: Recap(words="nothing"), lambda: Window(-1)):
        with pytest.raises(ConfigError):
            wrong()


def test_messages_are_rewritten_for_text_policies_too() -> None:
    seen: list[list[str]] = []

    class Listening(RandomPolicy):
        async def generate(self, request):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202  # as inherited
            seen.append([message.role for message in request.messages])
            return await super().generate(request)

    collect(Stock(Long), replace(play(Listening()), memory=Window(1)), groups(1, 1))
    assert [len(roles) for roles in seen] == [1, 3, 3, 3, 3]


# -- hints -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("share", "turns"), [(0.0, 0), (0.5, 2), (1.0, 4)])
def test_the_expert_plays_its_share_and_nothing_of_it_is_sampled(
    policy: HfPolicy, share: float, turns: int
) -> None:
    assignment = replace(groups(1, 1)[0], hint=share)
    (item,) = valid(collect(Stock(Long), play(policy, turn_tokens=6), [assignment]))
    assert item.hint_level == turns
    assert len(item.turns) == 5
    for number, turn in enumerate(item.turns):
        assert turn.tokens is not None
        assert (turn.role == "expert") == (number < turns)
        assert bool(len(turn.tokens)) == (number >= turns)
        assert number >= turns or turn.reward == 1.0
    # The tokens are those of a demonstration: observation, action, end, next observation.
    renderer = policy.renderer
    told = [*renderer.begin("", item.turns[0].observation).tolist()]
    for number in range(turns):
        told += [*renderer.encode(item.turns[number].text).tolist(), renderer.stop_tokens[0]]
        told += renderer.extend(item.turns[number + 1].observation, closed=True).tolist()
    assert stream_tokens(item)[0][: len(told)].tolist() == told


class Mute(Long):
    def expert(self, observation: str) -> None:
        return None

    def step(self, action: str) -> StepResult:
        return super().step(action)


def test_without_an_expert_there_are_no_hints(policy: HfPolicy) -> None:
    with pytest.raises(RolloutError, match="Mute has none"):
        collect(Stock(Mute), play(policy), [replace(groups(1, 1)[0], hint=0.5)])


# -- plans as values and as settings -----------------------------------------------------------------------

FULL = Plan(
    sampler=Weighted(NearRate(Linear(0.75, 0.25)), pool=64),
    allocator=Proportional(),
    brancher=Expand(2, 3),
    hint=WhenFailing(Linear(0.5, 0.0)),
    turns=Staircase((2, 4)),
    memory=Window(3),
    refill=Refill(),
    replay=Replay(),
)


def test_a_plan_is_a_value_with_schedules() -> None:
    algorithm = replace(GRPO, plan=FULL)
    assert from_description(json.loads(json.dumps(describe(algorithm)))) == algorithm
    later = algorithm.at(1.0).plan
    assert later.sampler == Weighted(NearRate(0.25), pool=64)
    assert later.hint == WhenFailing(0.0)
    assert (later.most_turns(30), later.most_turns(3), Plan().most_turns(7)) == (4, 3, 7)
    assert memory_of(describe(algorithm)) == Window(3)
    assert "0x" not in repr(FULL)


def test_settings_fill_slots() -> None:
    given = with_slots(
        Plan(brancher=Expand(), replay=Replay()),
        {
            "sampler": {
                "part": "Weighted", "pool": 64,
                "weight": {"part": "NearRate", "rate": {"part": "Linear", "start": 0.75, "end": 0.25}},
            },
            "allocator": {"part": "Proportional", "weight": {"function": "hard"}},
            "brancher": False,
            "turns": {"part": "Staircase", "steps": [2, 4]},
            "memory": {"part": "agentrl.rollout.memory:Window", "turns": 3},
        },
    )  # fmt: skip
    assert given == Plan(
        sampler=FULL.sampler, allocator=Proportional(hard), turns=Staircase((2, 4)), memory=Window(3),
        replay=Replay(),
    )  # fmt: skip
    assert with_slots(Plan(), {"turns": 5, "repeats": 3}) == Plan(turns=5, repeats=3)
    assert with_slots(Plan(repeats=3), {"repeats": False}).repeats is None


@pytest.mark.parametrize(
    ("slots", "said"),
    [
        ({"branch": {"part": "Expand"}}, r"no slot 'branch'\. Did you mean 'brancher'"),
        ({"brancher": {"part": "Expandd"}}, r"has no 'Expandd'\. Did you mean 'Expand'"),
        ({"brancher": {"part": "Expand", "tree": 2}}, r"rl\.plan\.brancher cannot be built: .*'tree'"),
        ({"brancher": {"part": "Expand", "trees": 0}}, r"trees must be at least 1; got 0"),
        ({"brancher": "Expand"}, r"rl\.plan\.brancher is 'Expand'; write a table"),
        ({"memory": {"part": "no_such_module:Window"}}, "there is no module 'no_such_module'"),
        ({"memory": {"turns": 2}}, r"rl\.plan\.memory is .*write a table"),
        ({"refill": {"part": "Replay"}}, "no part for that slot"),
        ({"turns": {"part": "Window"}}, "no part for that slot"),
        ({"repeats": 1}, r"rl\.plan\.repeats is 1; write a whole number of at least 2"),
    ],
)  # fmt: skip
def test_wrong_settings_are_answered_with_a_sentence(slots: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        with_slots(Plan(), slots)  # type: ignore[arg-type]  # as a file would say it
