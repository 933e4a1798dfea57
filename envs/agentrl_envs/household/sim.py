"""The household simulator: ALFWorld's commands, preconditions, effects and texts, in plain Python.

Semantics follow ALFWorld's ``alfred.pddl``, wording its ``alfred.twl2`` (Shridhar et al. 2021), as of release
0.5 ("move O to R"). Our departures: each receptacle has a location of its own, and lists are always sorted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final, NamedTuple

from agentrl_envs.household import vocabulary
from agentrl_envs.household.language import HELP, NOTHING, condition, listing, overview
from agentrl_envs.household.tasks import (
    CLEAN_THEN_PLACE,
    COOL_THEN_PLACE,
    HEAT_THEN_PLACE,
    LOOK_AT_OBJECT,
    PICK_AND_PLACE,
    PLACE_TWO,
    Task,
)

if TYPE_CHECKING:
    from collections.abc import Callable

MIDDLE: Final = -1
"""The agent's location before it first goes somewhere."""
IN_HAND: Final = -2
"""The place of the object that the agent holds."""

TREATMENTS: Final[dict[str, tuple[str, frozenset[str]]]] = {
    "heat": ("microwave", vocabulary.HEATABLE),
    "clean": ("sinkbasin", vocabulary.CLEANABLE),
    "cool": ("fridge", vocabulary.COOLABLE),
}
"""Verb -> the receptacle type that does it, and the object types it works on."""


class State(NamedTuple):
    """Everything that can change, exactly: equal states behave alike for ever. Sets are bit masks."""

    agent: int
    places: tuple[int, ...]
    opened: int
    hot: int
    cool: int
    clean: int
    toggled: int
    sliced: int


class World:
    """One house in play.

    Args:
        task: what is where and what is asked; see ``generate.make_task``.

    ``do`` takes any text and never raises: what is not admissible gives ``"Nothing happens."`` and changes
    nothing.
    """

    __slots__ = (
        "_agent",
        "_clean",
        "_cool",
        "_goal_items",
        "_held",
        "_hot",
        "_item_types",
        "_items",
        "_number_of_item",
        "_number_of_receptacle",
        "_openable",
        "_opened",
        "_places",
        "_receptacle_types",
        "_receptacles",
        "_sliced",
        "_targets",
        "_toggled",
        "task",
    )

    def __init__(self, task: Task) -> None:
        self.task = task
        self._receptacles = task.house.receptacles
        self._items = task.house.objects
        self._receptacle_types = tuple(map(vocabulary.type_of, self._receptacles))
        self._item_types = tuple(map(vocabulary.type_of, self._items))
        self._number_of_receptacle = {name: number for number, name in enumerate(self._receptacles)}
        self._number_of_item = {name: number for number, name in enumerate(self._items)}
        self._openable = tuple(kind in vocabulary.OPENABLE for kind in self._receptacle_types)
        goal = task.goal
        self._goal_items = tuple(i for i, kind in enumerate(self._item_types) if kind == goal.object_type)
        target_types = self._item_types if goal.task_type == LOOK_AT_OBJECT else self._receptacle_types
        self._targets = tuple(i for i, kind in enumerate(target_types) if kind == goal.target_type)
        self.restore(State(MIDDLE, task.placement, 0, 0, 0, 0, 0, 0))

    # -- observing ------------------------------------------------------------------------------------

    def intro(self) -> str:
        """The first observation: what stands in the room, and the task."""
        goal = self.task.goal.sentence
        room = overview(self._receptacles)
        return f"-= Welcome to TextWorld, ALFRED! =-\n\n{room}\n\nYour task is to: {goal}."

    def won(self) -> bool:
        """Whether the goal formula holds now; nothing else counts, not even an open door."""
        return self.goal_conditions() == 1.0

    def goal_conditions(self) -> float:
        """The share of the goal's conditions that hold now, in [0, 1]; 1 is a goal fulfilled.

        Counted as ALFRED counts them: to look, holding the object and a lit lamp; of two objects, each in the
        same target; of an object to treat, the treatment, the place, and both of one object. Departure: a
        lamp counts while the agent stands where it is, as ALFWorld's goal asks.
        """
        places = self._places
        kind = self.task.goal.task_type
        if kind == LOOK_AT_OBJECT:
            lit = any(self._toggled >> lamp & 1 and places[lamp] == self._agent for lamp in self._targets)
            return (lit + (self._held in self._goal_items)) / 2
        if kind == PLACE_TWO:
            found = [places[item] for item in self._goal_items]
            return min(2, max(map(found.count, self._targets))) / 2
        placed = [item for item in self._goal_items if places[item] in self._targets]
        if kind == PICK_AND_PLACE:
            return float(bool(placed))
        treated = self._treated(kind)
        done = [item for item in self._goal_items if treated >> item & 1]
        return (bool(placed) + bool(done) + any(item in done for item in placed)) / 3

    def state_key(self) -> State:
        """The exact true state, hashable; privileged, the agent sees less."""
        return self.snapshot()

    def snapshot(self) -> State:
        """Freeze the state; ``restore`` takes it back, on any world of the same task."""
        return State(
            self._agent,
            tuple(self._places),
            self._opened,
            self._hot,
            self._cool,
            self._clean,
            self._toggled,
            self._sliced,
        )

    def restore(self, state: State) -> None:
        """Return to a frozen state of this task."""
        self._agent, places, self._opened, self._hot, self._cool, self._clean, self._toggled, self._sliced = (
            state
        )
        self._places = list(places)
        self._held = self._places.index(IN_HAND) if IN_HAND in places else -1

    def admissible(self) -> list[str]:
        """List every command that would not give ``"Nothing happens."``, sorted."""
        here = self._agent
        commands = ["help", "inventory", "look"]
        commands += [f"go to {name}" for number, name in enumerate(self._receptacles) if number != here]
        if here != MIDDLE:
            commands += self._commands_here(here)
        if self._held >= 0:
            commands += self._commands_in_hand(here)
        commands.sort()
        return commands

    # -- acting ---------------------------------------------------------------------------------------

    def do(self, command: str) -> str:
        """Execute one command and return its feedback.

        Args:
            command: a line such as ``"take mug 1 from desk 2"``; spaces around it are ignored.
        """
        verb, _, rest = command.strip().partition(" ")
        action = self._ACTIONS.get(verb)
        return NOTHING if action is None else action(self, rest)

    def _look(self, rest: str) -> str:
        if rest:
            return NOTHING
        if self._agent == MIDDLE:
            return overview(())  # ALFWorld's grammar looks for what stands in the middle, and nothing does
        return f"You are facing the {self._receptacles[self._agent]}. Next to it, you see nothing."

    def _inventory(self, rest: str) -> str:
        if rest:
            return NOTHING
        if self._held < 0:
            return "You are not carrying anything."
        return f"You are carrying: a {self._items[self._held]}."

    def _help(self, rest: str) -> str:
        return NOTHING if rest else HELP

    def _go(self, rest: str) -> str:
        there = self._number_of_receptacle.get(rest[3:])
        if there is None or there == self._agent or not rest.startswith("to "):
            return NOTHING
        self._agent = there
        return f"You arrive at {self._receptacles[there]}. {self._view(there)}"

    def _open(self, rest: str) -> str:
        here = self._number_of_receptacle.get(rest)
        if here is None or here != self._agent or self._reachable(here):
            return NOTHING
        self._opened |= 1 << here
        return f"You open the {rest}. {self._view(here)}"

    def _close(self, rest: str) -> str:
        here = self._number_of_receptacle.get(rest)
        if here is None or here != self._agent or not self._opened >> here & 1:
            return NOTHING
        self._opened ^= 1 << here
        return f"You close the {rest}."

    def _take(self, rest: str) -> str:
        item, here = self._item_and_place(rest, " from ")
        if here != self._agent or self._held >= 0 or not self._visible(item) or not self._portable(item):
            return NOTHING
        self._places[item] = IN_HAND
        self._held = item
        return f"You pick up the {self._items[item]} from the {self._receptacles[here]}."

    def _move(self, rest: str) -> str:
        item, here = self._item_and_place(rest, " to ")
        if here != self._agent or item != self._held or item < 0 or not self._accepts(here, item):
            return NOTHING
        self._places[item] = here
        self._held = -1
        return f"You move the {self._items[item]} to the {self._receptacles[here]}."

    def _heat(self, rest: str) -> str:
        item, text = self._treat("heat", rest)
        if item >= 0:
            self._hot |= 1 << item
            self._cool &= ~(1 << item)
        return text

    def _cool_down(self, rest: str) -> str:
        item, text = self._treat("cool", rest)
        if item >= 0:
            self._cool |= 1 << item
            self._hot &= ~(1 << item)
        return text

    def _wash(self, rest: str) -> str:
        item, text = self._treat("clean", rest)
        if item >= 0:
            self._clean |= 1 << item
        return text

    def _use(self, rest: str) -> str:
        item = self._number_of_item.get(rest, -1)
        if item < 0 or self._places[item] != self._agent or self._item_types[item] not in vocabulary.LAMPS:
            return NOTHING
        self._toggled |= 1 << item
        return f"You turn on the {rest}."

    def _slice(self, rest: str) -> str:
        name, _, knife = rest.partition(" with ")
        item = self._number_of_item.get(name, -1)
        if item < 0 or not self._can_slice(item) or self._number_of_item.get(knife) != self._held:
            return NOTHING
        self._sliced |= 1 << item
        return f"You sliced the {name} with the {knife}."

    def _examine(self, rest: str) -> str:
        here = self._number_of_receptacle.get(rest)
        if here is not None:
            return self._view(here) if here == self._agent else NOTHING
        item = self._number_of_item.get(rest)
        if item is None or item != self._held:
            # ALFWorld means to allow what lies here too, but a comma in alfred.pddl keeps its engine from it.
            return NOTHING
        return self._describe(item)

    # -- preconditions --------------------------------------------------------------------------------

    def _reachable(self, receptacle: int) -> bool:
        return not self._openable[receptacle] or bool(self._opened >> receptacle & 1)

    def _visible(self, item: int) -> bool:
        place = self._places[item]
        return place == self._agent and place >= 0 and self._reachable(place)

    def _portable(self, item: int) -> bool:
        return self._item_types[item] not in vocabulary.LAMPS

    def _accepts(self, receptacle: int, item: int) -> bool:
        fits = self.task.house.accepts(self._receptacle_types[receptacle], self._item_types[item])
        return fits and self._reachable(receptacle)

    def _can_slice(self, item: int) -> bool:
        armed = self._held >= 0 and self._item_types[self._held] in vocabulary.KNIVES
        # alfred.pddl asks only that the food is at the agent's location: a closed door does not protect it.
        return armed and self._places[item] == self._agent and self._item_types[item] in vocabulary.SLICEABLE

    def _can_treat(self, verb: str, item: int, receptacle: int) -> bool:
        appliance, kinds = TREATMENTS[verb]
        return self._receptacle_types[receptacle] == appliance and self._item_types[item] in kinds

    def _treat(self, verb: str, rest: str) -> tuple[int, str]:
        """Return the treated item (-1: not admissible) and the feedback."""
        item, here = self._item_and_place(rest, " with ")
        if item < 0 or item != self._held or here != self._agent or not self._can_treat(verb, item, here):
            return -1, NOTHING
        return item, f"You {verb} the {self._items[item]} using the {self._receptacles[here]}."

    def _item_and_place(self, rest: str, word: str) -> tuple[int, int]:
        """Parse "object<word>receptacle" into numbers; both are -3, which is nowhere, if one is unknown."""
        name, _, place = rest.partition(word)
        item, here = self._number_of_item.get(name, -3), self._number_of_receptacle.get(place, -3)
        return (item, here) if item >= 0 and here >= 0 else (-3, -3)

    def _treated(self, task_type: str) -> int:
        """Mask of the objects in the condition that a task type asks for."""
        masks = {CLEAN_THEN_PLACE: self._clean, HEAT_THEN_PLACE: self._hot, COOL_THEN_PLACE: self._cool}
        return masks.get(task_type, -1)

    # -- admissible commands --------------------------------------------------------------------------

    def _commands_here(self, here: int) -> list[str]:
        name = self._receptacles[here]
        commands = [f"examine {name}"]
        if self._openable[here]:
            commands.append(f"{'close' if self._opened >> here & 1 else 'open'} {name}")
        present = [item for item, place in enumerate(self._places) if place == here]
        commands += [f"use {self._items[item]}" for item in present if not self._portable(item)]
        if self._reachable(here) and self._held < 0:
            commands += [f"take {self._items[item]} from {name}" for item in present if self._portable(item)]
        return commands

    def _commands_in_hand(self, here: int) -> list[str]:
        held = self._held
        thing = self._items[held]
        commands = [f"examine {thing}"]
        if here == MIDDLE:
            return commands
        if self._accepts(here, held):
            commands.append(f"move {thing} to {self._receptacles[here]}")
        commands += [
            f"{verb} {thing} with {self._receptacles[here]}"
            for verb in TREATMENTS
            if self._can_treat(verb, held, here)
        ]
        if self._item_types[held] in vocabulary.KNIVES:
            commands += [
                f"slice {food} with {thing}" for item, food in enumerate(self._items) if self._can_slice(item)
            ]
        return commands

    # -- texts ----------------------------------------------------------------------------------------

    def _view(self, receptacle: int) -> str:
        name = self._receptacles[receptacle]
        if not self._reachable(receptacle):
            return f"The {name} is closed."
        things = listing(
            [self._items[item] for item, place in enumerate(self._places) if place == receptacle]
        )
        if self._openable[receptacle]:
            return f"The {name} is open. In it, you see {things}."
        return f"On the {name}, you see {things}."

    def _describe(self, item: int) -> str:
        """Word "examine (object)"; the order of the cases is that of ALFWorld's grammar."""
        name, kind = self._items[item], self._item_types[item]
        if kind in vocabulary.NESTING:
            return f"This is a normal {name}. In it, you see nothing."
        words = condition(
            hot=bool(self._hot >> item & 1),
            cool=bool(self._cool >> item & 1),
            clean=bool(self._clean >> item & 1),
            sliced=bool(self._sliced >> item & 1),
        )
        if words:
            return f"This is a {words} {name}."
        return f"There's nothing special about {name}."

    _ACTIONS: ClassVar[dict[str, Callable[[World, str], str]]] = {
        "look": _look,
        "inventory": _inventory,
        "help": _help,
        "go": _go,
        "open": _open,
        "close": _close,
        "take": _take,
        "move": _move,
        "heat": _heat,
        "clean": _wash,
        "cool": _cool_down,
        "use": _use,
        "slice": _slice,
        "examine": _examine,
    }
