"""Texts that choose: no part takes one outside of its choices, and no new part can forget to check."""

from __future__ import annotations

import importlib
import pkgutil
import re
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

import pytest

import agentrl.credit
import agentrl.learn
import agentrl.plan
import agentrl.rollout
from agentrl import recipes
from agentrl.credit.advantage import Relative
from agentrl.credit.gain import InformationGain
from agentrl.credit.keep import NoVoid, no_valid_action
from agentrl.credit.part import Checked, choices_of, describe, rebuild
from agentrl.errors import AlgorithmError
from agentrl.learn.penalty import KlToReference

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Part: TypeAlias = type[object]

ROOMS = (agentrl.credit, agentrl.learn, agentrl.plan, agentrl.rollout)

REQUIRED = {"coefficient": 0.1}
"""A value for each field without a default, of parts that have choices."""

FREE = {
    ("Component", "name"),  # of a component of the world's reward
    ("Recap", "words"),  # that lead a retold past
    ("TokenPlaces", "text"),  # of sampled tokens
    ("PlanTokens", "role"),  # of a span, which a protocol of one's own may name
}
"""Texts of parts that are not choices."""


def parts() -> Iterator[Part]:
    """Every dataclass that is written down in a room of parts."""
    for room in ROOMS:
        for found in pkgutil.walk_packages(room.__path__, f"{room.__name__}."):
            module = importlib.import_module(found.name)
            for value in vars(module).values():
                if isinstance(value, type) and is_dataclass(value) and value.__module__ == found.name:
                    yield value


PARTS = tuple(parts())


def texts(part: Part) -> list[Field[object]]:
    """Fields that hold one text: a `str`, a `Literal`, or a name of one."""
    return [item for item in fields(part) if re.fullmatch(r"str|.*Literal.*|Need|Entropy", str(item.type))]  # type: ignore[arg-type]  # a dataclass


CHOICES = [(part, item.name) for part in PARTS for item in texts(part) if str(item.type) != "str"]


def test_the_walk_finds_the_parts() -> None:
    named = {f"{part.__name__}.{field}" for part, field in CHOICES}
    assert {
        "Relative.per",
        "Relative.lone",
        "NoVoid.scope",
        "InformationGain.pool",
        "BeliefGain.kind",
    } <= named
    assert {"SubtreeMean.weigh", "KlToReference.estimator", "KlToOld.estimator", "Critic.trunk"} <= named
    assert "Algorithm.on_empty" in named
    assert len(PARTS) > 100


@pytest.mark.parametrize(("part", "field"), CHOICES, ids=lambda value: getattr(value, "__name__", value))
def test_a_text_outside_of_the_choices_is_refused(part: Callable[..., object], field: str) -> None:
    assert isinstance(part, type)
    given: dict[str, object] = {
        item.name: REQUIRED[item.name]
        for item in fields(part)
        if item.default is MISSING and item.default_factory is MISSING
    }
    choices = choices_of(part)[field]
    for wrong in ("", f"{choices[0]}s", choices[0].swapcase(), None):
        with pytest.raises(AlgorithmError, match=rf"^{field} of {part.__name__} must be one of "):
            part(**{**given, field: wrong})


def test_no_callable_part_has_a_text_that_nobody_checks() -> None:
    """A `str` that is compared with fixed texts is a `Literal`; any other stands in the list above."""
    free = {
        (part.__name__, item.name)
        for part in PARTS
        for item in texts(part)
        if item.name not in choices_of(part) and {"__call__", "of_credit", "build"} & set(vars(part))  # type: ignore[arg-type]  # classes are hashable
    }
    assert free == FREE


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: InformationGain(pool="seperate"), "got 'seperate'. Did you mean 'separate'?"),  # type: ignore[arg-type]
        (lambda: NoVoid(no_valid_action, scope="turns"), "got 'turns'. Did you mean 'turn'?"),  # type: ignore[arg-type]
        (lambda: Relative(lone="Raw"), "one of 'zero', 'raw'; got 'Raw'. Did you mean 'raw'?"),  # type: ignore[arg-type]
        (lambda: KlToReference(0.1, "K3"), "one of 'k1', 'k2', 'k3'; got 'K3'. Did you mean 'k3'?"),  # type: ignore[arg-type]
        (lambda: replace(recipes.GRPO, on_empty="Skip"), "'raise', 'skip'; got 'Skip'. Did you mean 'skip'?"),  # type: ignore[arg-type]
    ],
)
def test_the_sentence_names_the_nearest_choice(make: Callable[[], object], sentence: str) -> None:
    with pytest.raises(AlgorithmError) as raised:
        make()
    assert str(raised.value).endswith(sentence)


def test_a_run_card_with_a_misspelt_choice_is_refused() -> None:
    card = describe(recipes.get("IGPO"))
    assert isinstance(card, dict)
    assert isinstance(card["advantage"], dict)
    card["advantage"]["pool"] = "seperate"
    with pytest.raises(AlgorithmError, match="Did you mean 'separate'"):
        rebuild(card)


@dataclass(frozen=True)
class Base(Checked):
    side: Literal["left", "right"] = "left"


@dataclass(frozen=True)
class Heir(Base):
    number: int = 1


def test_choices_are_inherited() -> None:
    assert choices_of(Heir) == {"side": ("left", "right")}
    with pytest.raises(AlgorithmError, match="side of Heir"):
        Heir("up")  # type: ignore[arg-type]
