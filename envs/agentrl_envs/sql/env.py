"""The SQL world: a question, a database to explore, and one query as the answer."""

from __future__ import annotations

import math
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING

from agentrl.errors import ConfigError, EnvironmentFault, did_you_mean
from agentrl.sandbox.graders.queries import RULES, QueryGrader, suspicious
from agentrl.sandbox.result import Verdict
from agentrl.world.env import Task, TextEnv
from agentrl.world.tool import tool
from agentrl_envs.sql.domains import DOMAINS, HELD_OUT, TRAINED
from agentrl_envs.sql.expert import SqlExpert
from agentrl_envs.sql.files import Item, read_items
from agentrl_envs.sql.generate import MOST_ROWS, QUESTIONS, Recipe
from agentrl_envs.sql.naming import CASES, STYLES
from agentrl_envs.sql.questions import KIND_NAMES
from agentrl_envs.sql.store import OPENER, Opened, default_folder, generated
from agentrl_tools.records import by_split
from agentrl_tools.sql.tool import checked

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agentrl.sandbox.sql import QueryResult
    from agentrl.world.env import Expert
    from agentrl_tools.sql import Sql

SPLITS = ("train", "valid_seen", "valid_unseen")
ENGINES = ("sqlite", "postgresql")
_SPELLINGS = {"sqlite": STYLES, "postgresql": ("snake", "plural")}
"""PostgreSQL folds names that are not quoted: those of mixed case would only test quoting."""
_EXPLORE = "Explore the {dialect} database, then answer with one SQL query whose result answers the question."
_MAX_ITEMS = 256
_MAX_DRAWS = 64
"""Databases that are drawn in search of one that some question of the chosen kinds fits."""


class SqlEnv(TextEnv):
    """Questions about databases. The agent reads the schema, tries queries, and answers with one query.

    An answer that the engine refuses comes back as an error and may be mended; one that runs ends the
    episode. It is right if its result is that of the gold query, by `rule`.

    Args:
        rows: of a generated database, 10 to a million.
        databases: generated for train; each has up to eight questions. The valid splits have an eighth of
            that.
        domains: of generated databases for train and valid_seen, and kinds of their questions; all if empty.
            valid_unseen has domains of its own.
        spellings: of identifiers, among "snake", "plural" and "camel"; all if empty.
        cases: of values, among "lower", "upper" and "title"; all if empty. Questions are in lower case.
        engine: "sqlite", or "postgresql" for generated databases.
        server: URL of the owner of a PostgreSQL server; empty starts a private one.
        files: split to a JSON or JSONL file of questions, in place of generated ones; see `files`.
        file_databases: folder or file of their databases; found beside the questions if empty.
        rule: "strict", "spider" or "bird".
        shown_rows: of one result.
        seconds: of CPU for one query, which may take four times as long on a busy machine; at most an eighth
            of what the rollout gives a step.
        folder: where generated databases are kept; a cache folder of the user's by default.
        instructions: whether the agent is told about its task and tools, and not only the question; a model
            trained on this world needs no words.
        second_answers: whether an answer that the engine refuses may be mended; otherwise it is a wrong one.

    Raises:
        ConfigError: a setting is wrong; the message says which.
    """

    blocks: bool = True  # every query waits for another process

    def __init__(  # noqa: PLR0913  # the settings of a world
        self,
        *,
        rows: int = 300,
        databases: int = 512,
        domains: Sequence[str] = (),
        kinds: Sequence[str] = (),
        spellings: Sequence[str] = (),
        cases: Sequence[str] = (),
        engine: str = "sqlite",
        server: str = "",
        files: Mapping[str, str] | None = None,
        file_databases: str = "",
        rule: str = "strict",
        shown_rows: int = 20,
        seconds: float = 5.0,
        folder: str = "",
        instructions: bool = True,
        second_answers: bool = True,
        render_mode: str | None = None,
    ) -> None:
        super().__init__(render_mode=render_mode)
        _check(rows, databases, engine, files, rule)
        _check_limits(shown_rows, seconds)
        if file_databases and not files:
            raise ConfigError(
                f"file_databases of the SQL world ({file_databases}) are those of files; give files, such as "
                "{'dev': 'dev.json'}, or leave file_databases out."
            )
        self._rows, self._databases, self._engine, self._server = rows, databases, engine, server
        self._domains = _chosen("domains", domains, TRAINED)
        self._kinds = _chosen("kinds", kinds, KIND_NAMES)
        self._spellings = _chosen("spellings", spellings, _SPELLINGS[engine])
        self._cases = _chosen("cases", cases, CASES)
        self.instructions, self.second_answers = instructions, second_answers
        self._grader = QueryGrader(RULES[rule])
        self._seconds, self._shown = seconds, shown_rows
        self._folder = Path(folder).expanduser() if folder else default_folder()
        place = Path(file_databases) if file_databases else None
        given = {} if files is None else by_split(files, "files")
        self._files = {split: tuple(read_items(Path(path), place)) for split, path in given.items()}
        self._opened: Opened | None = None
        self._recent: OrderedDict[tuple[str, int], Task] = OrderedDict()

    def list_splits(self) -> tuple[str, ...]:
        """Return the splits of the files, or those of the generator."""
        return tuple(self._files) or SPLITS

    def num_tasks(self, split: str) -> int:
        """Return the number of questions."""
        self._check_split(split)
        return len(self._files[split]) if self._files else QUESTIONS * self._number(split)

    def get_task(self, split: str, index: int) -> Task:
        """Return one question; makes its database where it is new."""
        self._check_split(split)
        if self._files:
            item = self._files[split][index]
            return self._task(split, index, item, None)
        if (split, index) not in self._recent:
            self._recent[split, index] = self._generated(split, index)
            while len(self._recent) > _MAX_ITEMS:
                self._recent.popitem(last=False)
        return self._recent[split, index]

    def reset(
        self, *, seed: int | None = None, options: dict[str, object] | None = None
    ) -> tuple[str, dict[str, object]]:
        """Begin an episode. Raises `EnvironmentFault` where the gold query of the task cannot be graded."""
        observation, info = super().reset(seed=seed, options=options)
        self._opened = self._open(self.task)
        gold = self._grader.gold(str(self.task.data["query"]), self._opened.reference)
        if gold.problem:
            raise EnvironmentFault(f"the task {self.task.id} cannot be graded: {gold.problem}")
        return observation, info

    def system_text(self) -> str:
        """Return the tools, or nothing."""
        return super().system_text() if self.instructions else ""

    @tool
    def schema(self) -> str:
        """Show every table with its columns, primary key and references."""
        return self._sql.schema()

    @tool
    def sql(self, query: str) -> str:
        """Run one SQL query on the database, which is read-only, and show the first rows of its result.

        Args:
            query: one SELECT statement.
        """
        return self._sql.sql(query)

    @tool
    def answer(self, query: str) -> str:
        """Answer the question with one SQL query and end the episode.

        Args:
            query: one SELECT statement; its whole result is the answer.
        """
        opened, gold_query = self._ready, str(self.task.data["query"])
        result = self._accepted(opened.tools.guard.query(self._grader.rule.prepared(query)))
        gold = self._grader.gold(gold_query, opened.reference)
        grade = self._grader.compared(result, gold, gold_query)
        if grade.reward is None:
            raise EnvironmentFault(f"the answer could not be graded: {grade.message}")
        self.finish(grade.reward, success=grade.verdict is Verdict.CORRECT)
        return "The answer was taken."

    def _accepted(self, result: QueryResult) -> QueryResult:
        try:
            return checked(result)
        except ValueError:
            if not self.second_answers:
                self.finish(0.0, success=False)
            raise

    def gold(self) -> str:
        """Return the gold query."""
        return str(self.task.data["query"])

    def admissible(self) -> Sequence[str]:
        """Return what a player without thoughts may do: look around, answer with a table or its size."""
        names = [table.name for table in self._sql.tables]
        looks = [self.protocol.write("sql", {"query": f'SELECT * FROM "{name}" LIMIT 5'}) for name in names]
        counts = [self.protocol.write_answer(f'SELECT count(*) FROM "{name}"') for name in names]
        wholes = [self.protocol.write_answer(f'SELECT * FROM "{name}"') for name in names]
        return [self.protocol.write("schema", {}), *looks, *wholes, *counts]

    def expert(self, observation: str) -> Expert | None:
        """Return a player of the generated questions that sees only what it asks for; None for files."""
        return None if self._files else SqlExpert(observation, self.protocol)

    def suspicious_tasks(self, split: str) -> dict[int, str]:
        """Say which tasks of a split are bad, and why: their gold fails, is empty, or is left to chance."""
        found = {
            index: suspicious(str(task.data["query"]), self._open(task).reference)
            for index in range(self.num_tasks(split))
            for task in (self.get_task(split, index),)
        }
        return {index: reason for index, reason in found.items() if reason}

    @property
    def _ready(self) -> Opened:
        self._check_running()
        if self._opened is None:
            raise EnvironmentFault("the database of this episode is not open")
        return self._opened

    @property
    def _sql(self) -> Sql:
        return self._ready.tools

    def _number(self, split: str) -> int:
        return self._databases if split == "train" else max(1, self._databases // 8)

    def _recipe(self, split: str, number: int, draw: int) -> Recipe:
        names = HELD_OUT if split == "valid_unseen" else self._domains
        domain = DOMAINS[names[number % len(names)]]
        seed = (SPLITS.index(split), number, *([draw] if draw else []))
        return Recipe(domain, seed, self._rows, self._spellings, self._kinds, self._cases)

    def _generated(self, split: str, index: int) -> Task:
        for draw in range(_MAX_DRAWS):
            recipe = self._recipe(split, index // QUESTIONS, draw)
            path, questions = generated(recipe, self._folder)
            if questions:
                question = questions[index % len(questions)]
                item = Item(path, question.text, question.query, question.kind)
                return self._task(split, index, item, recipe)
        raise ConfigError(
            f"{_MAX_DRAWS} databases of {self._rows} rows have no question of the kinds "
            f"{', '.join(self._kinds)}. Give more kinds or more rows."
        )

    def _task(self, split: str, index: int, item: Item, recipe: Recipe | None) -> Task:
        dialect = "SQLite" if self._engine == "sqlite" or recipe is None else "PostgreSQL"
        asked = f"Question: {item.question}"
        prompt = f"{asked}\n{_EXPLORE.format(dialect=dialect)}" if self.instructions else asked
        data = {"database": item.database, "query": item.query, "recipe": recipe}
        return Task(split, index, prompt, data, item.kind)

    def _open(self, task: Task) -> Opened:
        path, recipe = task.data["database"], task.data["recipe"]
        if not isinstance(path, Path):
            raise EnvironmentFault(f"the task {task.id} has no database")
        seconds = min(self._seconds, self.step_seconds / 8)
        if self._engine == "sqlite" or not isinstance(recipe, Recipe):
            return OPENER.sqlite(path, seconds=seconds, rows=self._shown, in_place=isinstance(recipe, Recipe))
        url = OPENER.server(self._server).copied(recipe, path)
        return OPENER.postgres(url, seconds=seconds, rows=self._shown)


def _chosen(setting: str, given: Sequence[str], known: tuple[str, ...]) -> tuple[str, ...]:
    """Return those of the known names that are given, in their own order; all where none is."""
    if isinstance(given, str) or not all(isinstance(name, str) for name in given):
        example = ", ".join(map(repr, known[:2]))
        raise ConfigError(f"{setting} of the SQL world is a list, such as [{example}]; got {given!r}.")
    for name in given:
        if name not in known:
            hint = did_you_mean(name, known)
            raise ConfigError(f"{setting} of the SQL world are among {', '.join(known)}; got {name!r}.{hint}")
    return tuple(name for name in known if name in given) or known


def _check_limits(shown_rows: int, seconds: float) -> None:
    if shown_rows < 1:
        raise ConfigError(f"shown_rows of the SQL world must be >= 1; got {shown_rows}.")
    if not 0 < seconds < math.inf:
        raise ConfigError(f"seconds of the SQL world must be > 0; got {seconds}.")


def _check(rows: int, databases: int, engine: str, files: Mapping[str, str] | None, rule: str) -> None:
    if not 10 <= rows <= MOST_ROWS:
        raise ConfigError(f"rows of the SQL world must be 10 to {MOST_ROWS:,}; got {rows}.")
    if databases < 1:
        raise ConfigError(f"databases of the SQL world must be >= 1; got {databases}.")
    for name, given, known in (("engine", engine, ENGINES), ("rule", rule, tuple(RULES))):
        if given not in known:
            hint = did_you_mean(given, known)
            raise ConfigError(f"{name} of the SQL world is one of {', '.join(known)}; got {given!r}.{hint}")
    if files is not None and engine != "sqlite":
        raise ConfigError("files of the SQL world are SQLite databases; leave engine at 'sqlite'.")
