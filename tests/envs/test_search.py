"""The search world: its facts, its players, its grading, and the files that people bring."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from agentrl.errors import ConfigError
from agentrl.policy.scripted import ScriptedPolicy
from agentrl.rollout import Limits
from agentrl.rollout.easy import collect
from agentrl.testing import check_env
from agentrl.trajectory import Trajectory, TurnKind
from agentrl.world import Fenced, JsonCalls, Protocol, Tags
from agentrl_envs.search import SearchQAEnv, SearchSettings
from agentrl_envs.search.files import read_questions
from agentrl_envs.search.language import RELATIONS, read_question, read_value
from agentrl_envs.search.settings import PRESETS, settings_of
from agentrl_envs.search.world import make_world, question_of
from agentrl_tools.search import Bm25, Corpus, Document, serve

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from agentrl.trajectory import Invalid

SMALL = PRESETS["small"]
LIMITS = Limits(turns=16)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Indices of a test go away with it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def rate(results: list[Trajectory | Invalid]) -> float:
    assert all(isinstance(item, Trajectory) for item in results), results
    return sum(bool(item.success) for item in results if isinstance(item, Trajectory)) / len(results)


# -- the generated world -----------------------------------------------------------------------------------


def test_a_world_is_a_function_of_its_address() -> None:
    first, again = make_world(SMALL, "train", 3), make_world(SMALL, "train", 3)
    assert list(first.documents()) == list(again.documents())
    others = [make_world(SMALL, "train", 4), make_world(SMALL, "valid", 3), make_world(SMALL, "test", 3)]
    assert all(list(other.documents()) != list(first.documents()) for other in others)


@pytest.mark.parametrize("documents", [20, 100, 3000])
def test_documents_say_every_fact_and_names_are_unique(documents: int) -> None:
    world = make_world(SearchSettings(documents=documents), "train", 0)
    assert len({world.name(entity) for entity in range(documents)}) == len(world) == documents
    for entity in range(0, documents, max(documents // 100, 1)):
        document = world.document(entity)
        for number, relation in enumerate(RELATIONS):
            if relation.source == world.kind(entity):
                said = read_value(relation.noun, document.title, document.text)
                assert said == world.name(world.value(entity, number))


def test_many_names_share_a_word() -> None:
    world = make_world(SMALL, "train", 0)
    first_words = [world.name(entity).split()[0] for entity in range(40)]
    assert len(set(first_words)) <= 20


@pytest.mark.parametrize("hops", [1, 2, 3, 4])
def test_a_question_follows_so_many_relations_and_never_holds_its_answer(hops: int) -> None:
    settings = SearchSettings(hops=(hops,))
    for index in range(50):
        question = question_of(settings, "valid", index)
        world = make_world(settings, "valid", index // settings.tasks_per_world)
        by_name = {world.name(entity): entity for entity in range(len(world))}
        name, nouns = read_question(question.text)
        assert len(nouns) == hops == len(question.supporting)
        for noun in nouns:
            document = world.document(by_name[name])
            name = str(read_value(noun, document.title, document.text))
        assert (name,) == question.answers
        assert name not in question.text


def test_nothing_is_solved_without_searching() -> None:
    """The commonest answer is rare, and no world is shown twice, so guesses from memory earn little."""
    answers = [question_of(SMALL, "train", index).answers[0] for index in range(0, 64 * 300, 64)]
    assert max(answers.count(answer) for answer in set(answers)) / len(answers) < 0.05
    guess = ScriptedPolicy([f"<answer>{max(set(answers), key=answers.count)}</answer>"])
    assert rate(collect(SearchQAEnv, guess, split="valid", tasks=range(0, 1000, 10))) <= 0.05


def test_the_expert_solves_every_task_without_the_gold_answer() -> None:
    class Secretive(SearchQAEnv):
        def gold(self) -> str:
            return "a lie"  # the rollout asks, for probes; a player that asked would be misled

    assert rate(collect(lambda: Secretive("small"), "expert", split="test", tasks=300, limits=LIMITS)) == 1.0
    assert (
        rate(collect(lambda: Secretive("tiny", k=1), "expert", split="valid", tasks=300, limits=LIMITS))
        == 1.0
    )


def test_random_play_finds_next_to_nothing() -> None:
    assert rate(collect(SearchQAEnv, "random", split="test", tasks=300, limits=LIMITS)) < 0.04


@pytest.mark.parametrize("protocol", [Tags(), Fenced(), JsonCalls()])
def test_every_protocol_plays(protocol: Protocol) -> None:
    results = collect(SearchQAEnv, "expert", tasks=10, limits=LIMITS, protocol=protocol)
    assert rate(results) == 1.0
    assert all(
        turn.kind is TurnKind.OK for item in results if isinstance(item, Trajectory) for turn in item.turns
    )
    random = collect(SearchQAEnv, "random", tasks=10, limits=LIMITS, protocol=protocol)
    assert all(
        turn.kind is TurnKind.OK for item in random if isinstance(item, Trajectory) for turn in item.turns
    )


def test_the_contract_is_kept() -> None:
    check_env("agentrl/SearchQA-v0").raise_if_failed()
    report = check_env(
        lambda: SearchQAEnv("tiny"),
        actions=[
            "<search>Old Baport</search>",
            "<search> </search>",
            "<serch>x</serch>",
            "<answer>x</answer>",
        ],
    )
    assert not [finding for finding in report.findings if finding.severity == "error"], report


def test_keys_say_what_was_seen_and_what_is_still_missing() -> None:
    env = SearchQAEnv(SearchSettings(hops=(2,)))
    first, _ = env.reset(seed=0, options={"split": "train", "index": 0})
    assert env.observation_key() == first
    begin = env.state_key()
    name, _ = read_question(first)
    found, *_ = env.step(f"<search>{name}</search>")
    assert env.observation_key() == found
    assert env.state_key() != begin
    env.step("<search></search>")
    assert env.observation_key() == found  # a refusal makes no key
    state = env.snapshot()
    before = env.state_key()
    assert env.step(f"<answer>{env.gold()}</answer>")[1:4] == (1.0, True, False)
    env.restore(state)
    assert env.state_key() == before
    reply, reward, over, _, info = env.step("<answer>nobody</answer>")
    assert (reply, reward, over, info["success"]) == ("", 0.0, True, False)


def test_only_the_answer_itself_is_graded() -> None:
    env = SearchQAEnv()
    env.reset(seed=0, options={"split": "train", "index": 0})
    gold = env.gold()
    assert gold is not None
    for text, right in (
        (f"<answer>The {gold.upper()}.</answer>", True),
        (f"<think>{gold}</think><answer>x</answer>", False),
        (f"<answer>{gold} or Old Baport</answer>", False),
        ("<answer></answer>", False),
        (f"<answer>x</answer><answer>{gold}</answer>", None),
    ):
        env.reset(seed=0, options={"split": "train", "index": 0})
        _, reward, over, _, info = env.step(text)
        assert (info.get("success"), reward, over) == (right, float(right or 0), right is not None)
    partial = SearchQAEnv(reward="f1")
    partial.reset(seed=0, options={"split": "train", "index": 0})
    reward = partial.step(f"<answer>{gold} Jones</answer>")[1]
    assert reward == pytest.approx(2 * 2 / (3 + 2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"settings": "smal"}, "Did you mean 'small'"),
        ({"settings": {"preset": "tiny", "docs": 3}}, "no field 'docs'"),
        ({"settings": {"documents": 3}}, "20 to 2,000,000"),
        ({"settings": {"hops": [5]}}, "from 1 to 4"),
        ({"settings": {"hops": ["x"]}}, "whole numbers"),
        ({"reward": "em"}, "rewards are exact"),
        ({"k": 0}, "at least 1"),
        ({"corpus": "x.jsonl"}, "needs questions"),
        ({"questions": {}}, "a file for each split"),
        ({"questions": "dev.json"}, "a file for each split, such as .* got 'dev.json'"),
        (
            {"settings": {"documents": "many"}},
            "documents of the search settings is a whole number; got 'many'",
        ),
        ({"settings": 3}, "the name of a preset or a table; got 3"),
    ],
)
def test_wrong_settings_are_sentences(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SearchQAEnv(**arguments)


def test_settings_come_from_tables() -> None:
    assert settings_of({"preset": "tiny", "hops": 2, "documents": 60}).hops == (2,)
    assert settings_of({}) == SMALL


# -- files -------------------------------------------------------------------------------------------------

TEA = ("Tea", ["Tea is a drink.", " It comes from Assam."])
ASSAM = ("Assam", ["Assam is a state of India."])
HOTPOT = {
    "_id": "5a7",
    "question": "In which country is the state that tea comes from?",
    "answer": "India",
    "type": "bridge",
    "level": "hard",
    "supporting_facts": [["Tea", 1], ["Assam", 0]],
    "context": [list(TEA), list(ASSAM)],
}
HUB = {
    **HOTPOT,
    "supporting_facts": {"title": ["Tea", "Assam"], "sent_id": [1, 0]},
    "context": {"title": [TEA[0], ASSAM[0]], "sentences": [TEA[1], ASSAM[1]]},
}
OBJECTS = {  # as newer versions of `datasets` write sequences of structures
    **HOTPOT,
    "supporting_facts": [{"title": "Tea", "sent_id": 1}, {"title": "Assam", "sent_id": 0}],
    "context": [{"title": title, "sentences": sentences} for title, sentences in (TEA, ASSAM)],
}
TWO_WIKI = {  # the Hub's Parquet: a list of a title and a number is no Arrow type, so these are texts
    "_id": "8813f87c",
    "type": "compositional",
    "question": HOTPOT["question"],
    "context": json.dumps(HOTPOT["context"]),
    "supporting_facts": json.dumps(HOTPOT["supporting_facts"]),
    "evidences": json.dumps([["Tea", "place of origin", "Assam"], ["Assam", "country", "India"]]),
    "answer": "India",
}
MUSIQUE = {
    "id": "2hop__1_2",
    "question": HOTPOT["question"],
    "answer": "India",
    "answer_aliases": ["Republic of India"],
    "answerable": True,
    "question_decomposition": [
        {"id": 1, "question": "tea >> origin", "answer": "Assam", "paragraph_support_idx": 0},
        {"id": 2, "question": "#1 >> country", "answer": "India", "paragraph_support_idx": 1},
    ],
    "paragraphs": [
        {"idx": 0, "title": "Tea", "paragraph_text": "".join(TEA[1]), "is_supporting": True},
        {"idx": 1, "title": "Assam", "paragraph_text": ASSAM[1][0], "is_supporting": True},
    ],
}
SEARCH_R1 = {  # rows as verl's trainer reads them
    "id": "train_0",
    "question": "where does tea come from",
    "golden_answers": ["Assam", "India"],
    "data_source": "nq",
    "prompt": [{"role": "user", "content": "Answer the given question. where does tea come from?"}],
    "ability": "fact-reasoning",
    "reward_model": {"ground_truth": {"target": ["Assam", "India"]}, "style": "rule"},
    "extra_info": {"index": 0, "split": "train"},
    "metadata": None,
}
NATURAL = {"id": "nq_1", "question": "where does tea come from", "golden_answers": ["Assam", "India"]}


def jsonl(path: Path, *rows: dict[str, Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def as_list(path: Path, *rows: dict[str, Any]) -> str:
    path.write_text(json.dumps(rows), encoding="utf-8")
    return str(path)


def parquet(path: Path, *rows: dict[str, Any]) -> str:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(list(rows)), path)
    return str(path)


@pytest.mark.parametrize(
    ("write", "name", "row", "kind"),
    [
        (as_list, "hotpot_dev.json", HOTPOT, "bridge"),
        (jsonl, "2wiki.jsonl", {**HOTPOT, "type": "compositional"}, "compositional"),
        (parquet, "hotpot.parquet", HUB, "bridge"),
        (parquet, "objects.parquet", OBJECTS, "bridge"),
        (parquet, "2wiki.parquet", TWO_WIKI, "compositional"),
        (jsonl, "musique.jsonl", MUSIQUE, "2hop"),
    ],
)
def test_multi_hop_files_with_their_paragraphs(
    tmp_path: Path, write: Callable[..., str], name: str, row: dict[str, Any], kind: str
) -> None:
    path = write(tmp_path / name, row, {**row, "answerable": False} if "answerable" in row else row)
    env = SearchQAEnv(questions={"dev": path})
    assert env.list_splits() == ("dev",)
    assert env.num_tasks("dev") == (1 if "answerable" in row else 2)
    observation, _ = env.reset(seed=0, options={"split": "dev", "index": 0})
    assert observation == "Question: In which country is the state that tea comes from?"
    assert (env.task.type, env.gold()) == (kind, "India")
    found, *_ = env.step("<search>tea drink</search>")
    assert found == 'Doc 1(Title: "Tea") Tea is a drink. It comes from Assam.'
    env.step("<search>assam</search>")
    assert env.state_key() == ("dev/0", (True, True), True)
    assert env.step("<answer>india</answer>")[1] == 1.0
    assert env.admissible() is None
    assert env.expert(observation) is None


def test_natural_questions_over_a_corpus_and_over_a_server(tmp_path: Path) -> None:
    questions = {
        "test": jsonl(
            tmp_path / "nq.jsonl", NATURAL, {"question": "q?", "answer": {"value": "x", "aliases": ["y"]}}
        )
    }
    corpus = jsonl(tmp_path / "corpus.jsonl", {"id": "0", "contents": '"Tea"\nTea comes from Assam.'})
    documents = Corpus.of([Document("0", "Tea", "Tea comes from Assam.")])
    with serve(Bm25(documents, cache=None)) as url:
        for where, blocks in ((corpus, False), (url, True)):
            env = SearchQAEnv(questions=questions, corpus=where)
            assert env.blocks is blocks
            policy = ScriptedPolicy(["<search>tea</search>", "<answer>Assam</answer>"])
            (item,) = collect(lambda where=where: SearchQAEnv(questions=questions, corpus=where), policy)  # type: ignore[misc]  # a default binds
            assert isinstance(item, Trajectory)
            assert item.success
            assert "Tea comes from Assam." in item.turns[1].observation
    env.reset(seed=0, options={"split": "test", "index": 1})
    assert env.step("<answer>y</answer>")[1] == 1.0


@pytest.mark.parametrize("without", [(), ("golden_answers",), ("golden_answers", "question")])
def test_rows_for_verl_are_read(tmp_path: Path, without: tuple[str, ...]) -> None:
    row = {name: value for name, value in SEARCH_R1.items() if name not in without}
    (question,) = read_questions(parquet(tmp_path / "train.parquet", row))
    assert question.answers == ("Assam", "India")
    assert question.text.endswith("where does tea come from?" if "question" in without else "tea come from")


def test_the_way_to_an_answer_of_gsm8k_is_no_answer(tmp_path: Path) -> None:
    from agentrl_envs.search.files import read_questions

    row = {"question": "2 + 2?", "answer": "2 and 2 make <<2+2=4>>4.\n#### 4"}
    (question,) = read_questions(jsonl(tmp_path / "gsm8k.jsonl", row))
    assert question.answers == ("4",)


def test_files_that_cannot_be_asked_are_sentences(tmp_path: Path) -> None:
    for row, message in (
        ({"question": "q?"}, "line 1 of .* has no answer: it has question"),
        ({"answer": "a"}, "line 1 of .* has no question"),
        ({"question": "q?", "answer": float("nan")}, "line 1 of .* has no answer"),
    ):
        with pytest.raises(ConfigError, match=message):
            SearchQAEnv(questions={"dev": jsonl(tmp_path / "bad.jsonl", {**row, "id": message})}).num_tasks(
                "dev"
            )
        (tmp_path / "bad.jsonl").unlink()
        from agentrl_envs.search.source import _questions

        _questions.cache_clear()
    with pytest.raises(ConfigError, match="holds no questions"):
        SearchQAEnv(questions={"dev": jsonl(tmp_path / "none.jsonl")}).num_tasks("dev")
    with pytest.raises(ConfigError, match="nothing to search"):
        SearchQAEnv(questions={"dev": jsonl(tmp_path / "nq.jsonl", NATURAL)}).reset(seed=0)
    with pytest.raises(ConfigError, match="there is no file"):
        SearchQAEnv(questions={"dev": str(tmp_path / "missing.json")}).num_tasks("dev")
