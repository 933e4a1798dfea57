"""A player that sees texts only: it does what the objective spells out, step by step.

TextWorld words the objective of a `Custom` or `TreasureHunter` game as one instruction for each command,
unless its grammar says `only_last_action`, `blend_instructions` or `ambiguous_instructions`. Each one is read
with the patterns below; where it leaves the key open, those in the inventory are tried.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from agentrl_envs.textworld.settings import Custom, Files, TreasureHunter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agentrl_envs.textworld.settings import Source

_PLACE: Final = re.compile(r" (?:in|within|inside) the .*$")
_TAKE: Final = "(?:take|retrieve|recover|pick-up|pick up|lift)"
_PUT: Final = "(?:insert|put|place|sit|rest|deposit)"
_FORMS: Final = tuple(
    (re.compile(pattern, re.IGNORECASE), commands)
    for pattern, commands in (
        (
            r"\b(?:go|head|venture|travel|move|trip)(?: to the| through the)* (north|south|east|west)\b",
            ("go {0}",),
        ),
        (rf"{_PUT} the (.+) into the (.+)'s lock to unlock it", ("unlock {1} with {0}",)),
        (rf"{_PUT} the (.+) into the (.+) to lock it", ("lock {1} with {0}",)),
        (r"the (.+) is (un)?locked with the (.+)", ("{1}lock {0} with {2}",)),
        (r"\b(un)?lock the (.+) with the (.+)", ("{0}lock {1} with {2}",)),
        (r"the (.+) is (un)?locked$", ("{1}lock {0} with {key}",)),
        (r"\b(un)?lock the (.+)", ("{0}lock {1} with {key}",)),
        (r"the (.+) is (?:opened|open|wide open|ajar)$", ("open {0}",)),
        (r"\bopen the (.+)", ("open {0}",)),
        (r"the (.+) is (?:closed|shut)$", ("close {0}",)),
        (r"\bclose the (.+)", ("close {0}",)),
        (rf"{_TAKE} the (.+) from the floor", ("take {0}",)),
        (r"(?:place|drop|ditch|throw|toss|deposit) the (.+) on the floor", ("drop {0}",)),
        (rf"{_PUT} the (.+?) on the (.+)", ("put {0} on {1}",)),
        (rf"{_PUT} the (.+?) (?:into|inside) the (.+)", ("insert {0} into {1}",)),
        (rf"{_TAKE} the (.+?) from the (.+)", ("take {0} from {1}", "take {0}")),
        (rf"{_TAKE} the (.+?)(?: that's)? in the ", ("take {0}",)),
        (r"\beat the (.+)", ("eat {0}",)),
    )
)
_SENTENCE: Final = re.compile(r"[.!?](?:\s+|$)")
_CARRIED: Final = re.compile(r"(?:^|,|and)\s*(?:an?|some|the)\s+(.+?)(?=,|\s+and\s+an?\s|\.?$)", re.MULTILINE)
_DONE: Final = re.compile(
    r"-= .+ =-|^You (?:take|pick up|open|close|unlock|lock|put|drop|eat)\b|^\(?Taken", re.MULTILINE
)


def spelled_out(game: Source) -> bool:
    """Return whether the objectives of a family name every step; of files nobody knows, so they may."""
    if isinstance(game, Files):
        return True
    grammar = game.grammar
    vague = grammar.only_last_action or grammar.blend_instructions or grammar.ambiguous_instructions
    return isinstance(game, Custom | TreasureHunter) and not vague


def instructions(objective: str) -> Iterator[tuple[str, ...]]:
    """Yield for each instruction of an objective the commands that may carry it out, the likeliest first.

    `{key}` stands for a key that the instruction does not name.

    >>> list(
    ...     instructions("First off, make sure that the chest in the attic is ajar. Then, take a trip west.")
    ... )
    [('open chest',), ('go west',)]
    """
    for sentence in _SENTENCE.split(objective):
        said = sentence.rsplit(", ", 1)[-1]
        for pattern, commands in _FORMS:
            if found := pattern.search(said):
                parts = [_PLACE.sub("", part or "") for part in found.groups()]
                yield tuple(command.format(*parts, key="{key}") for command in commands)
                break


@dataclass
class Reader:
    """Plays what the first observation asks for; it sees neither the walkthrough nor the state.

    >>> reader = Reader("Your task for today is to unlock the box.")
    >>> reader.act()
    'inventory'
    >>> reader.observe("inventory", "You are carrying: a red key and a bun.")
    >>> reader.act()
    'unlock box with red key'
    """

    objective: str
    _rest: list[tuple[str, ...]] = field(init=False)
    _tries: list[str] = field(default_factory=list[str])
    _carried: list[str] | None = None

    def __post_init__(self) -> None:
        self._rest = list(instructions(self.objective))

    def act(self) -> str:
        """Return the next command."""
        while self._rest and not self._tries:
            commands = self._rest[0]
            if "{key}" in commands[0] and self._carried is None:
                return "inventory"
            self._tries = [
                command.format(key=key)
                for command in commands
                for key in ((self._carried or ()) if "{key}" in command else ("",))
            ]
            if not self._tries:
                del self._rest[0]
        return self._tries[0] if self._tries else "look"

    def observe(self, command: str, feedback: str) -> None:
        """Go on where the command did what it should, else try another."""
        if command == "inventory":
            listed = feedback.partition(":")[2].strip()
            self._carried = _CARRIED.findall(listed)
            return
        if not self._tries or command != self._tries[0]:
            return
        del self._tries[0]
        if _DONE.search(feedback) or not self._tries:
            self._tries, self._carried = [], None
            del self._rest[0]
