"""`python`: the agent's code in the jail, as a session that remembers or as single programs."""

from __future__ import annotations

import json
import secrets
import weakref
from typing import TYPE_CHECKING, Final

from agentrl.errors import EnvironmentFault
from agentrl.sandbox.opening import shared_sandbox
from agentrl.sandbox.result import Limits, Program, Status
from agentrl.world.tool import ToolResult, tool

if TYPE_CHECKING:
    from agentrl.sandbox.base import Backend, Session
    from agentrl.sandbox.result import ExecutionResult

LIMITS: Final = Limits(wall_seconds=10.0, memory=512 << 20, kept_output=16 << 10)
_FINAL_ANSWER: Final = """
def final_answer(answer):
    import json, sys
    try:
        text = answer if isinstance(answer, str) else repr(answer)
        text.encode()
    except Exception as error:
        raise ValueError(f"final_answer takes a value that can be written: {error}") from None
    if len(text) > {most}:
        raise ValueError(f"final_answer takes at most {most} characters; got {len(text)}.")
    sys.stdout.write("\\n{mark}" + json.dumps(text) + "\\n")
"""
_MOST: Final = 1000


class PythonTool:
    """Runs Python that the agent writes, in a jail. One instance serves one trajectory at a time.

    With `remembers` the cells of a trajectory share one session: variables stay, a cell that is stopped costs
    only itself, and the value of a last expression is shown. A deep copy is a branch of the session.

    Args:
        sandbox: who runs the programs; this process's shared jail by default.
        remembers: keep a session over the turns; otherwise each call is a program of its own.
        limits: of one call.
        isolation: of the shared jail; see `agentrl.sandbox.opening.open_sandbox`.
        preload: modules that cost a call nothing, in the shared jail.

    Attributes:
        answer: what the program gave to `final_answer(...)`, None before; call `reset` between trajectories.

    Raises:
        SandboxUnavailable: from the first call, where this machine cannot hold untrusted programs.
    """

    def __init__(
        self,
        sandbox: Backend | None = None,
        *,
        remembers: bool = True,
        limits: Limits = LIMITS,
        isolation: str = "auto",
        preload: tuple[str, ...] = (),
    ) -> None:
        self._sandbox = sandbox
        self._isolation, self._preload = isolation, preload
        self.remembers = remembers
        self.limits = limits
        self.answer: str | None = None
        self._seed = 0
        self._mark = secrets.token_hex(12)
        self._session: Session | None = None

    def __deepcopy__(self, memo: dict[int, object]) -> PythonTool:
        other = PythonTool(
            self._sandbox,
            remembers=self.remembers,
            limits=self.limits,
            isolation=self._isolation,
            preload=self._preload,
        )
        other.answer, other._seed, other._mark = self.answer, self._seed, self._mark
        if self._session is not None:
            other._keep(self._session.branch())
        return other

    @property
    def sandbox(self) -> Backend:
        """Who runs the programs; opened when first asked for."""
        if self._sandbox is None:
            self._sandbox = shared_sandbox(self._isolation, limits=self.limits, preload=self._preload)
        return self._sandbox

    def reset(self, seed: int = 0) -> None:
        """Begin another trajectory: no variables, no answer, generators seeded anew."""
        self.close()
        self._seed = seed
        self.answer = None

    def close(self) -> None:
        """End the session."""
        if self._session is not None:
            self._session.close()
            self._session = None

    @tool
    def python(self, code: str) -> ToolResult:
        """Run Python code and return what it prints. Call final_answer(x) in it to give the answer.

        Args:
            code: the source text
        """
        result = self._run(_unfenced(code))
        if result.status is Status.INFRA_ERROR:
            raise EnvironmentFault(f"the sandbox of the python tool failed: {result.message}")
        return self._told(result)

    def _run(self, code: str) -> ExecutionResult:
        setup = _FINAL_ANSWER.replace("{most}", str(_MOST)).replace("{mark}", self._mark)
        if not self.remembers:
            return self.sandbox.run(Program(code, setup=setup, seed=self._seed), self.limits)
        if self._session is None:
            return self._keep(self.sandbox.open_session(self.limits, seed=self._seed, setup=setup)).run(code)
        return self._session.run(code)

    def _keep(self, session: Session) -> Session:
        """Use a session; it ends with this object at the latest."""
        weakref.finalize(self, session.close)
        self._session = session
        return session

    def _told(self, result: ExecutionResult) -> ToolResult:
        output = self._without_answer(result.stdout)
        errors = result.stderr.replace(self._mark, "").rstrip()
        if result.status is Status.MEMORY:  # Python may say where, a watcher that is quicker does not
            errors = ""
        notes = _notes(result, remembers=self.remembers)
        text = "\n".join(part for part in (output, errors, *notes) if part)
        return ToolResult(text or "(no output)", error=None if result.ok else text)

    def _without_answer(self, stdout: str) -> str:
        head, mark, rest = stdout.rpartition(f"\n{self._mark}")
        if not mark:
            return stdout.rstrip()
        line, _, tail = rest.partition("\n")
        try:
            self.answer = str(json.loads(line))
        except ValueError:
            return stdout.rstrip()
        return "\n".join(part for part in (head.rstrip(), tail.rstrip()) if part)


def _unfenced(code: str) -> str:
    r"""Take the code out of a Markdown fence, which models add out of habit.

    >>> _unfenced("```python\nprint(1)\n```")
    'print(1)'
    """
    lines = code.strip().split("\n")
    if len(lines) >= 2 and lines[0].startswith("```") and lines[-1].strip() == "```":
        return "\n".join(lines[1:-1])
    return code.strip("\n")


def _notes(result: ExecutionResult, *, remembers: bool) -> list[str]:
    """Say in words what the program's output does not show."""
    notes = []
    if result.truncated[0]:
        notes.append(f"[{result.truncated[0]} more bytes of output were cut]")
    if result.status in _ENDINGS:
        kept = remembers and not result.state_lost
        notes.append(f"[{_ENDINGS[result.status]}{_KEPT if kept else ''}]")
    elif result.status is Status.ERROR and not result.stderr:
        notes.append(f"[the program ended with exit code {result.returncode}]")
    if result.state_lost:
        notes.append("[the session ended with it; no variable is left]")
    return notes


_KEPT: Final = "; the variables are as they were before it"
_ENDINGS: Final = {
    Status.TIMEOUT: "the program did not end in time and was stopped",
    Status.MEMORY: "the program needed more memory than it may have",
    Status.OUTPUT_LIMIT: "the program wrote too much and was stopped",
    Status.KILLED: "the program was killed",
}
