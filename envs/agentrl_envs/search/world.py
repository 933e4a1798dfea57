"""A generated world: entities, their relations, a document for each, and questions that follow relations."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from agentrl.errors import EnvironmentFault
from agentrl_envs.search.language import (
    INTRODUCTIONS,
    OF_KIND,
    RELATIONS,
    SHARES,
    TRADES,
    question_text,
)
from agentrl_envs.search.names import draw, pools_of, word_numbers
from agentrl_envs.search.questions import Question
from agentrl_envs.search.settings import SPLITS
from agentrl_tools.search.corpus import Corpus, Document

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from agentrl_envs.search.language import Relation
    from agentrl_envs.search.settings import SearchSettings

_DRAWS: Final = 200


@dataclass(frozen=True, eq=False)
class World:
    """The facts of a world of D entities; those of one kind are consecutive.

    Attributes:
        start: (K + 1,) first entity of each kind.
        names: (D,) number of each entity's name among those of its kind.
        values: for each relation the (n,) entities that it gives the n entities of its source kind.
        style: (D, 6) small numbers that choose sentences and their order.
    """

    start: NDArray[np.int64]
    names: NDArray[np.int64]
    values: tuple[NDArray[np.int64], ...]
    style: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.names)

    def kind(self, entity: int) -> int:
        """Return the kind of an entity."""
        return int(np.searchsorted(self.start, entity, side="right")) - 1

    def name(self, entity: int) -> str:
        """Return the name of an entity, which no other has."""
        kind = self.kind(entity)
        pools = pools_of(kind, int(self.start[kind + 1] - self.start[kind]))
        return pools.name(int(self.names[entity]))

    def value(self, entity: int, relation: int) -> int:
        """Return the entity that a relation gives."""
        return int(self.values[relation][entity - self.start[RELATIONS[relation].source]])

    def document(self, entity: int) -> Document:
        """Return the document about an entity."""
        name, kind, style = self.name(entity), self.kind(entity), self.style[entity]
        count = 10 * (1 + int(style[0]))
        intro = INTRODUCTIONS[kind].format(s=name, trade=TRADES[style[0] % len(TRADES)], count=count)
        facts = [
            RELATIONS[relation]
            .sentences[style[1 + place] % 2]
            .format(s=name, o=self.name(self.value(entity, relation)))
            for place, relation in enumerate(OF_KIND[kind])
        ]
        turn = int(style[5]) % len(facts)
        return Document(str(entity), name, " ".join([intro, *facts[turn:], *facts[:turn]]))

    def documents(self) -> Iterator[Document]:
        """Return all documents."""
        return (self.document(entity) for entity in range(len(self)))

    def corpus(self) -> Corpus:
        """Return all documents as a corpus."""
        return Corpus.of(self.documents())

    def ask(self, hops: int, rng: np.random.Generator) -> Question:
        """Draw a question that follows `hops` relations through different entities."""
        for _ in range(_DRAWS):
            path, chain = [int(rng.integers(len(self)))], list[int]()
            for _ in range(hops):
                relation = int(rng.choice(OF_KIND[self.kind(path[-1])]))
                chain.append(relation)
                path.append(self.value(path[-1], relation))
            if len(set(path)) == len(path):
                names = [self.name(entity) for entity in path]
                text = question_text(names[0], tuple(chain))
                return Question(text, (names[-1],), tuple(names[:-1]), f"{hops} hop" + "s" * (hops > 1))
        raise EnvironmentFault(f"no question of {hops} hops was found in {_DRAWS} draws")


def make_world(settings: SearchSettings, split: str, number: int) -> World:
    """Return a world of a split; the same arguments always give the same one."""
    rng = np.random.default_rng([settings.seed, SPLITS.index(split), number])
    sizes = np.maximum((np.array(SHARES) * settings.documents).astype(np.int64), 2)
    sizes[0] += settings.documents - sizes.sum()
    start = np.concatenate([[0], np.cumsum(sizes)])
    names = np.concatenate([draw(kind, int(size), rng) for kind, size in enumerate(sizes)])
    words = np.concatenate(
        [
            word_numbers(kind, int(size), names[start[kind] : start[kind + 1]])
            for kind, size in enumerate(sizes)
        ]
    )
    values = tuple(_drawn(relation, start, words, rng) for relation in RELATIONS)
    style = rng.integers(256, size=(settings.documents, 6), dtype=np.uint8)
    return World(start, names, values, style)


def _drawn(
    relation: Relation, start: NDArray[np.int64], words: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """(n,) what a relation gives each entity of its source kind: no name shares a word with its own.

    Otherwise the document about Fola Borler, a pupil of Fola Foman who works for Foman Glass, would say
    "Fola" and "Foman" as often as the document about Fola Foman.
    """
    own = words[start[relation.source] : start[relation.source + 1]]
    low, high = int(start[relation.target]), int(start[relation.target + 1])
    found = rng.integers(low, high, size=len(own))
    for _ in range(_DRAWS):
        shared = (own[:, :, None] == words[found][:, None, :]).any(axis=(1, 2))
        if not shared.any():
            break
        found[shared] = rng.integers(low, high, size=int(shared.sum()))
    return found


@functools.lru_cache(maxsize=32)
def _world(settings: SearchSettings, split: str, number: int) -> World:
    return make_world(settings, split, number)


def question_of(settings: SearchSettings, split: str, index: int) -> Question:
    """Return the question of a task."""
    world = _world(settings, split, index // settings.tasks_per_world)
    rng = np.random.default_rng([settings.seed, 7, SPLITS.index(split), index])
    return world.ask(int(rng.choice(settings.hops)), rng)


def entity_names(settings: SearchSettings, split: str, index: int, most: int) -> list[str]:
    """Return names of the task's world, at most so many, the same for every call."""
    world = _world(settings, split, index // settings.tasks_per_world)
    if len(world) <= most:
        return [world.name(entity) for entity in range(len(world))]
    rng = np.random.default_rng([settings.seed, 8, index])
    return [world.name(int(entity)) for entity in rng.choice(len(world), most, replace=False)]


def world_of(settings: SearchSettings, split: str, index: int) -> World:
    """Return the world of a task."""
    return _world(settings, split, index // settings.tasks_per_world)
