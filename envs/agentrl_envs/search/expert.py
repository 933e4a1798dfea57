"""A scripted player of the generated world: it reads the question, searches, reads, and answers."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from agentrl_envs.search.language import queries, read_question, read_value

if TYPE_CHECKING:
    from agentrl.world.protocol import Protocol

_RESULT: Final = re.compile(r'Doc \d+\(Title: "([^"]*)"\) ([^\n]*)')


@dataclass
class Expert:
    """Follows the relations of a question one by one. It sees only what an agent sees.

    Args:
        observation: the first one, with the question.
        protocol: how searches and answers are written.
    """

    observation: str
    protocol: Protocol
    found: dict[str, str] = field(default_factory=dict[str, str])
    tried: dict[str, int] = field(default_factory=dict[str, int])

    def act(self) -> str:
        """Search for the next document that is missing, or answer."""
        name, nouns = read_question(self.observation)
        for noun in nouns:
            value = read_value(noun, name, self.found[name]) if name in self.found else None
            if value is None:
                return self._search(name, noun)
            name = value
        return self.protocol.write_answer(name)

    def observe(self, command: str, feedback: str) -> None:
        """Remember the documents of a result, whoever asked for them."""
        self.found.update(dict(_RESULT.findall(feedback)))

    def _search(self, name: str, noun: str) -> str:
        ways, attempt = queries(noun, name), self.tried.get(name, 0)
        self.tried[name] = attempt + 1
        if attempt == len(ways):
            return self.protocol.write_answer("unknown")
        return self.protocol.write("search", {"query": ways[attempt]})
