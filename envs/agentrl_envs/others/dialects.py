"""How AgentGym's servers differ: seven dialects of create, reset, step and close."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, cast

from agentrl.errors import EnvironmentFault

_IDS: Final = ("id", "env_idx")
_TEXTS: Final = ("observation", "state")


@dataclass(frozen=True, slots=True)
class Dialect:
    """What one kind of server is sent; answers are read alike for all of them.

    Attributes:
        key: under which the environment's number is sent.
        item: under which the number of the task is sent with a reset.
        reset: what else is sent with it.
        created_with_item: whether the task is sent when the environment is created.
        create: what else is sent then.
        closes: whether the server has /close.
        success: smallest reward of a turn that is a success.
        judges: whether the server tells a wrong answer and lets the agent try again.
    """

    key: str = "id"
    item: str = "data_idx"
    reset: Mapping[str, object] = field(default_factory=dict)
    created_with_item: bool = False
    create: Mapping[str, object] = field(default_factory=dict)
    closes: bool = True
    success: float = 1.0
    judges: bool = False


DIALECTS: Final[Mapping[str, Dialect]] = {
    "searchqa": Dialect("env_idx", "id", created_with_item=True, judges=True),
    "sqlgym": Dialect("env_idx", "item_id", closes=False),
    "webshop": Dialect("env_idx", "session_id", closes=False),
    "textcraft": Dialect(create={"commands": None, "goal": None}),
    "babyai": Dialect(),
    "sciworld": Dialect(success=100.0),
    "alfworld": Dialect("id", "game", {"world_type": "Text"}, closes=False),
    "webarena": Dialect("env_idx", "seed", {"options": {}}),
}
"""By the name of the server's package; babyai and sciworld speak one, with rewards of another size."""


def checked(answer: object, where: str) -> object:
    """Return an answer that is no error; some servers report errors with status 200.

    Raises:
        EnvironmentFault: it is one.
    """
    if isinstance(answer, Mapping):
        problem = cast("Mapping[str, object]", answer).get("error")
        if problem:
            raise EnvironmentFault(f"{where} reports an error: {str(problem)[:300]}")
    return answer


def number_of(answer: object, where: str) -> int | str:
    """Return the number of an environment: alone, or in an object.

    >>> number_of(3, "/create"), number_of({"env_idx": 4}, "/create"), number_of({"id": 0}, "/create")
    (3, 4, 0)
    """
    if isinstance(answer, Mapping):
        known = cast("Mapping[str, object]", answer)
        answer = next((known[name] for name in _IDS if name in known), None)
    if isinstance(answer, bool) or not isinstance(answer, int | str):
        raise EnvironmentFault(f"{where} gave no number of an environment: {str(answer)[:200]}")
    return answer


def text_of(answer: object, where: str) -> str:
    """Return an observation: a text, a text in a list with null, or a text in an object.

    >>> text_of("a hall", ""), text_of(["a hall", None], ""), text_of({"state": "a hall"}, "")
    ('a hall', 'a hall', 'a hall')
    """
    if isinstance(answer, Mapping):
        known = cast("Mapping[str, object]", answer)
        answer = next((known[name] for name in _TEXTS if name in known), None)
    if isinstance(answer, Sequence) and not isinstance(answer, str) and answer:
        answer = answer[0]
    if not isinstance(answer, str):
        raise EnvironmentFault(f"{where} gave no observation: {str(answer)[:200]}")
    return answer
