"""SQL: questions about databases, generated from a seed or the user's own, answered by one query."""

from __future__ import annotations

from agentrl_envs.sql.env import SqlEnv
from agentrl_envs.sql.expert import SqlExpert
from agentrl_envs.sql.store import OPENER

__all__ = ["OPENER", "SqlEnv", "SqlExpert"]
