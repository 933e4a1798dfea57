"""A scripted expert that sees only what an agent sees, and recovers from whatever others do to its plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentrl_envs.household.belief import parse_goal, read_room
from agentrl_envs.household.tasks import (
    CLEAN_THEN_PLACE,
    COOL_THEN_PLACE,
    HEAT_THEN_PLACE,
    LOOK_AT_OBJECT,
    PLACE_TWO,
)
from agentrl_envs.household.vocabulary import OPENABLE, can_contain, type_of

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable

_STEP_OF_TASK = {
    CLEAN_THEN_PLACE: ("clean", "clean", "sinkbasin"),
    HEAT_THEN_PLACE: ("heat", "hot", "microwave"),
    COOL_THEN_PLACE: ("cool", "cool", "fridge"),
}
"""Task type -> command, condition it brings about, appliance."""


class Expert:
    """Solve a task from its texts.

    Args:
        observation: the first observation of the episode.
        rng: shuffles the order in which equally plausible receptacles are searched; None: listing order.

    The next command depends on the texts read so far and on nothing else, so an expert can be rebuilt from a
    history (``from_history``), and anybody may execute other commands between its own and show them to
    ``observe``.
    """

    def __init__(self, observation: str, rng: random.Random | None = None) -> None:
        self.goal = parse_goal(observation)
        self.belief = read_room(observation)
        order = list(self.belief.receptacles)
        if rng is not None:
            rng.shuffle(order)
        self._rank = {name: rank for rank, name in enumerate(order)}

    @classmethod
    def from_history(
        cls, observation: str, turns: Iterable[tuple[str, str]], rng: random.Random | None = None
    ) -> Expert:
        """Rebuild an expert from the first observation and the (command, feedback) pairs since."""
        expert = cls(observation, rng)
        for command, feedback in turns:
            expert.observe(command, feedback)
        return expert

    def observe(self, command: str, feedback: str) -> None:
        """Learn what a command gave, the expert's own or somebody else's."""
        del command  # every feedback that changes something names all that changed
        self.belief.update(feedback)

    def act(self) -> str:
        """Choose the next command."""
        if self.goal.task_type == LOOK_AT_OBJECT:
            return self._look_at()
        if not self.belief.holding:
            return self._fetch()
        if type_of(self.belief.holding) != self.goal.object_type:
            return self._put_away()
        return self._treat_and_place()

    # -- the parts of a plan --------------------------------------------------------------------------

    def _look_at(self) -> str:
        held = self.belief.holding
        if not held:
            return self._fetch()
        if type_of(held) != self.goal.object_type:
            return self._put_away()
        lamps = self._known(self.goal.target_type)
        if not lamps:
            return self._search(self.goal.target_type)
        place = self.belief.place_of(lamps[0])
        return self._go_or(place, f"use {lamps[0]}")

    def _fetch(self) -> str:
        """Take an object of the goal's type that is not in its final place yet."""
        needed = self._known(self.goal.object_type)
        if self.goal.task_type == PLACE_TWO:
            done = self._target()
            needed = [thing for thing in needed if self.belief.place_of(thing) != done]
        if not needed:
            return self._search(self.goal.object_type)
        place = self.belief.place_of(needed[0])
        return self._reach_or(place, f"take {needed[0]} from {place}")

    def _treat_and_place(self) -> str:
        held = self.belief.holding
        verb, condition, appliance = _STEP_OF_TASK.get(self.goal.task_type, ("", "", ""))
        if verb and not self.belief.has(held, condition):
            place = self._first_of_type(appliance)
            return self._go_or(place, f"{verb} {held} with {place}")
        return self._put(held, self._target())

    def _put_away(self) -> str:
        """Free the hand of an object that the goal does not need."""
        held = self.belief.holding
        return self._put(held, min(self.belief.receptacles, key=lambda name: self._effort(name, held)))

    def _effort(self, receptacle: str, thing: str) -> tuple[bool, bool, bool]:
        """Sort key: where such a thing belongs, then this place, then those that are open."""
        odd = not can_contain(type_of(receptacle), type_of(thing))
        return odd, receptacle != self.belief.location, self.belief.is_shut(receptacle)

    def _put(self, thing: str, place: str) -> str:
        return self._reach_or(place, f"move {thing} to {place}")

    def _search(self, kind: str) -> str:
        """Look into the most promising receptacle that was never seen from inside."""
        unseen = [name for name in self.belief.receptacles if name not in self.belief.contents]
        if not unseen:
            self.belief.contents.clear()
            return "look"
        place = min(unseen, key=lambda name: self._search_cost(name, kind))
        return self._go_or(place, f"open {place}" if self.belief.is_shut(place) else f"examine {place}")

    # -- what is where --------------------------------------------------------------------------------

    def _search_cost(self, receptacle: str, kind: str) -> tuple[bool, bool, bool, int]:
        """Sort key: plausible ones first, then this one, then those without a door."""
        holder = type_of(receptacle)
        away = receptacle != self.belief.location
        return not can_contain(holder, kind), away, holder in OPENABLE, self._rank[receptacle]

    def _known(self, kind: str) -> list[str]:
        """Objects of a type seen somewhere: treated ones first, then those at hand, then by name."""
        condition = _STEP_OF_TASK.get(self.goal.task_type, ("", "", ""))[1]
        seen = [(thing, place) for place, things in self.belief.contents.items() for thing in things]
        ranked = sorted(
            (not self.belief.has(thing, condition), place != self.belief.location, thing)
            for thing, place in seen
            if type_of(thing) == kind
        )
        return [thing for *_, thing in ranked]

    def _target(self) -> str:
        """The receptacle to fill: the one with most of the objects already, else the first listed."""
        kind = self.goal.object_type
        targets = [name for name in self.belief.receptacles if type_of(name) == self.goal.target_type]
        return max(
            targets,
            key=lambda name: sum(type_of(thing) == kind for thing in self.belief.contents.get(name, ())),
        )

    def _first_of_type(self, kind: str) -> str:
        return next(name for name in self.belief.receptacles if type_of(name) == kind)

    def _go_or(self, place: str, command: str) -> str:
        return command if self.belief.location == place else f"go to {place}"

    def _reach_or(self, place: str, command: str) -> str:
        return self._go_or(place, f"open {place}" if self.belief.is_shut(place) else command)
