"""Whole trajectories to read: every turn with its advantage, and its anchor group in colour.

Turns that started from the same state carry the same colour within a group; a click on a colour shows its
turns in all trajectories of the group.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agentrl.run.report.data import JsonObject, count, mapping, number, objects, text
from agentrl.run.report.markup import Markup, clip, details, element, join

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

COLOURS = 8


@dataclass(frozen=True, slots=True)
class Group:
    """Trajectories that started equal, and the numbers 1, 2, ... of the anchors that they share."""

    index: int
    members: tuple[JsonObject, ...]
    anchors: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Visit:
    """One turn of one member, as it is seen from its anchor."""

    member: str
    turn: int
    row: JsonObject


def transcripts(samples: Iterable[JsonObject]) -> Markup:
    """Return every group of trajectories, the first one unfolded."""
    gathered: dict[tuple[str, ...], list[JsonObject]] = {}
    for sample in samples:
        key = tuple(text(sample.get(name)) for name in ("seed", "step", "group"))
        gathered.setdefault(key, []).append(sample)
    groups = [make_group(index, members) for index, members in enumerate(gathered.values())]
    strongest = max((abs(value) for group in groups for value in _advantages(group)), default=0.0)
    return join(_group(group, strongest or 1.0) for group in groups)


def make_group(index: int, members: Sequence[JsonObject]) -> Group:
    """Number the anchors of a group in the order in which a reader meets them; lone turns get no number."""
    visited: dict[str, int] = {}
    for member in members:
        for turn in objects(member.get("turns")):
            key = text(turn.get("anchor"))
            visited[key] = visited.get(key, 0) + max(1, count(turn.get("anchor_size")) or 1)
    shared = [key for key, visits in visited.items() if key and visits > 1]
    return Group(index, tuple(members), {key: place for place, key in enumerate(shared, start=1)})


def _advantages(group: Group) -> Iterable[float]:
    for member in group.members:
        for turn in objects(member.get("turns")):
            yield number(turn.get("advantage")) or 0.0


def _group(group: Group, strongest: float) -> Markup:
    first = group.members[0]
    step = count(first.get("step"))
    notes = [
        text(first.get("task_type")),
        "" if step is None else f"step {step}",
        f"{len(group.members)} trajectories" if len(group.members) > 1 else "1 trajectory",
    ]
    title = join(
        [
            element("b", clip(text(first.get("task")) or "unnamed task", 240)),
            element("small", " · ".join(note for note in notes if note)),
        ]
    )
    members = [_member(group, member, place, strongest) for place, member in enumerate(group.members)]
    body = element("div", join(members), class_="members")
    return element(
        "section", details(title, _anchor_table(group), body, open_=group.index == 0), class_="group"
    )


def _member(group: Group, member: JsonObject, place: int, strongest: float) -> Markup:
    rows = list(objects(member.get("turns")))
    turns = [_turn(group, turn, index, strongest) for index, turn in enumerate(rows, start=1)]
    final = text(member.get("final_observation"))
    if final:
        turns.append(
            element("li", element("div", clip(final), class_="observation", dir="auto"), class_="turn")
        )
    stop, reward = text(member.get("stop")), number(member.get("reward"))
    tier = text(member.get("sandbox_tier"))
    ending = [
        *_beginning(member),
        f"stopped: {stop.replace('_', ' ')}" if stop else "",
        "" if reward is None else f"reward {reward:g}",
        f"sandbox {tier}" if tier else "",
    ]
    heading = element(
        "header",
        element("h4", _member_name(member, place)),
        _outcome(member.get("success")),
        element("small", " · ".join(note for note in [f"{len(rows)} turns", *ending] if note)),
    )
    return element(
        "article", heading, element("ol", join(turns), tabindex=0, aria_label="turns"), class_="member"
    )


def _beginning(member: JsonObject) -> list[str]:
    """Where a branch left its parent, whose turns are learnt there; how far the expert played."""
    parent, turn, hinted = (count(member.get(name)) for name in ("parent", "branch_turn", "hint_level"))
    notes = [] if parent is None else [f"turns 1 to {turn} shared with member {parent}"] if turn else []
    return [*notes, f"{hinted} turns by the expert"] if hinted else notes


def _member_name(member: JsonObject, place: int) -> str:
    given = count(member.get("member"))
    return f"Member {place if given is None else given}"


def _outcome(success: object) -> Markup:
    if success is None:
        return Markup()
    won = success is True or (number(success) or 0.0) >= 1
    return element("span", "success" if won else "failure", class_=f"chip {'good' if won else 'bad'}")


def _turn(group: Group, turn: JsonObject, index: int, strongest: float) -> Markup:
    anchor = group.anchors.get(text(turn.get("anchor")))
    head = element(
        "div",
        element("span", index, class_="turn-number"),
        None if anchor is None else _tag(group, anchor, count(turn.get("anchor_size"))),
        _flags(turn),
        _advantage(turn, strongest),
        class_="turn-head",
    )
    return element(
        "li",
        head,
        element("div", clip(text(turn.get("observation"))), class_="observation", dir="auto"),
        _said(turn),
        element("p", _turn_numbers(turn), class_="note"),
        class_="turn",
        data_anchor=None if anchor is None else _anchor_id(group, anchor),
    )


def _said(turn: JsonObject) -> Markup:
    written, action = text(turn.get("text")).strip(), text(turn.get("action")).strip()
    if action and action == written:
        return element("pre", clip(action), class_="action", dir="auto")
    parts = [element("pre", clip(written), class_="written", dir="auto") if written else None]
    parts.append(element("pre", clip(action), class_="action", dir="auto") if action else None)
    return join(part for part in parts if part)


def _turn_numbers(turn: JsonObject) -> str:
    parts = mapping(turn.get("advantage_parts"))
    known = [f"{name} {signed(value)}" for name in parts if (value := number(parts[name])) is not None]
    reward, tokens, logprob = (number(turn.get(name)) for name in ("reward", "tokens", "logprob"))
    known += [f"reward {reward:g}"] if reward else []
    known += [f"{tokens:.0f} tokens"] if tokens is not None else []
    known += [f"log-prob\N{NO-BREAK SPACE}{signed(logprob)}"] if logprob is not None else []
    return " · ".join(known)


def _flags(turn: JsonObject) -> Markup:
    kind = text(turn.get("kind"))
    flags = [kind.replace("_", " ")] if kind not in {"", "ok"} else []
    flags += ["not accepted"] if turn.get("valid") is False else []
    return join(element("span", flag, class_="chip bad") for flag in flags)


def _tag(group: Group, anchor: int, size: int | None) -> Markup:
    members = f" × {size}" if size else ""
    return element(
        "button",
        f"state {anchor}{members}",
        type="button",
        class_=f"tag tag-{(anchor - 1) % COLOURS}",
        data_shows=_anchor_id(group, anchor),
        aria_pressed="false",
        title="Show every turn that started from this state",
    )


def _anchor_id(group: Group, anchor: int) -> str:
    return f"g{group.index}-{anchor}"


def signed(value: float) -> str:
    """Write a number with its sign.

    >>> signed(0.5), signed(-1.25), signed(0.0)
    ('+0.50', '−1.25', '0.00')
    """
    return f"{value:+.2f}".replace("-", "−") if round(value, 2) else "0.00"


def _advantage(turn: JsonObject, strongest: float) -> Markup:
    value = number(turn.get("advantage"))
    if value is None:
        return Markup()
    width = 50 * min(1.0, abs(value) / strongest)
    bar = element(
        "rect",
        x=f"{50 - width if value < 0 else 50:.1f}%",
        y=2,
        width=f"{width:.1f}%",
        height=8,
        class_="down" if value < 0 else "up",
    )
    zero = element("rect", x="50%", y=0, width=1, height=12, class_="zero")
    drawing = element("svg", bar, zero, width=72, height=12, aria_hidden="true")
    return element(
        "span", drawing, element("span", signed(value)), class_="advantage", title="advantage of this turn"
    )


def _anchor_table(group: Group) -> Markup:
    """Same state, different actions: what each action was worth."""
    visits: dict[int, list[Visit]] = {}
    for place, member in enumerate(group.members):
        for index, turn in enumerate(objects(member.get("turns")), start=1):
            anchor = group.anchors.get(text(turn.get("anchor")))
            if anchor is not None:
                visits.setdefault(anchor, []).append(Visit(_member_name(member, place), index, turn))
    shown = [_anchor_row(group, anchor, found) for anchor, found in visits.items() if len(found) > 1]
    if not shown:
        return Markup()
    title = f"Same state, different actions: {len(shown)} shared states"
    return details(title, element("div", join(shown), class_="anchors"))


def _anchor_row(group: Group, anchor: int, visits: Sequence[Visit]) -> Markup:
    rows = [
        element(
            "tr",
            element("td", f"{visit.member}, turn {visit.turn}"),
            element("td", element("code", clip(text(visit.row.get("action")), 160))),
            element("td", _credit(visit.row), class_="numeric"),
        )
        for visit in sorted(visits, key=lambda visit: -_step_credit(visit.row))
    ]
    return element(
        "div",
        element("p", _tag(group, anchor, None), " ", clip(text(visits[0].row.get("observation")), 200)),
        element("div", element("table", join(rows)), class_="scroll"),
        class_="anchor",
    )


def _step_credit(turn: JsonObject) -> float:
    parts = mapping(turn.get("advantage_parts"))
    return number(parts.get("step", turn.get("advantage"))) or 0.0


def _credit(turn: JsonObject) -> Markup:
    value = _step_credit(turn)
    return element("span", signed(value), class_="down" if value < 0 else "up")
