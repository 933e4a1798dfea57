"""Whether a world stands a rollout: other threads, hooks that are read often, commands called admissible."""

from __future__ import annotations

import dataclasses
import functools
import threading
from typing import TYPE_CHECKING, Final, TypeVar, cast

from agentrl.testing.probe import act, address, difference, moment, record
from agentrl.testing.report import Finding
from agentrl.world.closing import RAISED
from agentrl.world.deadline import within
from agentrl.world.env import TextEnv

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from agentrl.testing.probe import Moment, Probe, Where

T = TypeVar("T")
_COMMANDS: Final = 20
_HOOKS: Final = ("observation_key", "state_key", "admissible", "gold", "system_text")
_APART: Final = (
    "reset and step of a blocking world run in different threads, and there {what}. Keep nothing between "
    "calls that belongs to one thread, such as threading.local or a connection of sqlite3 without "
    "check_same_thread=False"
)


def fails_in_threads(probe: Probe, where: Where) -> Iterator[Finding]:
    """Play a world that blocks as a rollout does, `reset` and each `step` in a thread of its own."""
    env = probe.make()
    if not env.blocks:
        return
    here = probe.play(probe.make(), where)
    try:
        what = difference(here, _played_apart(probe, env, where))
    except RAISED as error:
        what = f"it raised {type(error).__name__}: {error}".rstrip(".")
    if what:
        yield Finding("error", "threads", f"{address(where)}: {_APART.format(what=what)}")


def _played_apart(probe: Probe, env: TextEnv, where: Where) -> list[Moment]:
    reset = functools.partial(env.reset, seed=probe.seed, options={"split": where[0], "index": where[1]})
    over = threading.Event()
    try:
        observation, info = _in_thread(env, reset, over)
        moments = [moment(env, observation, info=info)]
        for turn in range(probe.turns):
            action = probe.choose(env, turn)
            step = _in_thread(env, functools.partial(env.step, action), over)
            moments.append(record(env, step, action))
            if moments[-1].over:
                break
    finally:
        over.set()
    return moments


def _in_thread(env: TextEnv, call: Callable[[], T], over: threading.Event) -> T:
    """Call in a thread that stays until all is over, for a later one would get its number."""
    return within(call, env.step_seconds, type(env).__name__, afterwards=over.wait)


def changed_by_reading(probe: Probe, where: Where) -> Iterator[Finding]:
    """Play the same actions with and without reading each hook twice more before every one of them."""
    played = probe.play(probe.make(), where)
    scripted = dataclasses.replace(probe, actions=tuple(str(each.action) for each in played[1:]))
    plain = _read_often(scripted, where, None)
    for name in _HOOKS:
        if getattr(type(probe.make()), name) is getattr(TextEnv, name):
            continue
        if text := difference(plain, _read_often(scripted, where, name)):
            said = f"reading {name}() twice more changes the episode: {text}. A hook only looks"
            yield Finding("error", "hooks", f"{address(where)}: {said}")


def _read_often(probe: Probe, where: Where, hook: str | None) -> list[Moment]:
    env = probe.make()
    moments = [probe.begin(env, where)]
    for turn in range(len(probe.actions)):
        for _ in range(2 if hook else 0):
            getattr(env, str(hook))()
        moments += probe.go_on(env, turn, 1)
        if moments[-1].over:
            break
    return moments


def wrong_admissible(probe: Probe, tasks: Sequence[Where]) -> Iterator[Finding]:
    """Commands that are called admissible and refused, or what is no list of commands, told once."""
    for where in tasks:
        env = probe.make()
        probe.begin(env, where)
        given: object = env.admissible() or ()
        listed = () if isinstance(given, str) else tuple(cast("Sequence[object]", given))
        if isinstance(given, str) or not all(isinstance(each, str) for each in listed):
            text = f"admissible() must return a list of texts; got {given!r:.80}"
            yield Finding("error", "admissible", f"{address(where)}: {text}")
            return
        for command in map(str, listed[:_COMMANDS]):
            probe.begin(env, where)
            if act(env, command).refused:
                text = f"the command {command!r} is listed as admissible and was refused"
                yield Finding("error", "admissible", f"{address(where)}: {text}")
