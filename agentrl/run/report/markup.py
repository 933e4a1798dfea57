"""Writing HTML and SVG: every text and attribute goes through `escape`, every datum through `embed_json`.

Trajectories are written by models and environments and are hostile until shown otherwise.
"""

from __future__ import annotations

import html
import json
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_UNSEEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)
_IN_SCRIPT = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


class Markup(str):
    """Text that is already markup; everything else is escaped when it is put into an element."""

    __slots__ = ()


def escape(content: object) -> Markup:
    """Return text that reads as itself in an element or an attribute; unseen characters become visible.

    >>> escape('<script>"&')
    '&lt;script&gt;&quot;&amp;'
    """
    if isinstance(content, Markup):
        return content
    return Markup(html.escape(_UNSEEN.sub(_name_character, str(content)), quote=True))


def _name_character(match: re.Match[str]) -> str:
    return f"\N{SYMBOL FOR SUBSTITUTE}{ord(match.group()):04x}"


def element(tag: str, *children: object, **attributes: object) -> Markup:
    """Return an element. Attributes are written `class_="x"`, `data_anchor=3`; None and False leave one out.

    >>> element("p", "a < b", class_="note")
    '<p class="note">a &lt; b</p>'
    """
    inner = "".join(escape(child) for child in children if child is not None)
    return Markup(f"<{tag}{_attributes(attributes)}>{inner}</{tag}>")


def void(tag: str, **attributes: object) -> Markup:
    """Return an element without content, such as `input`."""
    return Markup(f"<{tag}{_attributes(attributes)}>")


def join(parts: Iterable[object]) -> Markup:
    """Return the parts one after the other."""
    return Markup("".join(escape(part) for part in parts))


def _attributes(attributes: dict[str, object]) -> str:
    written: list[str] = []
    for name, value in attributes.items():
        if value is None or value is False:
            continue
        key = name.rstrip("_").replace("_", "-")
        written.append(f" {key}" if value is True else f' {key}="{escape(value)}"')
    return "".join(written)


def embed_json(value: object) -> Markup:
    r"""Return JSON that cannot end or open a tag inside a script element.

    >>> embed_json("</script>")
    '"\\u003c/script\\u003e"'
    """
    plain = json.dumps(value, allow_nan=False)
    return Markup("".join(_IN_SCRIPT.get(character, character) for character in plain))


def clip(content: str, limit: int = 6000) -> str:
    """Return a long text cut, saying by how much."""
    if len(content) <= limit:
        return content
    return f"{content[:limit]} … ({len(content) - limit:,} more characters)"


def details(title: object, *children: object, open_: bool = False) -> Markup:
    """Return a folded part of the page."""
    return element("details", element("summary", title), *children, class_="fold", open=open_)


def definitions(pairs: Iterable[tuple[str, object]]) -> Markup:
    """Return a two-column table of names and values."""
    rows = [element("tr", element("th", name, scope="row"), element("td", value)) for name, value in pairs]
    return element("div", element("table", join(rows), class_="pairs"), class_="scroll")
