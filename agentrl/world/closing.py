"""Closing worlds whose own `close` may fail."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agentrl.world.asynchronous import AsyncTextEnv
    from agentrl.world.env import TextEnv

LOGGER = logging.getLogger(__name__)
RAISED = (Exception, SystemExit)
"""What a world may raise without ending more than itself; an interrupt ends everything."""


def close_world(env: TextEnv | AsyncTextEnv) -> None:
    """Close an environment; what its `close` raises is logged and ends nothing, for its work is done."""
    try:
        env.close()
    except RAISED as error:
        LOGGER.warning(
            "close() of %s raised %s: %s. What it held may stay open; mend its close().",
            type(env).__name__,
            type(error).__name__,
            error,
        )
