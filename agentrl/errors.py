"""Every exception agentrl raises on purpose.

::

    AgentrlError
    ├── ConfigError            settings: a TOML file, a command-line value, a wrong type
    ├── MissingExtraError      an optional dependency is not installed
    ├── RegistryError          an id is malformed, unknown or already taken
    ├── EnvironmentUsageError  step before reset, step after the episode ended
    ├── EnvironmentFault       raised by an environment: infrastructure failed, not the agent
    ├── ToolDefinitionError    a tool cannot be described (missing type or docstring)
    ├── ToolArgumentError      a call's arguments do not fit the tool's schema
    ├── TemplateError          a chat template cannot be used
    ├── PolicyError            a policy cannot do what was asked of it
    ├── RolloutError           too large a share of rollouts is invalid; a preflight failed
    ├── BatchError             arrays do not fit together; text-only trajectories were packed
    │   └── MissingColumnError an optional column is absent; names the probe that provides it
    ├── AlgorithmError         parts of an algorithm do not fit, or a filter kept nothing
    ├── SandboxUnavailable     this machine cannot hold untrusted code; names each missing layer
    ├── SandboxError           the sandbox itself failed, not the program in it
    ├── ServerRefused          a server answered with a status that no repetition mends
    ├── ServerUnavailable      no server answered in time; infrastructure, never the agent's fault
    ├── RunDirectoryError      a run directory cannot be written, read or resumed
    └── CheckError             an environment, tool or template broke its contract

A failed rollout is data (`agentrl.trajectory.Invalid`), not an exception.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class AgentrlError(Exception):
    """Base of every error that agentrl raises on purpose."""


class ConfigError(AgentrlError):
    """A setting is unknown, has the wrong type or contradicts another."""


class MissingExtraError(AgentrlError, ImportError):
    """An optional dependency is missing; the message names the extra to install, and what else to do."""

    def __init__(self, what: str, extra: str, also: str = "") -> None:
        super().__init__(
            f"{what} needs packages that are not installed. "
            f"Install them with: python -m pip install 'agentrl[{extra}]'" + (also and f" {also}")
        )


class RegistryError(AgentrlError):
    """An environment or tool id is malformed, unknown or taken by another source."""


class EnvironmentUsageError(AgentrlError):
    """An environment was stepped before `reset` or after its episode ended."""


class EnvironmentFault(AgentrlError):
    """An environment's own infrastructure failed; never the agent's fault, never a reward."""


class ToolDefinitionError(AgentrlError):
    """A function cannot become a tool: its types or docstring are incomplete."""


class ToolArgumentError(AgentrlError):
    """The arguments of a tool call do not fit the tool's schema."""


class TemplateError(AgentrlError):
    """A chat template cannot be applied, or not to what is asked of it."""


class PolicyError(AgentrlError):
    """A policy was asked for something that it cannot do."""


class RolloutError(AgentrlError):
    """Rollouts cannot go on: the preflight failed or too many trajectories are invalid."""


class BatchError(AgentrlError):
    """Columns of a batch do not fit together."""


class MissingColumnError(BatchError):
    """An optional column is absent; the message names the probe that provides it, `column` is its key."""

    def __init__(self, message: str, column: object = None) -> None:
        super().__init__(message)
        self.column = column


class AlgorithmError(AgentrlError):
    """The parts of an algorithm do not fit together, or a filter kept nothing."""


class SandboxUnavailable(AgentrlError):
    """The machine lacks layers that hold untrusted code; the message names each one and its repair."""


class SandboxError(AgentrlError):
    """The sandbox itself failed; never the fault of the program in it, never a reward."""


class ServerRefused(AgentrlError):
    """A server answered with a status that no repetition mends, such as 401 or 404."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class ServerUnavailable(AgentrlError, ConnectionError):
    """No server answered in time, however often it was asked; never the fault of the agent."""


class RunDirectoryError(AgentrlError):
    """A run directory cannot be created, written, read or resumed."""


class CheckError(AgentrlError):
    """An environment, tool or template broke its contract."""


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the nearest known name, or an empty string.

    >>> did_you_mean("agentrl/Houshold-v0", ["agentrl/Household-v0"])
    " Did you mean 'agentrl/Household-v0'?"
    >>> did_you_mean("zzz", ["abc"])
    ''
    """
    near = difflib.get_close_matches(given, list(known), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def as_sentence(said: object) -> str:
    r"""Return what somebody else said as one sentence on one line, so that another can follow.

    >>> [as_sentence(said) for said in ("no such file", "It broke.\n", "Did you mean `Ice-v1`?", "")]
    ['no such file.', 'It broke.', 'Did you mean `Ice-v1`?', '']
    """
    text = " ".join(str(said).split()).rstrip(" ,;:")
    bare = text.rstrip("'\"`)]")
    return text if not bare or bare.endswith((".", "!", "?")) else f"{text}."
