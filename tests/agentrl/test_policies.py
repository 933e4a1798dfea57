"""Policies without a model."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pytest

from agentrl.errors import PolicyError
from agentrl.policy.base import Policy, Request, Sampling
from agentrl.policy.render import Renderer
from agentrl.testing import HumanPolicy, RandomPolicy, ReplayPolicy, ScriptedPolicy
from agentrl.trajectory import IntArray, StopReason, Trajectory, Turn, no_tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def request(
    turn: int = 0,
    observation: str = "A door.",
    trajectory: str = "t0",
    key: tuple[int, ...] = (0,),
    commands: Sequence[str] | None = None,
    max_tokens: int = 64,
) -> Request:
    return Request(
        trajectory,
        "s",
        turn,
        observation,
        (),
        key=key,
        admissible=lambda: commands,
        sampling=Sampling(max_tokens=max_tokens),
    )


class Letters(Renderer):
    """A renderer whose tokens are code points; 0 ends a turn."""

    @property
    def stop_tokens(self) -> tuple[int, ...]:
        return (0,)

    def begin(self, system: str, observation: str) -> IntArray:
        return self.encode(system + observation)

    def extend(self, observation: str, *, closed: bool) -> IntArray:
        return self.encode(observation if closed else "\0" + observation)

    def encode(self, text: str) -> IntArray:
        return np.array([ord(letter) for letter in text], dtype=np.int32)

    def decode(self, tokens: Sequence[int]) -> str:
        return "".join(chr(token) for token in tokens if token)


def recorded(*texts: str) -> Trajectory:
    tokens = np.array([1, 2], dtype=np.int32)
    turns = tuple(
        Turn(
            no_tokens(),
            tokens,
            np.array([-1.0, -0.5], dtype=np.float32),
            f"obs {index}",
            text,
            text,
            policy_version=3,
        )
        for index, text in enumerate(texts)
    )
    return Trajectory("old", "mine/Door-v0", "train/0", "g", turns, StopReason.TERMINATED)


@pytest.mark.parametrize(
    "policy",
    [ScriptedPolicy(["x"]), RandomPolicy(), ReplayPolicy(recorded("x")), HumanPolicy(read=lambda _: "x")],
)
def test_all_are_policies(policy: object) -> None:
    assert isinstance(policy, Policy)


async def test_a_list_is_written_turn_by_turn_and_ends_with_a_sentence() -> None:
    policy = ScriptedPolicy(["look", "open door"])
    assert [(await policy.generate(request(turn))).text for turn in (1, 0)] == ["open door", "look"]
    with pytest.raises(PolicyError, match=r"a script of 2 turns; turn 2 was asked for"):
        await policy.generate(request(2))


def test_a_single_text_is_no_script() -> None:
    with pytest.raises(PolicyError, match=r"write \['look'\]"):
        ScriptedPolicy("look")


async def test_each_trajectory_has_its_own_actor() -> None:
    def factory() -> Callable[[str], str]:
        seen: list[str] = []

        def actor(observation: str) -> str:
            seen.append(observation)
            return f"{len(seen)}:{observation}"

        return actor

    policy = ScriptedPolicy(factory)
    texts = [
        (await policy.generate(request(trajectory=name, observation="o"))).text for name in ("a", "a", "b")
    ]
    assert texts == ["1:o", "2:o", "1:o"]
    policy.finish("a")
    assert (await policy.generate(request(trajectory="a", observation="o"))).text == "1:o"


async def test_with_a_renderer_samples_carry_tokens() -> None:
    sample = await ScriptedPolicy(["go"], renderer=Letters()).generate(request())
    assert sample.tokens is not None
    assert sample.logprobs is not None
    assert sample.tokens.tolist() == [103, 111, 0]
    assert sample.logprobs.tolist() == [0, 0, 0]
    assert (await ScriptedPolicy(["go"]).generate(request())).tokens is None


async def test_tokens_end_at_the_limit_and_text_says_the_same() -> None:
    sample = await ScriptedPolicy(["go east"], renderer=Letters()).generate(request(max_tokens=2))
    assert sample.tokens is not None
    assert (sample.text, sample.tokens.tolist(), sample.finish) == ("go", [103, 111], "length")


async def test_random_choices_depend_on_the_key_only() -> None:
    policy, commands = RandomPolicy(), ["a", "b", "c", "d"]
    keys = [(0, step, 0, 0, turn) for step in range(20) for turn in range(20)]
    first = [(await policy.generate(request(key=key, commands=commands))).text for key in keys]
    again = [
        (await RandomPolicy().generate(request(key=key, commands=commands))).text for key in reversed(keys)
    ]
    assert first == again[::-1]
    # 400 draws of 4 commands: 100 expected, standard deviation 8.7; 60..140 is more than four of them.
    assert all(60 < count < 140 for count in Counter(first).values())
    assert len(Counter(first)) == 4


@pytest.mark.parametrize(("commands", "given"), [(None, "none"), ([], "an empty list")])
async def test_random_needs_commands(commands: list[str] | None, given: str) -> None:
    with pytest.raises(PolicyError, match=f"it gave {given}. Use ScriptedPolicy"):
        await RandomPolicy().generate(request(commands=commands))


async def test_replay_gives_the_recorded_turn() -> None:
    policy = ReplayPolicy(recorded("look", "open"), renderer=Letters())
    sample = await policy.generate(request(1, "obs 1"))
    assert (sample.text, sample.version) == ("open", 3)
    assert sample.tokens is not None
    assert sample.tokens.tolist() == [1, 2]
    assert (await ReplayPolicy(recorded("look")).generate(request(0, "obs 0"))).tokens is None


async def test_replay_stops_where_it_diverges() -> None:
    with pytest.raises(
        PolicyError, match=r"diverges at turn 0: recorded was 'obs 0', now it is 'A cellar\.'"
    ):
        await ReplayPolicy(recorded("look")).generate(request(0, "A cellar."))
    assert (
        await ReplayPolicy(recorded("look"), strict=False).generate(request(0, "A cellar."))
    ).text == "look"
    with pytest.raises(PolicyError, match="has 1 turns; turn 1 was asked for"):
        await ReplayPolicy(recorded("look")).generate(request(1, "obs 1"))


async def test_a_human_sees_the_observation_and_the_commands() -> None:
    shown: list[str] = []

    def read(prompt: str) -> str:
        shown.append(prompt)
        return "open door"

    sample = await HumanPolicy(read=read).generate(request(commands=["look", "open door"]))
    assert (sample.text, shown) == ("open door", ["\nA door.\n(look | open door)\n> "])


async def test_nobody_at_the_keyboard() -> None:
    def read(prompt: str) -> str:
        raise EOFError(prompt)

    with pytest.raises(PolicyError, match="nobody is at the keyboard"):
        await HumanPolicy(read=read).generate(request())
