"""Tools: what can be described, what is refused, what is executed, and how often."""

from __future__ import annotations

import copy
import enum
import threading
import time
from typing import TYPE_CHECKING, Annotated, Literal, Optional

import pytest
from transformers.utils.chat_template_utils import get_json_schema

from agentrl.errors import (
    EnvironmentFault,
    EnvironmentUsageError,
    ToolArgumentError,
    ToolDefinitionError,
)
from agentrl.trajectory import TurnKind
from agentrl.world import Call, CallLedger, Parsed, Toolbox, ToolResult, tool, tools_of

if TYPE_CHECKING:
    from collections.abc import Callable


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@tool
def search(query: str, top_k: int = 3) -> str:
    """Search the library.

    It knows books only.

    Args:
        query: what to look for,
            in any language
        top_k: how many books
    """
    if query == "crash":
        raise KeyError(query)
    if query == "bug":
        raise AttributeError("no such attribute")
    if query == "down":
        raise EnvironmentFault("the library burns")
    return f"{top_k} books about {query}"


@tool
def paint(  # one parameter for each kind of type
    colour: Colour,
    mood: Literal["calm", "wild"],
    sizes: list[int],
    layers: dict[str, float],
    title: Optional[str] = None,  # noqa: UP045  # the form of Optional is what is tested
    price: int | str = 1,
    *,
    framed: bool = False,
) -> str:
    """Paint a picture.

    Args:
        colour: the main colour
        mood: the mood
        sizes: width and height
        layers: thickness by name
        title: written below
        price: a number or words
        framed: with a frame
    """
    return f"{colour.name} {mood} {sizes} {layers} {title} {price} {framed}"


def run(*calls: Call, answer: str | None = None, box: Toolbox | None = None) -> str:
    return (box or Toolbox([search])).run(Parsed("", calls, answer)).text


@pytest.mark.parametrize("function", [search, paint])
def test_schema_is_what_transformers_writes(function: Callable[..., str]) -> None:
    expected = get_json_schema(function)
    expected["function"].pop("return", None)  # a return type is no part of the OpenAI form
    assert tools_of(function)[0].schema == expected


def test_a_tool_stays_callable() -> None:
    assert search("tea", top_k=1) == "1 books about tea"


def test_annotated_text_describes_an_argument() -> None:
    @tool
    def dig(depth: Annotated[int, "metres"]) -> str:
        """Dig a hole."""
        return str(depth)

    assert tools_of(dig)[0].signature.properties["depth"] == {"type": "integer", "description": "metres"}


def test_missing_type_is_named() -> None:
    with pytest.raises(
        ToolDefinitionError, match=r"'depth' of the tool 'dig' has no type. Write, for example, depth: str"
    ):

        @tool
        def dig(depth) -> str:  # type: ignore[no-untyped-def]  # noqa: ANN001  # what is tested
            """Dig.

            Args:
                depth: how deep
            """
            return str(depth)


def test_missing_docstring_is_named() -> None:
    with pytest.raises(
        ToolDefinitionError, match=r'has no docstring.*"""Say in one sentence what dig does\."""'
    ):

        @tool
        def dig(depth: int) -> str:
            return str(depth)


def test_missing_argument_description_shows_the_line_to_add() -> None:
    with pytest.raises(
        ToolDefinitionError, match=r"Add to its docstring:\n    Args:\n        depth: what it is"
    ):

        @tool
        def dig(depth: int) -> str:
            """Dig a hole."""
            return str(depth)


def test_description_of_no_parameter_is_refused() -> None:
    with pytest.raises(
        ToolDefinitionError, match=r"describes 'deph', which is no parameter. Did you mean 'depth'\?"
    ):

        @tool
        def dig(depth: int) -> str:
            """Dig.

            Args:
                deph: how deep
            """
            return str(depth)


def test_async_and_variadic_tools_are_refused() -> None:
    with pytest.raises(ToolDefinitionError, match=r"is async, which tools cannot be yet"):

        @tool
        async def wait() -> str:
            """Wait."""
            return ""

    with pytest.raises(ToolDefinitionError, match=r"the parameter '\*words' of the tool 'say'"):

        @tool
        def say(*words: str) -> str:
            """Say words."""
            return " ".join(words)


def test_type_without_json_form_is_refused() -> None:
    with pytest.raises(ToolDefinitionError, match=r"'lock'.*without a JSON form"):

        @tool
        def hold(lock: threading.Event) -> str:
            """Hold.

            Args:
                lock: what to hold
            """
            return str(lock)


def test_arguments_are_coerced() -> None:
    (painting,) = tools_of(paint)
    result = painting.call(
        {"colour": "red", "mood": "calm", "sizes": ["1", 2], "layers": {"a": "0.5"}, "framed": "yes"}
    )
    assert result.text == "RED calm [1, 2] {'a': 0.5} None 1 True"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"query": "tea", "topk": 1},
            r"no argument 'topk'\. Did you mean 'top_k'\? Its arguments are query, top_k\.",
        ),
        ({"top_k": 1}, r"needs the argument 'query' \(what to look for, in any language\)"),
        ({"query": "tea", "top_k": "many"}, r"argument 'top_k' of search is wrong.*got 'many'"),
        ({"query": 5}, r"argument 'query' of search is wrong"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, str | int], message: str) -> None:
    (searching,) = tools_of(search)
    with pytest.raises(ToolArgumentError, match=message):
        searching.call(dict(arguments))
    reply = Toolbox([search]).run(Parsed("", (Call("search", "", dict(arguments)),)))
    assert (reply.kind, reply.valid) == (TurnKind.TOOL_ERROR, False)


def test_non_finite_numbers_are_refused() -> None:
    (painting,) = tools_of(paint)
    with pytest.raises(ToolArgumentError, match="'layers'"):
        painting.call({"colour": "red", "mood": "calm", "sizes": [], "layers": {"a": "nan"}})


def test_bare_text_is_the_only_required_argument() -> None:
    assert run(Call("search", " tea ")) == "3 books about tea"


def test_several_arguments_are_read_as_json() -> None:
    assert "no JSON" in run(Call("paint", "red"), box=Toolbox([paint]))
    text = '{"colour": "blue", "mood": "wild", "sizes": [1], "layers": {}}'
    assert run(Call("paint", text), box=Toolbox([paint])).startswith("BLUE wild [1]")


def test_unknown_tool_names_the_nearest() -> None:
    reply = Toolbox([search]).run(Parsed("", (Call("serch", "tea"),)))
    assert reply.text == "There is no tool 'serch'. Did you mean 'search'? The tools are: search."
    assert (reply.kind, reply.valid) == (TurnKind.TOOL_ERROR, False)


def test_parse_error_and_silence_are_parse_errors() -> None:
    box = Toolbox([search])
    assert box.run(Parsed("x", error="Broken.")).text == "Broken."
    assert box.run(Parsed("x", error="Broken.")).kind is TurnKind.PARSE_ERROR
    assert box.run(Parsed("x")).kind is TurnKind.PARSE_ERROR
    assert box.run(Parsed("x", answer="42")).kind is TurnKind.PARSE_ERROR


def test_ordinary_errors_are_replies_and_broken_tools_raise() -> None:
    reply = Toolbox([search]).run(Parsed("", (Call("search", "crash"),)))
    assert (reply.text, reply.kind) == ("search failed: unknown key 'crash'", TurnKind.TOOL_ERROR)
    with pytest.raises(AttributeError):
        run(Call("search", "bug"))
    with pytest.raises(EnvironmentFault, match="burns"):
        run(Call("search", "down"))


def test_declared_errors_are_replies() -> None:
    @tool(errors=(FileNotFoundError,))
    def cat(path: str) -> str:
        """Show a file.

        Args:
            path: where it is
        """
        raise FileNotFoundError(path)

    assert run(Call("cat", "/x"), box=Toolbox([cat])) == "cat failed: /x"


def test_timeout_is_a_fault_and_faster_calls_pass() -> None:
    @tool(timeout=0.05)
    def nap(seconds: float) -> str:
        """Sleep.

        Args:
            seconds: how long
        """
        time.sleep(seconds)
        return "rested"

    assert run(Call("nap", "0"), box=Toolbox([nap])) == "rested"
    with pytest.raises(EnvironmentFault, match=r"'nap' did not answer within 0\.05 s"):
        run(Call("nap", "0.5"), box=Toolbox([nap]))


def test_long_results_are_cut() -> None:
    @tool(max_characters=4)
    def shout(word: str) -> str:
        """Shout.

        Args:
            word: what
        """
        return word * 3

    assert run(Call("shout", "abc"), box=Toolbox([shout])) == "abca\n[5 more characters were cut]"


class Counter:
    """Counts; `helper` is public and no tool."""

    def __init__(self) -> None:
        self.count = 0

    @tool
    def add(self, number: int) -> ToolResult:
        """Add to the counter.

        Args:
            number: how much
        """
        self.count += number
        return ToolResult(str(self.count), reward=0.5, done=self.count >= 10, metrics={"adds": 1.0})

    @tool(name="answer")
    def finish(self, text: str) -> str:
        """Answer.

        Args:
            text: the answer
        """
        return f"answered {text}"

    def helper(self) -> None:
        raise AssertionError


class Quiet(Counter):
    def finish(self, text: str) -> str:
        return text


def test_only_marked_methods_are_tools() -> None:
    assert [each.name for each in tools_of(Counter())] == ["add", "answer"]
    assert [each.name for each in tools_of(Quiet())] == ["add"]
    assert tools_of(object()) == ()


def test_several_calls_add_up_and_stop_at_the_end() -> None:
    counter = Counter()
    calls = tuple(Call("add", str(number)) for number in (4, 6, 100))
    reply = Toolbox([counter]).run(Parsed("", calls))
    assert (reply.reward, reply.done, reply.metrics) == (1.0, True, {"adds": 2.0})
    assert reply.text == "[1] add: 4\n[2] add: 10"
    assert [call.result for call in reply.calls] == ["4", "10"]
    assert counter.count == 10


def test_calls_that_would_begin_too_late_are_refused() -> None:
    counter = Counter()
    calls = tuple(Call("add", str(number)) for number in (4, 6, 10))
    reply = Toolbox([counter]).run(Parsed("", calls), seconds=0.0)
    assert (counter.count, reply.reward, reply.kind) == (4, 0.5, TurnKind.TOOL_ERROR)
    assert reply.calls[2].error == (
        "add was not called: the calls before it took 0 s. Call it in another turn."
    )


def test_answer_is_dispatched_to_its_tool() -> None:
    assert run(answer="42", box=Toolbox([Counter()])) == "answered 42"


def test_toolbox_refuses_two_of_a_name_and_things_without_tools() -> None:
    with pytest.raises(ToolDefinitionError, match="two tools are named 'search'"):
        Toolbox([search, search])
    with pytest.raises(ToolDefinitionError, match="has no tools"):
        Toolbox([len])


def test_a_call_is_executed_once_for_each_key() -> None:
    counter = Counter()
    box = Toolbox([counter])
    parsed = Parsed("", (Call("add", "1"), Call("add", "1")))
    first = box.run(parsed, key=("t", 0))
    again = box.run(parsed, key=("t", 0))
    assert (first.text, again.text, counter.count) == ("[1] add: 1\n[2] add: 2",) * 2 + (2,)
    box.run(parsed, key=("t", 1))
    assert counter.count == 4
    box.forget("t")
    box.run(parsed, key=("t", 0))
    assert counter.count == 6


def test_a_key_cannot_stand_for_two_calls() -> None:
    box = Toolbox([Counter()])
    box.run(Parsed("", (Call("add", "1"),)), key=("t", 0))
    with pytest.raises(EnvironmentUsageError, match="was used for"):
        box.run(Parsed("", (Call("add", "2"),)), key=("t", 0))


def test_a_failed_call_is_not_executed_again() -> None:
    ledger, executed = CallLedger[int](), []

    def fail() -> int:
        executed.append(1)
        raise EnvironmentFault("down")

    for _ in range(2):
        with pytest.raises(EnvironmentFault, match="down"):
            ledger.once(("t", 0, 0), "call", fail)
    assert executed == [1]


def test_concurrent_retries_execute_once() -> None:
    ledger, executed, gate = CallLedger[int](), list[int](), threading.Event()

    def slow() -> int:
        gate.wait(5)
        executed.append(1)
        return 7

    results: list[int] = []
    threads = [
        threading.Thread(target=lambda: results.append(ledger.once(("t", 0, 0), "call", slow)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    gate.set()
    for thread in threads:
        thread.join(5)
    assert (results, executed) == ([7] * 4, [1])


def test_ledger_forgets_the_oldest_and_copies_empty() -> None:
    ledger = CallLedger[int](capacity=2)
    for turn in range(3):
        ledger.once(("t", turn, 0), "call", lambda: 1)
    assert len(ledger) == 2
    assert len(copy.deepcopy(ledger)) == 0


@pytest.mark.parametrize("reward", [float("nan"), float("inf")])
def test_a_reward_is_finite(reward: float) -> None:
    with pytest.raises(EnvironmentFault, match="finite"):
        ToolResult("x", reward=reward)
