"""ALFWorld's wording that depends on no state: errors, help and lists."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

NOTHING: Final = "Nothing happens."
HELP: Final = """\
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


def listing(names: Iterable[str]) -> str:
    """Word a list as ALFWorld does.

    >>> listing([]), listing(["mug 1"]), listing(["egg 1", "mug 2", "mug 1"])
    ('nothing', 'a mug 1', 'a egg 1, a mug 2, and a mug 1')
    """
    words = ["a " + name for name in names]
    if len(words) < 2:
        return words[0] if words else "nothing"
    return f"{', '.join(words[:-1])}, and {words[-1]}"


def overview(names: Iterable[str]) -> str:
    """Word the room as seen from its middle.

    >>> overview(["bed 1"])
    'You are in the middle of a room. Looking quickly around you, you see a bed 1.'
    """
    return f"You are in the middle of a room. Looking quickly around you, you see {listing(names)}."


def condition(*, hot: bool, cool: bool, clean: bool, sliced: bool) -> str:
    """Word the condition of an object for "This is a ... egg 1."; empty if there is nothing to say.

    >>> condition(hot=True, cool=False, clean=True, sliced=True)
    'hot and clean sliced'
    >>> condition(hot=False, cool=True, clean=False, sliced=False)
    'cold'
    """
    if cool and not clean and not sliced:
        return "cold"
    heat = "hot" if hot else "cool" if cool else ""
    words = " and ".join(word for word in (heat, "clean" if clean else "") if word)
    return f"{words} sliced".lstrip() if sliced else words
