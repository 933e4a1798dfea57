"""A player that draws a map while it walks, from texts alone, and the one that looks for a coin.

A player is written as a generator: it yields a command and is sent what the game answered. Directions are
those that the description of a room names; doors and keys are those that a refusal names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Final, TypeAlias

Plan: TypeAlias = Generator[str, str, None]
"""Yields commands, is sent their replies."""
Search: TypeAlias = Generator[str, str, bool]
"""The same; in the end it says whether it found what it was for."""

_ROOM: Final = re.compile(r"-= (.+?) =-")
_DIRECTION: Final = re.compile(r"\b(north|south|east|west)\b")
_BACK: Final = {"north": "south", "south": "north", "east": "west", "west": "east"}
_SHUT: Final = re.compile(r"You have to open the (.+?) first")
_LOCKED: Final = re.compile(r"You have to unlock the (.+?) with the (.+?) first")


@dataclass
class Walker:
    """Where the player stands and what it knows of the house.

    Attributes:
        here: name of the room; `seen`: what was read in each room, its latest description first.
        ways: from each room by direction to the next; None where there is no way although one was named.
    """

    here: str = ""
    seen: dict[str, str] = field(default_factory=dict[str, str])
    ways: dict[str, dict[str, str | None]] = field(default_factory=dict[str, "dict[str, str | None]"])

    def read(self, reply: str) -> None:
        """Note a reply: the description of a room that was entered, or something about this one."""
        headers = list(_ROOM.finditer(reply))
        if headers:
            self.here = headers[-1][1]
            self.seen[self.here] = reply[headers[-1].start() :]
            self.ways.setdefault(self.here, {})
        else:
            self.seen[self.here] = f"{self.seen.get(self.here, '')}\n{reply}"

    def open(self, name: str) -> Plan:
        """Open a thing, with the key that its refusal names."""
        reply = yield f"open {name}"
        if locked := _LOCKED.search(reply):
            yield f"unlock {locked[1]} with {locked[2]}"
            reply = yield f"open {name}"
        self.read(reply)

    def go(self, direction: str) -> Plan:
        """Go, and open the door that stands in the way."""
        left = self.here
        reply = yield f"go {direction}"
        if door := _SHUT.search(reply):
            yield from self.open(door[1])
            reply = yield f"go {direction}"
        if not _ROOM.search(reply):
            self.ways[left][direction] = None
            return
        self.read(reply)
        self.ways[left][direction] = self.here
        self.ways[self.here][_BACK[direction]] = left

    def to(self, room: str) -> Plan:
        """Go to a room that was seen."""
        for direction in self._route(lambda name: name == room) or ():
            yield from self.go(direction)

    def explore(self, look_around: Callable[[], Search]) -> Search:
        """Look around in this room and in each new one, the nearest first, until all is found."""
        while not (yield from look_around()):
            route = self._route(lambda room: bool(self._untried(room)))
            if route is None:
                return False
            for direction in route:
                yield from self.go(direction)
            known = len(self.seen)
            while len(self.seen) == known and (untried := self._untried(self.here)):
                yield from self.go(untried[0])
        return True

    def _untried(self, room: str) -> list[str]:
        named = dict.fromkeys(_DIRECTION.findall(self.seen[room]))
        return [direction for direction in named if direction not in self.ways[room]]

    def _route(self, wanted: Callable[[str], bool]) -> list[str] | None:
        """The shortest known way to a room, as directions."""
        routes: dict[str, list[str]] = {self.here: []}
        for room, route in ((name, routes[name]) for name in _growing(routes)):
            if wanted(room):
                return route
            for direction, beyond in self.ways[room].items():
                if beyond is not None:
                    routes.setdefault(beyond, [*route, direction])
        return None


def _growing(routes: dict[str, list[str]]) -> Generator[str, None, None]:
    """The keys of a mapping in order, those that come meanwhile included."""
    done = 0
    while done < len(routes):
        yield list(routes)[done]
        done += 1


def collect_coin(opening: str) -> Plan:
    """Walk until there is a coin, and take it."""
    walker = Walker()
    walker.read(opening)
    yield from walker.explore(lambda: _take_coin(walker))


def _take_coin(walker: Walker) -> Search:
    if not re.search(r"\bcoin\b", walker.seen[walker.here]):
        return False
    yield "take coin"
    return True


class Planned:
    r"""Plays a plan; what others do in between must change nothing.

    >>> player = Planned(collect_coin("-= Hall =-\nA coin lies on the floor."))
    >>> player.act()
    'take coin'
    >>> player.observe("take coin", "You pick up the coin.")
    >>> player.act()
    'look'
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._command: str | None = next(plan, None)

    def act(self) -> str:
        """Return the next command; at the end of the plan it looks around."""
        return self._command or "look"

    def observe(self, command: str, feedback: str) -> None:
        """Go on after its own command."""
        if command != self._command:
            return
        try:
            self._command = self._plan.send(feedback)
        except StopIteration:
            self._command = None
