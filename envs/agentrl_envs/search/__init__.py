"""Questions that are answered by searching: a generated world of documents, or the user's own files."""

from agentrl_envs.search.env import SearchQAEnv
from agentrl_envs.search.settings import PRESETS, SearchSettings

__all__ = ["PRESETS", "SearchQAEnv", "SearchSettings"]
