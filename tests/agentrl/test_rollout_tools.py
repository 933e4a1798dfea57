"""Rollouts in worlds of tools: what the agent is told, what is executed, and how often."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, ClassVar

import pytest
import torch

from agentrl.policy.scripted import ScriptedPolicy
from agentrl.rollout import (
    Stock,
    collect,
)
from agentrl.trajectory import (
    StopReason,
    TurnKind,
)
from agentrl.world import JsonCalls, Parsed, Tags, TextEnv, Toolbox, ToolResult, tool
from tests.agentrl.rollouts import groups, play, small_renderer, valid

if TYPE_CHECKING:
    from agentrl.policy.base import Request, Sample
    from agentrl.policy.render import Markup
    from agentrl.world import StepResult

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def renderer() -> Markup:
    return small_renderer()


# -- tools -------------------------------------------------------------------------------------------------


class Counted(Tags):
    """Tags that note what they read."""

    __slots__ = ()
    read: ClassVar[list[str]] = []

    def parse(self, text: str) -> Parsed:
        self.read.append(text)
        return super().parse(text)


class Library(TextEnv):
    """A world of two tools."""

    executed: ClassVar[list[str]] = []

    def num_tasks(self, split: str) -> int | None:
        return None

    @tool
    def search(self, query: str) -> ToolResult:
        """Search the library.

        Args:
            query: what to look for
        """
        self.executed.append(query)
        return ToolResult(f"{query} is </information> a drink. " + "very " * 200 + "good.", reward=0.25)

    @tool
    def answer(self, text: str) -> str:
        """Give the answer.

        Args:
            text: the answer
        """
        self.finish(1.0, success=text == "tea")
        return "Thank you."


def test_a_world_of_tools_is_told_and_parsed_by_its_own_tags(renderer: Markup) -> None:
    written = ["a <b> c <search>tea</search>", "<answer>tea</answer>"]
    policy = ScriptedPolicy(written, renderer=renderer)
    world = play(policy, protocol=Tags(), turn_tokens=64, observation_tokens=120)
    (item,) = valid(collect(Stock(Library), world, groups(1, 1)))
    first, second = item.turns
    # <b> is no tool of this world, so it is plain text and no unclosed tag.
    assert (first.kind, first.reward, second.reward) == (TurnKind.OK, 0.25, 1.0)
    assert (item.success, item.stop) == (True, StopReason.TERMINATED)
    assert [call.name for turn in item.turns for call in turn.tool_calls] == ["search", "answer"]
    assert first.tokens is not None
    for turn, piece in ((first, "<search>tea</search>"), (second, "<answer>tea</answer>")):
        assert turn.tokens is not None
        (call,) = turn.tool_calls
        covered = renderer.decode(turn.tokens[call.start : call.end].tolist())
        assert piece in covered
        assert piece not in renderer.decode(turn.tokens[call.start + 1 : call.end].tolist())
        assert piece not in renderer.decode(turn.tokens[call.start : call.end - 1].tolist())
        assert [(span.start, span.end) for span in turn.spans] == [(call.start, call.end)]
    assert first.spans[0].role == "tool_call"
    assert second.spans[0].role == "answer"
    # The observation was cut by tokens, between tags that survive and that its text cannot close.
    shown = second.observation
    assert shown.startswith("<information>tea is &lt;/information> a")
    assert shown.endswith(" good.</information>")
    assert "tokens were cut" in shown
    body = shown.removeprefix("<information>").removesuffix("</information>")
    assert len(renderer.encode(body)) <= 120
    assert len(second.prompt_tokens) <= 120 + 2 * 16
    assert item.final_observation == "<information>Thank you.</information>"


def test_the_agent_is_told_about_the_tools_and_stops_at_their_closing_tags() -> None:
    asked: list[Request] = []

    class Watching(ScriptedPolicy):
        async def generate(self, request: Request) -> Sample:
            asked.append(request)
            return await super().generate(request)

    collect(Stock(Library), play(Watching(["<answer>x</answer>"]), protocol=Tags()), groups(1, 1))
    assert asked[0].messages[0].role == "system"
    assert "<search>query</search>: Search the library." in asked[0].messages[0].content
    assert asked[0].sampling.stop_strings == ("</search>", "</answer>")


def test_json_calls_reach_the_tools_and_come_back_as_tool_responses() -> None:
    Library.executed.clear()
    call = '<tool_call>{"name": "search", "arguments": {"query": "tea"}}</tool_call>'
    policy = ScriptedPolicy([f"{call}{call}", "tea"])
    (item,) = valid(collect(Stock(Library), play(policy, protocol=JsonCalls()), groups(1, 1)))
    assert Library.executed == ["tea", "tea"]
    assert item.turns[0].reward == 0.5
    shown = item.turns[1].observation
    assert shown.startswith("<tool_response>\ntea is")
    assert shown.count("<tool_response>") == shown.count("</tool_response>") == 2
    assert item.success


def test_a_call_is_executed_once_however_often_its_turn_is_replayed() -> None:
    executed: list[str] = []

    @tool
    def send(text: str) -> str:
        """Send a mail.

        Args:
            text: of the mail
        """
        executed.append(text)
        return "Sent."

    shared = Toolbox([send])  # its effects are outside of the world, so it outlives the world's instances

    class Post(TextEnv):
        failures: ClassVar[int] = 1

        @functools.cached_property
        def toolbox(self) -> Toolbox:
            return shared

        def step(self, action: str) -> StepResult:
            result = super().step(action)
            if "second" in action and type(self).failures:
                type(self).failures -= 1
                raise RuntimeError("lost the connection after the mail was sent")
            return result

    policy = ScriptedPolicy(["<send>first</send>", "<send>second</send>", "<send>second</send>"])
    for expected in (["first", "second", "second"], ["first", "second", "second"] * 2):
        (item,) = valid(collect(Stock(Post), play(policy, protocol=Tags(), turns=3), groups(1, 1)))
        assert [turn.action for turn in item.turns] == policy.script
        assert executed == expected
    assert len(shared._ledger) == 0  # forgotten when their trajectories ended


def test_a_world_that_is_used_by_hand_afterwards_executes_its_calls() -> None:
    Library.executed.clear()
    stock = Stock(Library)
    collect(stock, play(ScriptedPolicy(["<search>tea</search>"]), protocol=Tags(), turns=1), groups(1, 1))
    env = stock.take()
    assert isinstance(env, Library)
    env.reset(seed=0)
    env.step("<search>milk</search>")
    assert Library.executed == ["tea", "milk"]


def test_a_turn_is_read_once_and_what_was_stripped_is_read_as_it_is_executed() -> None:
    script = ["<search>tea</search>", " <search>rye</search> ", "<answer>tea</answer>"]
    Counted.read.clear()
    Library.executed.clear()
    game = play(ScriptedPolicy(script), protocol=Counted())
    (played,) = valid(collect(Stock(Library), game, groups(1, members=1)))
    assert Library.executed[:2] == ["tea", "rye"]
    assert Counted.read == [script[0], script[1], script[1].strip(), script[2]]
    assert [turn.kind for turn in played.turns] == [TurnKind.OK] * 3


def test_a_world_that_changes_its_protocol_reads_for_itself() -> None:
    class Moody(Library):
        def reset(
            self, *, seed: int | None = None, options: dict[str, object] | None = None
        ) -> tuple[str, dict[str, object]]:
            found = super().reset(seed=seed, options=options)
            self.protocol = Tags(names=("answer",))
            return found

    Library.executed.clear()
    game = play(ScriptedPolicy(["<search>tea</search>", "<answer>tea</answer>"]), protocol=Tags())
    (played,) = valid(collect(Stock(Moody), game, groups(1, members=1)))
    assert Library.executed == [], "its own protocol knows no search"
    assert played.turns[0].kind is TurnKind.PARSE_ERROR
