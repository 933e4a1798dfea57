"""Whether `restore` brings back what `snapshot` saw."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentrl.errors import EnvironmentUsageError, as_sentence
from agentrl.testing.probe import address, difference
from agentrl.testing.report import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from agentrl.testing.probe import Probe, Where


def wrong_snapshots(probe: Probe, tasks: Sequence[Where]) -> Iterator[Finding]:
    """The first difference after `restore`, or a note where the world gives no snapshots."""
    for where in tasks:
        env, other = probe.make(), probe.make()
        for prefix in (0, 1, 3):
            if probe.play(env, where, turns=prefix)[-1].over:
                break
            try:
                saved = env.snapshot()
            except (EnvironmentUsageError, NotImplementedError) as error:
                yield _without(str(error))
                return
            if saved is None:
                yield _without("snapshot() returned None")
                return
            first = probe.go_on(env, prefix, 4)
            for name, target in (("the same instance", env), ("another instance", other)):
                target.restore(saved)
                if text := difference(first, probe.go_on(target, prefix, 4)):
                    yield Finding(
                        "error",
                        "snapshot",
                        f"{address(where)}, restored in {name} after turn {prefix}: {text}",
                    )
                    return


def _without(why: str) -> Finding:
    text = (
        f"the world gives no snapshots; rollouts that branch replay its actions instead. {as_sentence(why)}"
    )
    return Finding("note", "snapshot", text)
