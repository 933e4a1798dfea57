"""What exists in a household: rooms, receptacle types, object types and what fits where.

The names are ALFWorld's; the tables of rooms and homes are our own common-sense ones. Everything here is
constant and shared by simulator, task generator and expert, so it tells nothing about a single task.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


KITCHEN: Final = "kitchen"
LIVINGROOM: Final = "livingroom"
BEDROOM: Final = "bedroom"
BATHROOM: Final = "bathroom"
ROOMS: Final = (KITCHEN, LIVINGROOM, BEDROOM, BATHROOM)

OPENABLE: Final = frozenset(_words("cabinet drawer fridge microwave safe"))
LAMPS: Final = ("desklamp", "floorlamp")
KNIVES: Final = frozenset(_words("butterknife knife"))

HEATABLE: Final = frozenset(_words("apple bread cup egg mug plate potato tomato"))
COOLABLE: Final = frozenset(
    _words("apple bowl bread cup egg lettuce mug pan plate pot potato tomato winebottle")
)
CLEANABLE: Final = frozenset(
    _words(
        "apple bowl butterknife cloth cup dishsponge egg fork kettle knife ladle lettuce mug pan "
        "plate pot potato soapbar spatula spoon tomato"
    )
)
SLICEABLE: Final = frozenset(_words("apple bread egg lettuce potato tomato"))
NESTING: Final = frozenset(_words("bowl box cup mug pan plate pot"))
"""Objects that could hold another one; examining them reads "This is a normal ..."."""

ROOM_RECEPTACLES: Final[Mapping[str, Mapping[str, int]]] = MappingProxyType(
    {
        KITCHEN: {
            "cabinet": 6,
            "coffeemachine": 2,
            "countertop": 4,
            "diningtable": 3,
            "drawer": 5,
            "fridge": 1,
            "garbagecan": 2,
            "microwave": 1,
            "shelf": 2,
            "sinkbasin": 1,
            "stoveburner": 3,
            "toaster": 1,
        },
        LIVINGROOM: {
            "armchair": 3,
            "cabinet": 3,
            "coffeetable": 3,
            "diningtable": 2,
            "drawer": 5,
            "dresser": 2,
            "garbagecan": 2,
            "ottoman": 1,
            "safe": 2,
            "shelf": 4,
            "sidetable": 4,
            "sofa": 3,
            "tvstand": 2,
        },
        BEDROOM: {
            "armchair": 2,
            "bed": 3,
            "cabinet": 2,
            "desk": 3,
            "drawer": 6,
            "dresser": 2,
            "garbagecan": 2,
            "laundryhamper": 2,
            "safe": 2,
            "shelf": 4,
            "sidetable": 4,
        },
        BATHROOM: {
            "bathtubbasin": 2,
            "cabinet": 6,
            "cart": 2,
            "countertop": 3,
            "drawer": 5,
            "garbagecan": 2,
            "handtowelholder": 2,
            "shelf": 3,
            "sinkbasin": 2,
            "toilet": 2,
            "toiletpaperhanger": 2,
            "towelholder": 2,
        },
    }
)
"""Room -> receptacle type -> how readily a layout draws another one of it."""

ROOM_CORE: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        KITCHEN: ("fridge", "microwave", "sinkbasin"),
        LIVINGROOM: ("sidetable",),
        BEDROOM: ("desk",),
        BATHROOM: ("sinkbasin",),
    }
)
"""Receptacle types that every layout of a room has, so that each of its task types can be set."""

UNIQUE: Final = frozenset(
    _words(
        "bathtubbasin cart coffeemachine fridge laundryhamper microwave ottoman safe toaster toilet tvstand"
    )
)
"""Receptacle types of which a room has at most one."""

ROOM_OBJECTS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        KITCHEN: _words(
            "apple mug egg plate potato pan spoon bowl tomato cup lettuce fork bread pot knife "
            "dishsponge saltshaker peppershaker soapbottle butterknife kettle ladle spatula winebottle "
            "glassbottle vase creditcard"
        ),
        LIVINGROOM: _words(
            "book remotecontrol pillow keychain laptop vase newspaper box creditcard cellphone statue "
            "tissuebox watch wateringcan pen pencil plate"
        ),
        BEDROOM: _words(
            "book cellphone alarmclock cd pillow laptop pen mug keychain creditcard pencil bowl "
            "teddybear box cloth vase basketball baseballbat tennisracket"
        ),
        BATHROOM: _words(
            "soapbar cloth toiletpaper soapbottle candle spraybottle handtowel towel tissuebox "
            "dishsponge scrubbrush plunger"
        ),
    }
)
"""Room -> portable object types, the commonest first (a small setting takes a prefix)."""

LAMP_ROOMS: Final = frozenset({LIVINGROOM, BEDROOM})

_SURFACES: Final = "countertop diningtable shelf sidetable coffeetable desk dresser"
_TABLEWARE: Final = (
    "countertop diningtable sinkbasin cabinet shelf fridge microwave sidetable coffeetable desk"
)
_FOOD: Final = "countertop diningtable sinkbasin fridge microwave garbagecan"
_CUTLERY: Final = "countertop diningtable drawer sinkbasin sidetable"
_COOKWARE: Final = "stoveburner countertop diningtable sinkbasin cabinet fridge"
_SMALL: Final = f"{_SURFACES} drawer tvstand sofa armchair bed"
_WASHROOM: Final = "countertop cabinet drawer shelf cart bathtubbasin garbagecan"
_HOMES: Final = {
    "alarmclock": "desk dresser shelf sidetable drawer bed",
    "apple": _FOOD,
    "baseballbat": "bed desk sidetable dresser armchair",
    "basketball": "bed desk sidetable armchair dresser",
    "book": f"{_SURFACES} drawer cabinet bed sofa armchair tvstand",
    "bowl": _TABLEWARE,
    "box": "sidetable coffeetable diningtable desk dresser sofa armchair bed ottoman cabinet tvstand",
    "bread": f"{_FOOD} toaster",
    "butterknife": _CUTLERY,
    "candle": "countertop cabinet drawer shelf sidetable bathtubbasin toilet cart coffeetable dresser",
    "cd": "desk drawer shelf sidetable dresser safe garbagecan bed",
    "cellphone": f"{_SMALL} safe",
    "cloth": f"{_WASHROOM} sinkbasin laundryhamper bed dresser",
    "creditcard": f"{_SMALL} safe cabinet",
    "cup": f"{_TABLEWARE} coffeemachine",
    "desklamp": "desk dresser sidetable shelf coffeetable diningtable tvstand",
    "dishsponge": "countertop sinkbasin drawer cabinet bathtubbasin cart shelf garbagecan",
    "egg": _FOOD,
    "floorlamp": "sidetable desk dresser coffeetable diningtable tvstand",
    "fork": _CUTLERY,
    "glassbottle": "countertop diningtable cabinet fridge shelf garbagecan",
    "handtowel": "handtowelholder countertop sinkbasin bathtubbasin cabinet",
    "kettle": "stoveburner countertop diningtable cabinet sinkbasin shelf",
    "keychain": f"{_SMALL} safe ottoman",
    "knife": _CUTLERY,
    "ladle": f"{_CUTLERY} cabinet",
    "laptop": "desk bed sofa armchair coffeetable diningtable sidetable ottoman dresser tvstand",
    "lettuce": _FOOD,
    "mug": f"{_TABLEWARE} coffeemachine",
    "newspaper": "sofa armchair coffeetable diningtable sidetable drawer ottoman garbagecan tvstand cabinet",
    "pan": _COOKWARE,
    "pen": f"{_SMALL} garbagecan",
    "pencil": f"{_SMALL} garbagecan",
    "peppershaker": "countertop diningtable drawer cabinet shelf",
    "pillow": "sofa armchair bed ottoman",
    "plate": _TABLEWARE,
    "plunger": "cabinet toilet sinkbasin bathtubbasin cart",
    "pot": _COOKWARE,
    "potato": _FOOD,
    "remotecontrol": "sofa armchair coffeetable diningtable sidetable drawer ottoman dresser tvstand",
    "saltshaker": "countertop diningtable drawer cabinet shelf",
    "scrubbrush": "cabinet toilet sinkbasin countertop bathtubbasin cart",
    "soapbar": "countertop sinkbasin bathtubbasin cabinet drawer shelf toilet cart garbagecan",
    "soapbottle": "countertop sinkbasin cabinet drawer shelf toilet bathtubbasin cart garbagecan",
    "spatula": _CUTLERY,
    "spoon": _CUTLERY,
    "spraybottle": "countertop cabinet toilet cart shelf drawer garbagecan",
    "statue": "shelf sidetable coffeetable diningtable dresser tvstand desk safe",
    "teddybear": "bed sofa armchair desk dresser",
    "tennisracket": "bed desk sidetable dresser armchair",
    "tissuebox": f"{_WASHROOM} toilet sidetable coffeetable dresser diningtable",
    "toiletpaper": "toiletpaperhanger toilet countertop cabinet drawer shelf cart garbagecan bathtubbasin",
    "tomato": _FOOD,
    "towel": "towelholder bathtubbasin cabinet countertop",
    "vase": "shelf sidetable coffeetable diningtable countertop dresser cabinet desk safe tvstand",
    "watch": f"{_SMALL} safe",
    "wateringcan": "shelf sidetable coffeetable diningtable countertop drawer tvstand",
    "winebottle": "countertop diningtable cabinet fridge garbagecan",
}
HOMES: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {kind: frozenset(places.split()) for kind, places in _HOMES.items()}
)
"""Object type -> the receptacle types that can contain it (ALFWorld's canContain)."""


def type_of(name: str) -> str:
    """Return the type in an instance name.

    >>> type_of("countertop 2")
    'countertop'
    """
    return name.rpartition(" ")[0]


def can_contain(receptacle_type: str, object_type: str) -> bool:
    """Say whether an object of this type may lie in a receptacle of that type."""
    return receptacle_type in HOMES[object_type]
