"""The rules of alfred.pddl, one by one, and the winning conditions."""

from __future__ import annotations

import pytest

from agentrl_envs.household import Goal, House, Task, World
from agentrl_envs.household.examples import example_task
from agentrl_envs.household.language import NOTHING
from agentrl_envs.household.tasks import (
    CLEAN_THEN_PLACE,
    COOL_THEN_PLACE,
    HEAT_THEN_PLACE,
    LOOK_AT_OBJECT,
    PICK_AND_PLACE,
    PLACE_TWO,
)


def after(world: World, *commands: str) -> World:
    """Execute commands, each of which must be admissible."""
    for command in commands:
        assert command in world.admissible(), command
        assert world.do(command) != NOTHING, command
    return world


def refuses(world: World, command: str) -> bool:
    """Whether a command is refused in every way: text, list, state."""
    before = world.state_key()
    listed = command in world.admissible()
    return world.do(command) == NOTHING and not listed and world.state_key() == before


@pytest.mark.parametrize(
    "command",
    [
        "",
        " ",
        "dance",
        "go",
        "go to",
        "go to ",
        "go fridge 1",
        "go to fridge",
        "go to fridge 2",
        "Go to fridge 1",
        "go to  fridge 1",
        "go to apple 1",
        "look around",
        "inventory now",
        "help me",
        "open cabinet 1",
        "open apple 1",
        "take apple 1",
        "take apple 1 from countertop 1",
        "take apple 1 from nowhere 1",
        "take nothing 1 from countertop 1",
        "take  from ",
        "move apple 1 to countertop 1",
        "move  to ",
        "put apple 1 in/on countertop 1",
        "use desklamp 1",
        "use",
        "heat egg 1 with microwave 1",
        "heat  with ",
        "slice apple 1 with knife 1",
        "slice apple 1 with ",
        "slice  with ",
        "examine",
        "examine apple 1",
        "examine fridge 1",
        "go to fridge 1\nopen fridge 1",
        "déjà vu",
    ],
)
def test_what_is_not_admissible_changes_nothing(command: str) -> None:
    assert refuses(World(example_task()), command)


def test_spaces_around_a_command_do_not_matter() -> None:
    assert World(example_task()).do("  go to fridge 1\n").startswith("You arrive at fridge 1.")


def test_one_object_in_hand() -> None:
    world = after(World(example_task()), "go to countertop 1", "take apple 1 from countertop 1")
    assert refuses(world, "take mug 1 from countertop 1")
    after(world, "move apple 1 to countertop 1", "take mug 1 from countertop 1")


def test_doors_hide_and_protect_their_contents() -> None:
    world = after(World(example_task()), "go to fridge 1")
    assert refuses(world, "take egg 1 from fridge 1")
    after(world, "open fridge 1", "take egg 1 from fridge 1", "move egg 1 to fridge 1", "close fridge 1")
    assert refuses(world, "take egg 1 from fridge 1")


def test_only_what_is_held_can_be_examined() -> None:
    """ALFWorld's engine, not its intention: see the oracle."""
    world = after(World(example_task()), "go to countertop 1")
    assert refuses(world, "examine apple 1")
    after(world, "take apple 1 from countertop 1", "examine apple 1", "go to fridge 1", "examine apple 1")


def test_objects_go_only_where_their_type_fits() -> None:
    world = after(
        World(example_task()), "go to sidetable 1", "take book 1 from sidetable 1", "go to sinkbasin 1"
    )
    assert refuses(world, "move book 1 to sinkbasin 1")


def test_one_cannot_act_on_another_place() -> None:
    world = after(World(example_task()), "go to fridge 1", "open fridge 1", "go to countertop 1")
    for command in ("close fridge 1", "take egg 1 from fridge 1", "examine fridge 1", "use desklamp 1"):
        assert refuses(world, command)


@pytest.mark.parametrize("is_open", [False, True])
def test_treating_needs_only_the_place_and_the_object_in_hand(is_open: bool) -> None:
    world = after(World(example_task()), "go to countertop 1", "take mug 1 from countertop 1")
    for verb, place in (("heat", "microwave 1"), ("cool", "fridge 1")):
        after(world, f"go to {place}", *([f"open {place}"] if is_open else []))
        after(world, f"{verb} mug 1 with {place}")
        assert world.do("inventory") == "You are carrying: a mug 1."


@pytest.mark.parametrize(
    ("thing", "place", "command"),
    [
        ("book 1", "microwave 1", "heat book 1 with microwave 1"),
        ("book 1", "fridge 1", "cool book 1 with fridge 1"),
        ("book 1", "sinkbasin 1", "clean book 1 with sinkbasin 1"),
        ("knife 1", "microwave 1", "heat knife 1 with microwave 1"),
        ("knife 1", "fridge 1", "clean knife 1 with fridge 1"),
    ],
)
def test_treating_needs_the_right_object_and_appliance(thing: str, place: str, command: str) -> None:
    start = {"book 1": "sidetable 1", "knife 1": "countertop 2"}[thing]
    world = after(World(example_task()), f"go to {start}", f"take {thing} from {start}", f"go to {place}")
    assert refuses(world, command)


def test_treating_needs_the_object_in_hand() -> None:
    world = after(
        World(example_task()),
        "go to countertop 1",
        "take apple 1 from countertop 1",
        "go to sinkbasin 1",
        "move apple 1 to sinkbasin 1",
    )
    assert refuses(world, "clean apple 1 with sinkbasin 1")


def test_heating_undoes_cooling_and_the_other_way_round() -> None:
    world = after(World(example_task()), "go to fridge 1", "open fridge 1", "take egg 1 from fridge 1")
    after(world, "cool egg 1 with fridge 1")
    assert (bool(world.state_key().hot), bool(world.state_key().cool)) == (False, True)
    after(world, "go to microwave 1", "heat egg 1 with microwave 1")
    assert (bool(world.state_key().hot), bool(world.state_key().cool)) == (True, False)
    after(world, "go to fridge 1", "cool egg 1 with fridge 1")
    assert (bool(world.state_key().hot), bool(world.state_key().cool)) == (False, True)


def test_slicing_needs_a_knife_in_hand_and_food_at_hand_even_behind_a_door() -> None:
    world = after(World(example_task()), "go to countertop 2")
    assert refuses(world, "slice apple 1 with knife 1")
    after(world, "take knife 1 from countertop 2", "go to fridge 1", "slice egg 1 with knife 1")
    assert refuses(world, "slice egg 1 with mug 1")
    assert refuses(world, "slice apple 1 with knife 1")


def test_lamps_stay_on_and_stay_put() -> None:
    world = after(World(example_task()), "go to sidetable 1", "use desklamp 1")
    state = world.state_key()
    after(world, "use desklamp 1")
    assert world.state_key() == state
    assert refuses(world, "take desklamp 1 from sidetable 1")


# -- winning ------------------------------------------------------------------------------------------


def test_the_lamp_must_be_lit_here_with_the_object_in_hand() -> None:
    world = after(World(example_task(LOOK_AT_OBJECT)), "go to sidetable 1", "use desklamp 1")
    assert not world.won()
    after(world, "take book 1 from sidetable 1")
    assert world.won()
    after(world, "go to fridge 1")
    assert not world.won()
    after(world, "go to sidetable 1")
    assert world.won()
    after(world, "move book 1 to sidetable 1")
    assert not world.won()


def test_an_object_in_hand_is_not_placed_and_an_open_door_does_not_matter() -> None:
    task = Task(
        House("kitchen", ("cabinet 1", "countertop 1"), ("mug 1",)),
        (1,),
        Goal(PICK_AND_PLACE, "mug", "cabinet"),
    )
    world = after(World(task), "go to countertop 1", "take mug 1 from countertop 1", "go to cabinet 1")
    assert not world.won()
    after(world, "open cabinet 1", "move mug 1 to cabinet 1")
    assert world.won()


@pytest.mark.parametrize(
    ("task_type", "verb", "place"),
    [
        (HEAT_THEN_PLACE, "heat", "microwave 1"),
        (COOL_THEN_PLACE, "cool", "fridge 1"),
        (CLEAN_THEN_PLACE, "clean", "sinkbasin 1"),
    ],
)
def test_a_treated_object_must_be_in_place_and_treated(task_type: str, verb: str, place: str) -> None:
    start = example_task()
    world = World(Task(start.house, start.placement, Goal(task_type, "mug", "sidetable")))
    after(world, "go to countertop 1", "take mug 1 from countertop 1", "go to sidetable 1")
    after(world, "move mug 1 to sidetable 1")
    assert not world.won()
    after(world, "take mug 1 from sidetable 1", f"go to {place}", f"{verb} mug 1 with {place}")
    assert not world.won()
    after(world, "go to sidetable 1", "move mug 1 to sidetable 1")
    assert world.won()


def test_another_treated_object_does_not_count() -> None:
    start = example_task()
    world = World(Task(start.house, start.placement, Goal(HEAT_THEN_PLACE, "egg", "sidetable")))
    after(world, "go to countertop 1", "take mug 1 from countertop 1", "go to microwave 1")
    after(world, "heat mug 1 with microwave 1", "go to sidetable 1", "move mug 1 to sidetable 1")
    assert not world.won()


def test_two_objects_must_be_different_and_in_one_receptacle() -> None:
    # ALFWorld's formula binds one ?r for both objects: two mugs on two countertops do not win.
    house = House("kitchen", ("countertop 2", "countertop 1", "sidetable 1"), ("mug 2", "mug 1"))
    world = World(Task(house, (2, 2), Goal(PLACE_TWO, "mug", "countertop")))
    after(world, "go to sidetable 1", "take mug 1 from sidetable 1", "go to countertop 1")
    assert world.goal_conditions() == 0
    after(world, "move mug 1 to countertop 1")
    assert not world.won()
    assert world.goal_conditions() == 1 / 2
    after(world, "go to sidetable 1", "take mug 2 from sidetable 1", "go to countertop 2")
    after(world, "move mug 2 to countertop 2")
    assert not world.won()
    assert world.goal_conditions() == 1 / 2
    after(world, "take mug 2 from countertop 2", "go to countertop 1", "move mug 2 to countertop 1")
    assert world.won()
    assert world.goal_conditions() == 1


def test_undoing_a_step_takes_its_condition_back() -> None:
    house = House("kitchen", ("countertop 1", "sidetable 1"), ("mug 2", "mug 1"))
    world = World(Task(house, (0, 1), Goal(PLACE_TWO, "mug", "countertop")))
    assert world.goal_conditions() == 1 / 2
    after(world, "go to countertop 1", "take mug 2 from countertop 1")
    assert world.goal_conditions() == 0


def test_treatment_and_place_count_each_and_together() -> None:
    house = House("kitchen", ("countertop 1", "sidetable 1", "sinkbasin 1"), ("mug 2", "mug 1"))
    world = World(Task(house, (0, 1), Goal(CLEAN_THEN_PLACE, "mug", "countertop")))
    assert world.goal_conditions() == pytest.approx(1 / 3)  # one mug lies there, and is not clean
    after(world, "go to sidetable 1", "take mug 1 from sidetable 1", "go to sinkbasin 1")
    after(world, "clean mug 1 with sinkbasin 1")
    assert world.goal_conditions() == pytest.approx(2 / 3)  # the other one is clean, and does not lie there
    assert not world.won()
    after(world, "go to countertop 1", "move mug 1 to countertop 1")
    assert world.goal_conditions() == 1
    assert world.won()


def test_looking_needs_the_object_and_the_light() -> None:
    house = House("bedroom", ("bed 1", "desk 1"), ("book 1", "desklamp 1"))
    world = World(Task(house, (0, 1), Goal(LOOK_AT_OBJECT, "book", "desklamp")))
    after(world, "go to bed 1", "take book 1 from bed 1")
    assert world.goal_conditions() == 1 / 2
    after(world, "go to desk 1", "use desklamp 1")
    assert world.goal_conditions() == 1
    assert world.won()


def test_every_object_of_the_type_will_do() -> None:
    world = after(World(example_task(PICK_AND_PLACE)), "go to cabinet 1", "open cabinet 1")
    after(world, "take mug 2 from cabinet 1", "go to sidetable 1", "move mug 2 to sidetable 1")
    assert world.won()


def test_admissible_list_of_a_known_state() -> None:
    world = after(
        World(example_task()), "go to countertop 2", "take knife 1 from countertop 2", "go to countertop 1"
    )
    assert world.admissible() == [
        "examine countertop 1",
        "examine knife 1",
        "go to cabinet 1",
        "go to countertop 2",
        "go to fridge 1",
        "go to microwave 1",
        "go to sidetable 1",
        "go to sinkbasin 1",
        "help",
        "inventory",
        "look",
        "move knife 1 to countertop 1",
        "slice apple 1 with knife 1",
    ]
