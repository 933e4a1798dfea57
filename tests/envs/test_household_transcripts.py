"""Golden transcripts in the example house, word for word as ALFWorld's alfred.twl2 derives them."""

from __future__ import annotations

import pytest

from agentrl_envs.household import World
from agentrl_envs.household.examples import example_task
from agentrl_envs.household.tasks import (
    CLEAN_THEN_PLACE,
    COOL_THEN_PLACE,
    HEAT_THEN_PLACE,
    LOOK_AT_OBJECT,
    PICK_AND_PLACE,
    PLACE_TWO,
    TASK_TYPES,
)

ROOM = (
    "You are in the middle of a room. Looking quickly around you, you see a cabinet 1, a countertop 2, "
    "a countertop 1, a fridge 1, a microwave 1, a sidetable 1, and a sinkbasin 1."
)

HELP = """\
Available commands:
  look:                             look around your current location
  inventory:                        check your current inventory
  go to (receptacle):               move to a receptacle
  open (receptacle):                open a receptacle
  close (receptacle):               close a receptacle
  take (object) from (receptacle):  take an object from a receptacle
  move (object) to (receptacle):  place an object in or on a receptacle
  examine (something):              examine a receptacle or an object
  use (object):                     use an object
  heat (object) with (receptacle):  heat an object using a receptacle
  clean (object) with (receptacle): clean an object using a receptacle
  cool (object) with (receptacle):  cool an object using a receptacle
  slice (object) with (object):     slice an object using a sharp object
"""

SOLUTIONS = {
    PICK_AND_PLACE: """
> go to countertop 1
You arrive at countertop 1. On the countertop 1, you see a apple 1, and a mug 1.
> take mug 1 from countertop 1
You pick up the mug 1 from the countertop 1.
> go to sidetable 1
You arrive at sidetable 1. On the sidetable 1, you see a book 1, and a desklamp 1.
> move mug 1 to sidetable 1
You move the mug 1 to the sidetable 1.
""",
    LOOK_AT_OBJECT: """
> go to sidetable 1
You arrive at sidetable 1. On the sidetable 1, you see a book 1, and a desklamp 1.
> examine desklamp 1
Nothing happens.
> take book 1 from sidetable 1
You pick up the book 1 from the sidetable 1.
> use desklamp 1
You turn on the desklamp 1.
""",
    CLEAN_THEN_PLACE: """
> go to countertop 1
You arrive at countertop 1. On the countertop 1, you see a apple 1, and a mug 1.
> take apple 1 from countertop 1
You pick up the apple 1 from the countertop 1.
> go to sinkbasin 1
You arrive at sinkbasin 1. On the sinkbasin 1, you see nothing.
> clean apple 1 with sinkbasin 1
You clean the apple 1 using the sinkbasin 1.
> go to microwave 1
You arrive at microwave 1. The microwave 1 is closed.
> open microwave 1
You open the microwave 1. The microwave 1 is open. In it, you see nothing.
> move apple 1 to microwave 1
You move the apple 1 to the microwave 1.
""",
    HEAT_THEN_PLACE: """
> go to fridge 1
You arrive at fridge 1. The fridge 1 is closed.
> open fridge 1
You open the fridge 1. The fridge 1 is open. In it, you see a egg 1.
> take egg 1 from fridge 1
You pick up the egg 1 from the fridge 1.
> close fridge 1
You close the fridge 1.
> go to microwave 1
You arrive at microwave 1. The microwave 1 is closed.
> heat egg 1 with microwave 1
You heat the egg 1 using the microwave 1.
> go to countertop 2
You arrive at countertop 2. On the countertop 2, you see a knife 1.
> move egg 1 to countertop 2
You move the egg 1 to the countertop 2.
""",
    COOL_THEN_PLACE: """
> go to countertop 1
You arrive at countertop 1. On the countertop 1, you see a apple 1, and a mug 1.
> take mug 1 from countertop 1
You pick up the mug 1 from the countertop 1.
> go to fridge 1
You arrive at fridge 1. The fridge 1 is closed.
> cool mug 1 with fridge 1
You cool the mug 1 using the fridge 1.
> go to cabinet 1
You arrive at cabinet 1. The cabinet 1 is closed.
> open cabinet 1
You open the cabinet 1. The cabinet 1 is open. In it, you see a mug 2.
> move mug 1 to cabinet 1
You move the mug 1 to the cabinet 1.
""",
    PLACE_TWO: """
> go to countertop 1
You arrive at countertop 1. On the countertop 1, you see a apple 1, and a mug 1.
> take mug 1 from countertop 1
You pick up the mug 1 from the countertop 1.
> go to sidetable 1
You arrive at sidetable 1. On the sidetable 1, you see a book 1, and a desklamp 1.
> move mug 1 to sidetable 1
You move the mug 1 to the sidetable 1.
> go to cabinet 1
You arrive at cabinet 1. The cabinet 1 is closed.
> open cabinet 1
You open the cabinet 1. The cabinet 1 is open. In it, you see a mug 2.
> take mug 2 from cabinet 1
You pick up the mug 2 from the cabinet 1.
> go to sidetable 1
You arrive at sidetable 1. On the sidetable 1, you see a book 1, a desklamp 1, and a mug 1.
> move mug 2 to sidetable 1
You move the mug 2 to the sidetable 1.
""",
}

CHORES = """
> look
You are in the middle of a room. Looking quickly around you, you see nothing.
> inventory
You are not carrying anything.
> examine cabinet 1
Nothing happens.
> go to cabinet 1
You arrive at cabinet 1. The cabinet 1 is closed.
> go to cabinet 1
Nothing happens.
> look
You are facing the cabinet 1. Next to it, you see nothing.
> examine cabinet 1
The cabinet 1 is closed.
> examine mug 2
Nothing happens.
> take mug 2 from cabinet 1
Nothing happens.
> open cabinet 1
You open the cabinet 1. The cabinet 1 is open. In it, you see a mug 2.
> open cabinet 1
Nothing happens.
> examine mug 2
Nothing happens.
> take mug 2 from cabinet 1
You pick up the mug 2 from the cabinet 1.
> examine mug 2
This is a normal mug 2. In it, you see nothing.
> examine cabinet 1
The cabinet 1 is open. In it, you see nothing.
> inventory
You are carrying: a mug 2.
> close cabinet 1
You close the cabinet 1.
> close cabinet 1
Nothing happens.
> move mug 2 to cabinet 1
Nothing happens.
> go to sidetable 1
You arrive at sidetable 1. On the sidetable 1, you see a book 1, and a desklamp 1.
> take book 1 from sidetable 1
Nothing happens.
> move mug 2 to sidetable 1
You move the mug 2 to the sidetable 1.
> examine sidetable 1
On the sidetable 1, you see a book 1, a desklamp 1, and a mug 2.
> take desklamp 1 from sidetable 1
Nothing happens.
> examine book 1
Nothing happens.
> use book 1
Nothing happens.
> use desklamp 1
You turn on the desklamp 1.
> use desklamp 1
You turn on the desklamp 1.
> take book 1 from sidetable 1
You pick up the book 1 from the sidetable 1.
> examine book 1
There's nothing special about book 1.
"""

CONDITIONS = """
> go to countertop 2
You arrive at countertop 2. On the countertop 2, you see a knife 1.
> take knife 1 from countertop 2
You pick up the knife 1 from the countertop 2.
> slice apple 1 with knife 1
Nothing happens.
> go to countertop 1
You arrive at countertop 1. On the countertop 1, you see a apple 1, and a mug 1.
> examine apple 1
Nothing happens.
> slice mug 1 with knife 1
Nothing happens.
> slice apple 1 with knife 1
You sliced the apple 1 with the knife 1.
> move knife 1 to countertop 1
You move the knife 1 to the countertop 1.
> take apple 1 from countertop 1
You pick up the apple 1 from the countertop 1.
> examine apple 1
This is a sliced apple 1.
> heat apple 1 with microwave 1
Nothing happens.
> go to microwave 1
You arrive at microwave 1. The microwave 1 is closed.
> cool apple 1 with microwave 1
Nothing happens.
> heat apple 1 with microwave 1
You heat the apple 1 using the microwave 1.
> examine apple 1
This is a hot sliced apple 1.
> go to sinkbasin 1
You arrive at sinkbasin 1. On the sinkbasin 1, you see nothing.
> clean apple 1 with sinkbasin 1
You clean the apple 1 using the sinkbasin 1.
> examine apple 1
This is a hot and clean sliced apple 1.
> go to fridge 1
You arrive at fridge 1. The fridge 1 is closed.
> cool apple 1 with fridge 1
You cool the apple 1 using the fridge 1.
> examine apple 1
This is a cool and clean sliced apple 1.
> open fridge 1
You open the fridge 1. The fridge 1 is open. In it, you see a egg 1.
> move apple 1 to fridge 1
You move the apple 1 to the fridge 1.
> take egg 1 from fridge 1
You pick up the egg 1 from the fridge 1.
> cool egg 1 with fridge 1
You cool the egg 1 using the fridge 1.
> examine egg 1
This is a cold egg 1.
> go to sinkbasin 1
You arrive at sinkbasin 1. On the sinkbasin 1, you see nothing.
> clean egg 1 with sinkbasin 1
You clean the egg 1 using the sinkbasin 1.
> examine egg 1
This is a cool and clean egg 1.
> go to microwave 1
You arrive at microwave 1. The microwave 1 is closed.
> heat egg 1 with microwave 1
You heat the egg 1 using the microwave 1.
> examine egg 1
This is a hot and clean egg 1.
"""


def played(world: World, transcript: str) -> str:
    """Execute the commands of a transcript and write down what came back."""
    commands = [line[2:] for line in transcript.splitlines() if line.startswith("> ")]
    return "\n" + "".join(f"> {command}\n{world.do(command)}\n" for command in commands)


@pytest.mark.parametrize("task_type", TASK_TYPES)
def test_solutions_word_for_word(task_type: str) -> None:
    world = World(example_task(task_type))
    transcript = SOLUTIONS[task_type]
    assert not world.won()
    assert played(world, transcript) == transcript
    assert world.won()


@pytest.mark.parametrize("task_type", TASK_TYPES)
def test_only_the_last_command_of_a_solution_wins(task_type: str) -> None:
    world = World(example_task(task_type))
    commands = [line[2:] for line in SOLUTIONS[task_type].splitlines() if line.startswith("> ")]
    wins: list[bool] = []
    for command in commands:
        world.do(command)
        wins.append(world.won())
    assert wins == [False] * (len(commands) - 1) + [True]


def test_chores_word_for_word() -> None:
    assert played(World(example_task()), CHORES) == CHORES


def test_conditions_word_for_word() -> None:
    assert played(World(example_task(PICK_AND_PLACE)), CONDITIONS) == CONDITIONS


def test_help_word_for_word() -> None:
    assert World(example_task()).do("help") == HELP


@pytest.mark.parametrize(
    ("task_type", "first", "second"),
    [
        (PICK_AND_PLACE, "put a mug in sidetable", "put some mug on sidetable"),
        (LOOK_AT_OBJECT, "look at book under the desklamp", "examine the book with the desklamp"),
        (CLEAN_THEN_PLACE, "put a clean apple in microwave", "clean some apple and put it in microwave"),
        (HEAT_THEN_PLACE, "put a hot egg in countertop", "heat some egg and put it in countertop"),
        (COOL_THEN_PLACE, "put a cool mug in cabinet", "cool some mug and put it in cabinet"),
        (PLACE_TWO, "put two mug in sidetable", "find two mug and put them in sidetable"),
    ],
)
def test_intro_word_for_word(task_type: str, first: str, second: str) -> None:
    for template, sentence in enumerate((first, second)):
        intro = World(example_task(task_type, template)).intro()
        assert intro == f"-= Welcome to TextWorld, ALFRED! =-\n\n{ROOM}\n\nYour task is to: {sentence}."
