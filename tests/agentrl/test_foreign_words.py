"""What other programs say, told as sentences of ours: wrong files, names and answers of every door."""

from __future__ import annotations

import contextlib
import math
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from agentrl.errors import ConfigError, PolicyError, RunDirectoryError, TemplateError
from agentrl.interchange.export import export
from agentrl.policy.habits import Jinja, habits_of, prompt_of
from agentrl.policy.load import read_tokenizer
from agentrl.policy.openai.forms import Prices, usage_of
from agentrl.policy.render import Markup
from agentrl.rollout import Stock, collect
from agentrl.run.cli import run
from agentrl.run.outcome import Row
from agentrl.testing import ScriptedPolicy, WordWorld
from tests.agentrl.rollouts import groups, play, valid
from tests.agentrl.templates import CHATML, QWEN3, tokenizer_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from agentrl.run.judge import Verdict
    from agentrl.run.suite import ScenarioSettings
    from agentrl.trajectory import Trajectory


def said(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 2) -> str:
    assert run(list(arguments)) == code
    text = capsys.readouterr().err
    assert "defect" not in text
    assert ".." not in text.replace("...", "")
    return text


@pytest.mark.parametrize("content", ["[]", '"x"', "3", "{", '{"tokenizer_class": 3}'])
def test_a_tokenizer_that_cannot_be_read_is_a_sentence(content: str, tmp_path: Path) -> None:
    tokenizer_of("chatml").save_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(content)
    with contextlib.suppress(PolicyError):  # any other error fails: it would be called a defect
        read_tokenizer(str(tmp_path))
    (tmp_path / "tokenizer.json").write_text('{"model": 3}')
    with pytest.raises(PolicyError, match=r"cannot be read: .*Save it again with save_pretrained"):
        read_tokenizer(str(tmp_path))


def test_a_tokenizer_without_a_template_is_told_what_to_add() -> None:
    made = tokenizer_of("chatml")
    with pytest.raises(
        TemplateError, match=r"add_tokens\(\['<\|act\|>', '<\|end\|>'\], special_tokens=True\)"
    ):
        Markup(made)
    made.add_tokens(["<|act|>", "<|end|>"], special_tokens=True)
    assert len(Markup(made).stop_tokens) == 1


def test_the_names_of_nothing_and_of_what_a_template_refuses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "no model was named" in said(capsys, "check-template", "")
    tokenizer_of("chatml", template="{{ raise_exception('Only tools. ') }}").save_pretrained(tmp_path)
    assert "roles user: Only tools. Mend" in said(capsys, "check-template", str(tmp_path), code=1)
    assert "Did you mean" in said(capsys, "envs", "show", "gym:FrozenLak-v1")
    text = said(capsys, "envs", "show", "agentgym:http://127.0.0.1:9")
    assert "say which was started" in text
    assert "textcraft" in text


def test_what_asks_for_a_turn_is_found_where_a_template_tells_the_time() -> None:
    clock = "{% set ns = namespace(n=0) %}{{ range(1, 99999) | random }}"
    for template in (CHATML, QWEN3):
        made, timed = (Jinja(tokenizer_of("qwen3", template=text)) for text in (template, clock + template))
        assert prompt_of(timed) == prompt_of(made) == "<|im_start|>assistant\n"
        assert habits_of(timed).header == ""


def played() -> list[Trajectory]:
    return valid(collect(Stock(WordWorld), play(ScriptedPolicy(["lamp"] * 5)), groups(2, 1)))


def test_an_export_that_contradicts_itself_is_refused(tmp_path: Path) -> None:
    items = played()
    with pytest.raises(ConfigError, match=r"a\.eval is .* --to inspect writes; --to sft writes \.jsonl"):
        export(items, "sft", tmp_path / "a.eval")
    with pytest.raises(ConfigError, match=r"Rename it to a\.parquet"):
        export(items, "trl", tmp_path / "a.jsonl")
    with pytest.raises(ConfigError, match="not a number"):
        export(items, "sft", tmp_path / "a.jsonl", least_reward=math.nan)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_none_of_ours_names_its_line_or_its_form(tmp_path: Path) -> None:
    items = played()
    lines = tmp_path / "a.jsonl"
    export(items, "jsonl", lines)
    first, second = lines.read_bytes().splitlines()
    lines.write_bytes(first + b"\n" + second[:-3] + b"\n")
    with pytest.raises(RunDirectoryError, match=r"line 2 of .*a\.jsonl is no record"):
        export(lines, "sft", tmp_path / "b.jsonl")
    pytest.importorskip("pyarrow")
    table = tmp_path / "a.parquet"
    export(items, "parquet", table)
    with pytest.raises(RunDirectoryError, match=r"holds no turns of agentrl.*--to parquet-turns"):
        export(table, "sft", tmp_path / "b.jsonl")


def test_what_a_server_does_not_count_is_unknown() -> None:
    prices = Prices(prompt=1.0, completion=2.0)
    assert usage_of({"usage": {"prompt_tokens": 3, "completion_tokens": 0}}, prices) == {
        "server_prompt_tokens": 3.0, "server_completion_tokens": 0.0, "server_cost": 3e-6,
    }  # fmt: skip
    for hidden in ({}, {"usage": None}, {"usage": {"prompt_tokens": None, "completion_tokens": "4"}}):
        assert usage_of(hidden, prices) == {}
    assert usage_of({"usage": {"completion_tokens": 4}}, prices) == {"server_completion_tokens": 4.0}


def test_the_sums_of_a_row_are_unknown_where_a_turn_is() -> None:
    (item, *_) = played()
    counted = {"server_attempts": 1.0, "server_prompt_tokens": 5.0, "server_completion_tokens": 2.0}
    hidden = {"server_attempts": 2.0, "server_completion_tokens": 2.0}

    def usage(*measures: Mapping[str, float]) -> dict[str, float | None]:
        turns = tuple(replace(item.turns[0], measures=one) for one in measures)
        verdict = cast("Verdict", SimpleNamespace(trajectories=[replace(item, turns=turns)]))
        return Row(cast("ScenarioSettings", None), "p", "greedy", verdict, 0.0).usage()

    assert usage(counted, counted) == {"prompt_tokens": 10, "completion_tokens": 4, "cost": 0, "retries": 0}
    assert usage(counted, hidden) == {
        "prompt_tokens": None, "completion_tokens": 4, "cost": None, "retries": 1,
    }  # fmt: skip
    assert usage({}) == {}
