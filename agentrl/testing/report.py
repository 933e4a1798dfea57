"""What a check found."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from agentrl.errors import CheckError
from agentrl.world.closing import RAISED

Severity: TypeAlias = Literal["error", "warning", "note"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a check found: an `error` breaks the contract, a `note` says what was not checked."""

    severity: Severity
    check: str
    message: str

    def __str__(self) -> str:
        return f"{self.severity}: [{self.check}] {self.message}"


@dataclass(frozen=True, slots=True)
class CheckReport:
    """The outcome of `check_env` or `check_tool`; truthy if no error was found.

    Attributes:
        subject: what was checked.
        checks: names of the checks that ran.
    """

    subject: str
    checks: tuple[str, ...]
    findings: tuple[Finding, ...]

    def __bool__(self) -> bool:
        return not self.errors

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that break the contract."""
        return tuple(finding for finding in self.findings if finding.severity == "error")

    def raise_if_failed(self) -> None:
        """Raise a `CheckError` that lists every error, if there is one."""
        if self.errors:
            raise CheckError(str(self))

    def __str__(self) -> str:
        count = len(self.errors)
        verdict = f"{count} error{'s' if count > 1 else ''}" if count else "passed"
        head = f"{self.subject}: {verdict} ({len(self.checks)} checks)"
        return "\n".join([head, *(f"  {finding}" for finding in self.findings)])


Check: TypeAlias = Callable[[], Iterable[Finding]]


def run_checks(subject: str, checks: dict[str, Check], skip: Iterable[str]) -> CheckReport:
    """Run checks by name; a check that raises has found an error, and the others go on.

    Raises:
        CheckError: `skip` names a check that does not exist.
    """
    skipped = set(skip)
    if unknown := skipped - set(checks):
        raise CheckError(f"there is no check {sorted(unknown)}; the checks are {', '.join(checks)}.")
    ran = {name: check for name, check in checks.items() if name not in skipped}
    findings = [finding for name, check in ran.items() for finding in _contained(name, check)]
    return CheckReport(subject, tuple(ran), _once(findings))


def _once(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The findings, those that differ in numbers only told once: the same at every step is one thing."""
    alike: dict[tuple[str, str, str], list[Finding]] = {}
    for finding in findings:
        text = re.sub(r"\d+(\.\d+)?", "0", finding.message)
        alike.setdefault((finding.severity, finding.check, text), []).append(finding)
    return tuple(
        first if not others else replace(first, message=f"{first.message} (and {len(others)} more like it)")
        for first, *others in alike.values()
    )


def _contained(name: str, check: Check) -> Iterator[Finding]:
    try:
        yield from check()
    except RAISED as error:  # whatever it raises is what the check found
        yield Finding("error", name, f"raised {type(error).__name__}: {error}")
