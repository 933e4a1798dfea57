"""A VerlTool server of ours, and the tool that asks it."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from agentrl.errors import ConfigError, EnvironmentFault
from agentrl.testing import check_tool
from agentrl.testing.server import MisbehavingServer, Told
from agentrl.world import JsonCalls, Tags, Toolbox
from agentrl.world.registry import load_tool
from agentrl_tools.verltool import VerlTool

if TYPE_CHECKING:
    from agentrl.testing.server import Asked


@dataclass
class Server:
    """Keeps a counter for each trajectory, as its shells do; a finished one is forgotten."""

    counts: dict[str, int] = field(default_factory=dict)

    def __call__(self, asked: Asked) -> Told:
        body: Any = asked.json()
        told = [
            self.one(*each)
            for each in zip(body["trajectory_ids"], body["actions"], body["finish"], strict=True)
        ]
        names = ("observations", "dones", "valids")
        return Told({name: [one[at] for one in told] for at, name in enumerate(names)} | {"queue_time_ms": 1})

    def one(self, trajectory: str, action: str, finish: bool) -> tuple[object, bool, bool]:
        if finish:
            del self.counts[trajectory]
            return "", True, True
        if not action.startswith("<python>"):
            return {"obs": "", "invalid_reason": "No valid tool found for action"}, False, False
        self.counts[trajectory] = count = self.counts.get(trajectory, 0) + 1
        if "reward" in action:
            return {"obs": "rewarded", "reward": 0.5}, True, True
        return f"\n<result>\n{action[8:-9]} {count}\n</result>\n", False, True


def test_a_trajectory_keeps_its_state_and_is_finished_at_the_server() -> None:
    state = Server()
    with MisbehavingServer(state) as server:
        source = VerlTool(server.url, extra={"db_id": "tea"})
        box, tags = Toolbox([source]), Tags(names=("python",))
        assert box.run(tags.parse("<python>x = 1</python>")).text == "<result>\nx = 1 1\n</result>"
        assert box.run(tags.parse("<python>x</python>")).text == "<result>\nx 2\n</result>"
        other = copy.deepcopy(source)
        assert (
            Toolbox([other])
            .run(JsonCalls().parse(JsonCalls().write("python", {"text": "y"})))
            .text.count(" 1\n")
        )
        assert len(state.counts) == 2
        source.reset()
        other.close()
        assert state.counts == {}
        assert box.run(tags.parse("<python>x</python>")).text == "<result>\nx 1\n</result>"
        source.close()
        first = server.asked[0].json()
    assert set(first) == {"trajectory_ids", "actions", "finish", "is_last_step", "extra_fields"}
    assert first["extra_fields"] == [{"db_id": "tea"}]
    assert first["actions"] == ["<python>x = 1</python>"]


def test_rewards_endings_and_invalid_actions_are_told_apart() -> None:
    with MisbehavingServer(Server()) as server:
        (stays,), (ends,) = VerlTool(server.url).tools, VerlTool(server.url, ends=True).tools
        given = {"text": "reward"}
        assert (stays.call(given).reward, stays.call(given).done) == (0.5, False)
        assert ends.call(given).done is True
        (wrong,) = VerlTool(server.url, tool="bash", description="Run it.").tools
        result = wrong.call({"text": "ls"})
        assert (result.text, result.error) == ("No valid tool found for action",) * 2
        report = check_tool(stays, arguments=[{"text": "1"}])
        assert not report.errors, str(report)


@pytest.mark.parametrize(
    "fault", ["status 500", "status 429", "garbage", "empty", "reset", "silent", "redirect"]
)
def test_an_action_is_sent_once_and_its_failure_is_infrastructure(fault: Any) -> None:
    with MisbehavingServer(Server(), [fault]) as server:
        (tool,) = VerlTool(server.url, seconds=0.5).tools
        with pytest.raises(EnvironmentFault):
            tool.call({"text": "x"})
        assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"observations": [], "dones": [], "valids": []}, "cannot be read"),
        ({"observations": [3], "dones": [False], "valids": [True]}, "which is no text"),
        ({"observations": [{"obs": "x", "reward": "NaN"}], "dones": [False], "valids": [True]}, "no number"),
    ],
)
def test_what_cannot_be_read_is_infrastructure(told: dict[str, object], words: str) -> None:
    def answer(asked: Asked) -> Told:
        return Told(told)

    with MisbehavingServer(answer) as server:
        (tool,) = VerlTool(server.url).tools
        with pytest.raises(EnvironmentFault, match=words):
            tool.call({"text": "x"})


def test_settings_and_names() -> None:
    (tool,) = load_tool("verltool:http://127.0.0.1:5000", tool="sql", description="Ask the database.")
    assert (tool.name, tool.description) == ("sql", "Ask the database.")
    with pytest.raises(ConfigError, match="no address of a server"):
        load_tool("verltool:localhost")
    with pytest.raises(ConfigError, match=r"has no \{text\}"):
        load_tool("verltool:http://a", template="<python>")
