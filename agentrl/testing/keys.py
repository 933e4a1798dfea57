"""Whether keys can be compared, and whether a refused action leaves them alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentrl.testing.probe import NONSENSE, Unusable, act, address, key_of
from agentrl.testing.report import Finding
from agentrl.testing.results import lone_surrogate

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from agentrl.testing.probe import Key, Moment, Probe, Where


def wrong_keys(probe: Probe, where: Where) -> Iterator[Finding]:
    """Keys that cannot be compared across processes, and those that a refused action makes."""
    if unusable := _unusable(probe.play(probe.make(), where)):
        yield Finding("error", "keys", f"{address(where)}: {unusable.why}")
        return
    env = probe.make()
    probe.play(env, where, turns=1)
    if env._phase != "running":  # noqa: SLF001  # the end needs no further check
        probe.begin(env, where)
    before = key_of(env.observation_key())
    replies: list[Moment] = []
    for action in NONSENSE:
        replies.append(act(env, action))
        if replies[-1].over:
            break
        if replies[-1].refused and replies[-1].observation_key != before:
            text = f"the refused action {action!r} changed observation_key()"
            yield Finding("error", "keys", f"{address(where)}: {text}")
    yield from _unflagged(where, replies, before)


def _unusable(played: Sequence[Moment]) -> Unusable | None:
    told = [moment for moment in played if lone_surrogate(moment.observation) is None]
    keys = (key for moment in told for key in (moment.observation_key, moment.state_key))
    return next((key for key in keys if isinstance(key, Unusable)), None)


def _unflagged(where: Where, replies: Sequence[Moment], before: Key) -> Iterator[Finding]:
    """Two different nonsense actions that get one answer were refused, whether flagged or not."""
    texts = {reply.observation for reply in replies}
    if len(replies) < len(NONSENSE) or len(texts) > 1 or any(reply.refused for reply in replies):
        return
    if replies[-1].observation_key not in {None, before}:
        text = f"{texts.pop()!r} looks like a refusal and makes a key; set info['valid'] = False for refusals"
        yield Finding("error", "keys", f"{address(where)}: {text}")
