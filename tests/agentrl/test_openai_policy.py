"""The openai policy against a server of ours that speaks the API, honestly and otherwise."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, cast

import numpy as np
import pytest

import agentrl
from agentrl.errors import ConfigError, PolicyError, ServerUnavailable
from agentrl.http import Patience
from agentrl.policy.base import ClosingPolicy, Message, Policy, Request, Sampling
from agentrl.policy.openai import OpenAIPolicy, Prices
from agentrl.policy.openai.talk import chat_messages, with_calls
from agentrl.run.players import player_of
from agentrl.run.suite import EvaluationSuite, ServerSettings
from agentrl.testing import ScriptedPolicy, WordWorld
from agentrl.testing.server import Asked, MisbehavingServer, Told
from agentrl.trajectory import Invalid, InvalidReason, StopReason, Trajectory, TurnKind
from agentrl.world.protocol import NativeCalls
from tests.agentrl.rollouts import small_renderer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from agentrl.testing.server import Fault

QUICK = Patience(total_seconds=20.0, read_seconds=0.5, attempts=4, pause_seconds=0.01, rest_seconds=0.05)
KEY = "sk-a-key-nobody-may-see"


@dataclass
class Speaker:
    """A served model that says the same texts to everybody, turn by turn."""

    texts: Sequence[str] = ("hello",)
    finish: str = "stop"
    vllm: bool = True
    context: int | None = 512
    messages: list[dict[str, object]] = field(default_factory=list)

    def __call__(self, asked: Asked) -> Told:
        if asked.path == "/v1/models":
            entry = {"id": "small", "owned_by": "vllm" if self.vllm else "somebody"}
            return Told({"data": [entry | ({"max_model_len": self.context} if self.context else {})]})
        return {"/v1/chat/completions": self.chat, "/v1/completions": self.complete}[asked.path](asked.json())

    def chat(self, body: dict[str, object]) -> Told:
        history = cast("list[dict[str, object]]", body["messages"])
        turn = sum(message["role"] == "assistant" for message in history)
        message: dict[str, object] = {"role": "assistant", "content": self.texts[turn % len(self.texts)]}
        if self.messages:
            message = self.messages[turn % len(self.messages)]
        usage = {"prompt_tokens": 10 * len(history), "completion_tokens": 3}
        return Told({"choices": [{"message": message, "finish_reason": self.finish}], "usage": usage})

    def complete(self, body: dict[str, object]) -> Told:
        prompt = cast("list[int]", body["prompt"])
        stops = cast("list[int]", body["stop_token_ids"])
        renderer = small_renderer()
        turn = prompt.count(stops[0])
        ids = [*renderer.encode(self.texts[turn % len(self.texts)]).tolist(), stops[0]]
        ids = ids[: cast("int", body["max_tokens"])]
        finish = "stop" if ids[-1] == stops[0] else "length"
        choice = {
            "text": "", "finish_reason": finish, "token_ids": ids,
            "logprobs": {"token_logprobs": [-0.5 - 0.001 * k for k in range(len(ids))]},
        }  # fmt: skip
        return Told(
            {"choices": [choice], "usage": {"prompt_tokens": len(prompt), "completion_tokens": len(ids)}}
        )


def listed(told: Told) -> Callable[[Asked], Told]:
    """A server that lists its model, and answers everything else in one way."""
    return lambda asked: Speaker()(asked) if asked.path == "/v1/models" else told


def policy_of(server: MisbehavingServer, **more: object) -> OpenAIPolicy:
    return OpenAIPolicy([f"{server.url}/v1"], **({"patience": QUICK} | more))  # type: ignore[arg-type]  # keywords of a test


def ask(policy: OpenAIPolicy, **more: object) -> agentrl.Sample:
    request = Request("t", "t", 0, "Hi.", (Message("user", "Hi."),), sampling=Sampling(max_tokens=8))

    async def once() -> agentrl.Sample:
        try:
            return await policy.generate(replace(request, **more))  # type: ignore[arg-type]  # keywords of a test
        finally:
            await policy.aclose()

    return asyncio.run(once())


def play(policy: Policy, **more: object) -> list[Trajectory | Invalid]:
    return agentrl.collect(WordWorld, policy, limits=agentrl.Limits(turns=4, turn_tokens=16), **more)  # type: ignore[arg-type]


def test_it_is_a_policy_that_closes_its_connections() -> None:
    policy = OpenAIPolicy("http://127.0.0.1:1/v1", "m")
    assert isinstance(policy, Policy)
    assert isinstance(policy, ClosingPolicy)
    assert not isinstance(ScriptedPolicy(["x"]), ClosingPolicy)
    assert policy.name == "openai:http://127.0.0.1:1/v1#m"


def test_a_turn_by_text_sends_the_whole_conversation_and_every_field() -> None:
    with MisbehavingServer(Speaker(["take it"])) as server:
        sample = ask(policy_of(server), sampling=Sampling(0.7, 0.9, 5, ("</a>",)), key=(1, 2))
        again = ask(policy_of(server), sampling=Sampling(0.7, 0.9, 5, ("</a>",)), key=(1, 2))
        body, second = server.asked[1].json(), server.asked[3].json()
    assert sample.text == "take it"
    assert sample.tokens is None
    assert sample == again
    assert body == second
    assert body["messages"] == [{"role": "user", "content": "Hi."}]
    assert (body["model"], body["temperature"], body["top_p"], body["max_tokens"]) == ("small", 0.7, 0.9, 5)
    assert (body["stop"], body["include_stop_str_in_output"]) == (["</a>"], True)
    assert (body["top_k"], body["min_p"], body["repetition_penalty"]) == (0, 0.0, 1.0)


def test_a_plain_server_gets_no_fields_of_vllm_and_the_text_keeps_its_closing_tag() -> None:
    with MisbehavingServer(Speaker(["<a>x</a> and more"], vllm=False)) as server:
        sample = ask(policy_of(server), sampling=Sampling(stop_strings=("</a>",)))
        body = server.asked[1].json()
    assert sample.text == "<a>x</a>"
    assert not {"stop", "top_k", "include_stop_str_in_output"} & set(body)


def test_whole_trajectories_by_text() -> None:
    with MisbehavingServer(Speaker(["a", "b"])) as server:
        policy = policy_of(server, prices=Prices(1.0, 10.0))
        results = play(policy, tasks=3, members=2)
    assert len(results) == 6
    for item in results:
        assert isinstance(item, Trajectory)
        assert item.policy == policy.name
        assert all(turn.tokens is None for turn in item.turns)
        first = item.turns[0].measures
        assert first["server_completion_tokens"] == 3
        assert first["server_cost"] == pytest.approx((first["server_prompt_tokens"] + 30) / 1e6)
    with pytest.raises(agentrl.AgentrlError, match="token"):
        agentrl.pack([item for item in results if isinstance(item, Trajectory)])


def test_exact_tokens_are_sent_and_kept() -> None:
    renderer = small_renderer()
    with MisbehavingServer(Speaker(["lamp", "mug"])) as server:
        (item,) = play(policy_of(server, renderer=renderer))
        bodies = [asked.json() for asked in server.asked if asked.path == "/v1/completions"]
    assert isinstance(item, Trajectory)
    seen: list[int] = []
    for turn, body in zip(item.turns, bodies, strict=True):
        assert turn.tokens is not None
        assert turn.logprobs is not None
        seen += turn.prompt_tokens.tolist()
        assert body["prompt"] == seen
        seen += turn.tokens.tolist()
        np.testing.assert_allclose(
            turn.logprobs, [-0.5 - 0.001 * k for k in range(len(turn.tokens))], atol=1e-7
        )
    assert [turn.text for turn in item.turns][:2] == ["lamp", "mug"]
    batch = agentrl.pack([item])
    assert batch.num_sampled == sum(len(turn.tokens) for turn in item.turns if turn.tokens is not None)


def test_the_context_of_the_server_bounds_a_turn_and_ends_a_trajectory() -> None:
    renderer = small_renderer()
    with MisbehavingServer(Speaker(["lamp apple drawer mug shelf"], context=30)) as server:
        (item,) = agentrl.collect(
            WordWorld, policy_of(server, renderer=renderer), limits=agentrl.Limits(turns=50, turn_tokens=6)
        )
        bodies = [asked.json() for asked in server.asked if asked.path == "/v1/completions"]
    assert isinstance(item, Trajectory)
    assert item.stop is StopReason.CONTEXT
    assert all(cast("int", body["max_tokens"]) <= 6 for body in bodies)
    assert (
        item.turns[-1].finish == "context"
        or sum(
            len(turn.prompt_tokens) + len(turn.tokens if turn.tokens is not None else ())
            for turn in item.turns
        )
        == 30
    )


def test_a_refusal_for_want_of_context_ends_the_trajectory_and_nothing_else_does() -> None:
    full = Told({"message": "This model's maximum context length is 40 tokens."}, 400)
    with MisbehavingServer(listed(full)) as server:
        (item,) = play(policy_of(server))
    assert isinstance(item, Trajectory)
    assert item.stop is StopReason.CONTEXT
    with (
        MisbehavingServer(listed(Told({}, 400))) as server,
        pytest.raises(PolicyError, match=r"status 400.*Mend what it names"),
    ):
        play(policy_of(server))


def test_log_probabilities_that_are_not_those_of_the_draw_are_refused() -> None:
    renderer = small_renderer()
    tokens = renderer.begin("", "lamp")
    with MisbehavingServer(Speaker()) as server:
        policy = policy_of(server, renderer=renderer)
        with pytest.raises(PolicyError, match="processed_logprobs"):
            ask(policy, tokens=tokens, sampling=Sampling(temperature=0.5, max_tokens=8))
        greedy = ask(policy, tokens=tokens, sampling=Sampling(temperature=0.0, max_tokens=8))
        assert greedy.logprobs is not None
        assert not greedy.logprobs.any()
        processed = policy_of(server, renderer=renderer, logprobs="processed")
        sample = ask(processed, tokens=tokens, sampling=Sampling(temperature=0.5, max_tokens=8))
        assert sample.logprobs is not None
        assert sample.logprobs[0] == np.float32(-0.5)


def test_a_server_without_token_ids_is_refused_where_tokens_are_wanted() -> None:
    wordy = Told({"choices": [{"text": "hello", "finish_reason": "stop"}]})
    renderer = small_renderer()
    with MisbehavingServer(listed(wordy)) as server, pytest.raises(PolicyError, match=r"no token ids.*vLLM"):
        ask(policy_of(server, renderer=renderer), tokens=renderer.begin("", "lamp"))


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"choices": []},
        {"choices": [{"finish_reason": "content_filter"}]},
        [],
        {"choices": [{"message": {"role": "assistant", "content": 42}}]},
    ],
)
def test_an_answer_that_says_nothing_is_infrastructure(value: object) -> None:
    with (
        MisbehavingServer(listed(Told(value))) as server,
        pytest.raises(ServerUnavailable),
    ):
        ask(policy_of(server))


def test_a_server_that_is_gone_makes_invalid_rollouts_and_no_zeros() -> None:
    with MisbehavingServer(Speaker()) as server:
        policy = policy_of(server, patience=replace(QUICK, attempts=2))
        ask(policy)
    results = play(policy, tasks=3)
    assert [item.reason for item in results if isinstance(item, Invalid)] == [InvalidReason.POLICY_ERROR] * 3
    assert "Check that" in cast("Invalid", results[0]).detail


def test_ten_percent_of_failures_lose_nothing() -> None:
    calm: list[Fault | None] = [None] * 9
    faults: list[Fault | None] = [*calm, "status 500", *calm, "reset", *calm, "garbage"]
    with MisbehavingServer(Speaker(["a", "b", "c"]), faults * 4) as server:
        results = play(policy_of(server), tasks=20)
    with MisbehavingServer(Speaker(["a", "b", "c"])) as honest:
        expected = play(policy_of(honest), tasks=20)
    assert len(results) == 20
    for item, other in zip(results, expected, strict=True):
        assert isinstance(item, Trajectory)
        assert isinstance(other, Trajectory)
        assert [turn.text for turn in item.turns] == [turn.text for turn in other.turns]
        assert item.reward == other.reward


def test_a_wrong_model_key_or_address_names_the_repair(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    named = r"no model 'smal'. Did you mean 'small'\? It serves small"
    with MisbehavingServer(Speaker()) as server, pytest.raises(PolicyError, match=named):
        ask(policy_of(server, model="smal"))
    monkeypatch.setenv("MY_KEY", KEY)
    with MisbehavingServer(lambda asked: Told({"error": f"bad {KEY}"}, 401)) as server:
        with pytest.raises(PolicyError, match="environment variable MY_KEY") as caught:
            ask(policy_of(server, key_variable="MY_KEY"))
        assert server.asked[0].headers["authorization"] == f"Bearer {KEY}"
    assert KEY not in str(caught.value)
    with (
        MisbehavingServer(lambda asked: Told({}, 404)) as server,
        pytest.raises(PolicyError, match="ends where"),
    ):
        ask(policy_of(server))


def test_a_server_that_lists_no_models_is_taken_at_the_users_word() -> None:
    def unlisted(asked: Asked) -> Told:
        return Told({}, 404) if asked.path == "/v1/models" else Speaker(["yes"])(asked)

    with MisbehavingServer(unlisted) as server:
        assert ask(policy_of(server, model="any")).text == "yes"


def test_a_server_with_the_newer_name_of_the_limit_is_asked_by_it() -> None:
    def newer(asked: Asked) -> Told:
        if asked.path == "/v1/chat/completions" and "max_tokens" in asked.json():
            return Told({"error": "Use 'max_completion_tokens' instead."}, 400)
        return Speaker(["yes"])(asked)

    with MisbehavingServer(newer) as server:
        policy = policy_of(server)
        assert [ask(policy).text, ask(policy).text] == ["yes", "yes"]
        assert [asked.path for asked in server.asked].count("/v1/chat/completions") == 3


def test_reasoning_that_a_server_takes_apart_comes_back_between_tags() -> None:
    message: dict[str, object] = {"reasoning_content": "Hm.", "content": "go"}
    with MisbehavingServer(Speaker(messages=[message])) as server:
        assert ask(policy_of(server)).text == "<think>Hm.</think>go"


class Shelves(agentrl.TextEnv):
    """A world of tools."""

    @agentrl.tool
    def look(self, shelf: int) -> str:
        """Look.

        Args:
            shelf: its number.
        """
        return f"Shelf {shelf} is empty."

    @agentrl.tool
    def done(self) -> str:
        """End."""
        self.finish(reward=1.0, success=True)
        return "Done."


def call(name: str, arguments: str) -> dict[str, object]:
    function = {"name": name, "arguments": arguments}
    return {"content": None, "tool_calls": [{"id": "x", "type": "function", "function": function}]}


def test_tool_calls_of_the_servers_own() -> None:
    said = [call("look", '{"shelf": 2}'), call("look", "Infinity"), call("done", "{}")]
    with MisbehavingServer(Speaker(messages=said, finish="tool_calls")) as server:
        (item,) = agentrl.collect(Shelves, policy_of(server), protocol=NativeCalls())
        bodies = [asked.json() for asked in server.asked if asked.path.endswith("chat/completions")]
    assert isinstance(item, Trajectory)
    assert item.success
    assert [turn.kind for turn in item.turns] == [TurnKind.OK, TurnKind.PARSE_ERROR, TurnKind.OK]
    tools = cast("list[dict[str, dict[str, object]]]", bodies[0]["tools"])
    assert [tool["function"]["name"] for tool in tools] == ["look", "done"]
    first, second = cast("list[dict[str, object]]", bodies[1]["messages"])[-2:]
    assert first["tool_calls"] == [
        {"id": "call_1_0", "type": "function", "function": {"name": "look", "arguments": '{"shelf": 2}'}}
    ]
    assert second == {"role": "tool", "tool_call_id": "call_1_0", "content": "Shelf 2 is empty."}
    third = cast("list[dict[str, object]]", bodies[2]["messages"])
    assert third[-1]["role"] == "user"


def test_parallel_calls_are_answered_one_by_one() -> None:
    written = with_calls(
        "I look.", {"tool_calls": [*_calls("look", '{"shelf": 1}'), *_calls("look", '{"shelf": 2}')]}
    )
    results = "<tool_response>\none\n</tool_response>\n<tool_response>\ntwo\n</tool_response>"
    sent = chat_messages(
        [Message("user", "Hi."), Message("assistant", written), Message("user", results)], native=True
    )
    assert sent[1]["content"] == "I look."
    assert [message["content"] for message in sent[2:]] == ["one", "two"]
    assert [message["tool_call_id"] for message in sent[2:]] == ["call_1_0", "call_1_1"]


def _calls(name: str, arguments: str) -> list[object]:
    return cast("list[object]", call(name, arguments)["tool_calls"])


def test_an_evaluation_by_name_counts_tokens_and_keeps_the_key_out_of_every_file(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pathlib import Path

    folder = Path(str(tmp_path)) / "judged"
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with MisbehavingServer(Speaker(["look", "inventory"])) as server:
        suite = EvaluationSuite.model_validate(
            {
                "environment": {"id": "agentrl/Household-v0", "kwargs": {"settings": "two_rooms"}},
                "scenario": [{"split": "valid_seen", "tasks": 4}],
                "limits": {"turns": 3},
                "server": {"price_prompt": 1.0, "attempts": 2},
            }
        )
        evaluation = agentrl.evaluate(suite, f"openai:{server.url}/v1#small", out=folder)
    row = evaluation.row(f"openai:{server.url}/v1#small")
    usage = cast("dict[str, float]", row.content()["usage"])
    assert usage["completion_tokens"] == 4 * 3 * 3
    assert usage["cost"] == pytest.approx(usage["prompt_tokens"] / 1e6)
    assert json.loads((folder / "eval.json").read_text())["rows"][0]["usage"] == usage
    for file in folder.rglob("*"):
        assert not file.is_file() or KEY.encode() not in file.read_bytes()


def test_names_of_players_are_read() -> None:
    player = player_of("openai:http://a:1/v1,http://b:2/v1#big", ServerSettings(concurrency=7))
    policy = cast("OpenAIPolicy", player.policy)
    assert (list(policy.urls), policy.model, policy.concurrency) == (
        ["http://a:1/v1", "http://b:2/v1"],
        "big",
        7,
    )
    with pytest.raises(ConfigError, match="no server was named"):
        player_of("openai:#big")
    with pytest.raises(PolicyError, match="no tokenizer could be loaded"):
        player_of("openai:http://a:1/v1", ServerSettings(tokenizer="./nowhere"))
