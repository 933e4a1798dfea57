"""What an agent can know from the texts alone: reads observations, never the simulator."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from agentrl.errors import EnvironmentUsageError
from agentrl_envs.household.tasks import GOAL_TEMPLATES, Goal
from agentrl_envs.household.vocabulary import OPENABLE, type_of

if TYPE_CHECKING:
    from collections.abc import Hashable

_THING: Final = re.compile(r"\ba ([a-z]+ \d+)")
_OVERVIEW: Final = re.compile(r"Looking quickly around you, you see (.*)\.")
_VIEW: Final = re.compile(r"(?:On the|The) ([a-z]+ \d+)(?:,| is open\. In it,) you see (.*)\.$")
_TWO_NAMES: Final = re.compile(r"the ([a-z]+ \d+) (?:from|to|using|with) the ([a-z]+ \d+)\.")
_ONE_NAME: Final = re.compile(r"(?:the|arrive at|carrying: a) ([a-z]+ \d+)")


def parse_goal(observation: str) -> Goal:
    """Read the goal in a first observation.

    Raises:
        EnvironmentUsageError: the text holds none of ALFWorld's twelve goal sentences.

    >>> parse_goal("... Your task is to: put two mug in desk.").task_type
    'pick_two_obj_and_place'
    """
    sentence = observation.rpartition("Your task is to: ")[2].rstrip().removesuffix(".")
    for pattern, task_type, template in _GOAL_PATTERNS:
        match = pattern.fullmatch(sentence)
        if match:
            return Goal(task_type, match["object"], match["target"], template)
    raise EnvironmentUsageError(
        f"No household goal is worded {sentence!r}; pass the first observation of an episode, unchanged."
    )


def _goal_patterns() -> tuple[tuple[re.Pattern[str], str, int], ...]:
    word = {"object": "(?P<object>[a-z]+)", "target": "(?P<target>[a-z]+)"}
    return tuple(
        (re.compile(words.format(**word)), task_type, template)
        for task_type, pair in GOAL_TEMPLATES.items()
        for template, words in enumerate(pair)
    )


_GOAL_PATTERNS: Final = _goal_patterns()


@dataclass(slots=True)
class Belief:
    """The agent's knowledge after the texts read so far.

    Attributes:
        receptacles: names, in the order of the first observation.
        location: where the agent stands; empty before it first goes somewhere.
        holding: the object in hand, or empty.
        contents: receptacle -> objects in it, for each receptacle that was ever looked into.
        opened: the openable receptacles that stand open now.
        conditions: object -> a subset of {"hot", "cool", "clean", "on"}.
    """

    receptacles: tuple[str, ...]
    location: str = ""
    holding: str = ""
    contents: dict[str, list[str]] = field(default_factory=dict)
    opened: set[str] = field(default_factory=set)
    conditions: dict[str, set[str]] = field(default_factory=dict)

    def is_shut(self, receptacle: str) -> bool:
        """Whether its door must be opened before anything goes in or out."""
        return type_of(receptacle) in OPENABLE and receptacle not in self.opened

    def place_of(self, thing: str) -> str:
        """Where an object was last seen, or empty."""
        return next((place for place, things in self.contents.items() if thing in things), "")

    def has(self, thing: str, condition: str) -> bool:
        """Whether an object is known to be "hot", "cool", "clean" or "on"."""
        return condition in self.conditions.get(thing, ())

    def update(self, feedback: str) -> None:
        """Learn from one feedback, whoever gave the command; errors teach nothing."""
        words = feedback.split(" ", 2)
        if len(words) < 3:
            return
        match words[0], words[1]:
            case ("You", "arrive"):
                self._arrive(feedback)
            case ("You", "open" | "close"):
                self._turn_door(words[1], feedback)
            case ("You", "pick" | "move"):
                self._carry(words[1], feedback)
            case ("You", "heat" | "cool" | "clean"):
                self._treat(words[1], feedback)
            case ("You", "turn"):
                self.conditions.setdefault(_first_name(feedback), set()).add("on")
            case ("You", "are"):
                self._locate(feedback)
            case ("On" | "The", _):
                self._see(feedback)
            case _:
                pass

    def _arrive(self, feedback: str) -> None:
        self.location = _first_name(feedback)
        self._see(feedback.partition(". ")[2])

    def _turn_door(self, verb: str, feedback: str) -> None:
        name = _first_name(feedback)
        if verb == "close":
            self.opened.discard(name)
            return
        self.opened.add(name)
        self._see(feedback.partition(". ")[2])

    def _carry(self, verb: str, feedback: str) -> None:
        thing, place = _two_names(feedback)
        there = self.contents.setdefault(place, [])
        if verb == "pick":
            self.holding = thing
            if thing in there:
                there.remove(thing)
        else:
            self.holding = ""
            there.append(thing)

    def _treat(self, verb: str, feedback: str) -> None:
        thing = _two_names(feedback)[0]
        conditions = self.conditions.setdefault(thing, set())
        conditions -= {"heat": {"cool"}, "cool": {"hot"}}.get(verb, set())
        conditions.add("hot" if verb == "heat" else verb)

    def _locate(self, feedback: str) -> None:
        if feedback.startswith("You are facing"):
            self.location = _first_name(feedback)
        elif feedback.startswith("You are carrying"):
            self.holding = _first_name(feedback)
        elif feedback.startswith("You are not carrying"):
            self.holding = ""

    def _see(self, view: str) -> None:
        """Read "On the R, you see ..." or "The R is open. In it, you see ..."; shut doors show nothing."""
        match = _VIEW.match(view)
        if match:
            self.contents[match[1]] = _THING.findall(match[2])
            if view.startswith("The "):
                self.opened.add(match[1])


def read_room(observation: str) -> Belief:
    """Start a belief from a first observation."""
    match = _OVERVIEW.search(observation)
    if match is None:
        raise EnvironmentUsageError(
            "The first observation must list the room: '... Looking quickly around you, you see ...'."
        )
    return Belief(tuple(_THING.findall(match[1])))


def as_seen(belief: Belief) -> tuple[Hashable, ...]:
    """Return what the agent knows of its place and of its hand, as a part of an anchor key."""
    place = belief.location
    seen = belief.contents.get(place)
    in_view = tuple(sorted((thing, _conditions(belief, thing)) for thing in seen or ()))
    door = seen is None, place in belief.opened
    held = belief.holding, _conditions(belief, belief.holding)
    return place, door, in_view, held


def _conditions(belief: Belief, thing: str) -> tuple[str, ...]:
    return tuple(sorted(belief.conditions.get(thing, ())))


def _first_name(feedback: str) -> str:
    match = _ONE_NAME.search(feedback)
    return match[1] if match else ""


def _two_names(feedback: str) -> tuple[str, str]:
    match = _TWO_NAMES.search(feedback)
    return (match[1], match[2]) if match else ("", "")
