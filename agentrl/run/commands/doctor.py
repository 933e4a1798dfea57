"""`agentrl doctor`."""

from __future__ import annotations

import importlib.metadata
import json
import platform

from agentrl.run.commands.training import Json  # noqa: TC001  # cyclopts reads annotations

EXTRAS = {
    "train": "torch",
    "sql": "sqlalchemy",
    "search": "bm25s",
    "math": "math-verify",
    "serve": "fastapi",
    "mcp": "mcp",
    "openenv": "websockets",
    "textworld": "textworld",
}


def doctor(*, as_json: Json = False) -> int:
    """Say what this machine offers to hold untrusted programs, and what is installed.

    Args:
        as_json: print JSON.
    """
    from agentrl.sandbox.probe import JAILS, missing, probe
    from agentrl.sandbox.result import Tier
    from agentrl.sandbox.trial import trial

    found = probe()
    tiers = {tier.value: missing(found, tier) for tier in JAILS}
    trials: dict[str, dict[str, str]] = {}
    for tier in (*JAILS, Tier.BWRAP):
        lacking = tiers.setdefault(tier.value, [])
        said = {} if lacking else dict(trial(tier))
        if "start" in said:
            lacking.append(said["start"])
        elif said:
            trials[tier.value] = said
    holds = any(set(trials.get(tier.value, {}).values()) == {"held"} for tier in JAILS)
    extras = {extra: _version(package) for extra, package in EXTRAS.items()}
    versions = {
        "agentrl": _version("agentrl"),
        "python": platform.python_version(),
        "kernel": platform.release(),
    }
    if as_json:
        layers = {name: vars(layer) for name, layer in found.items()}
        print(
            json.dumps(
                {"versions": versions, "extras": extras, "layers": layers, "tiers": tiers, "trials": trials}
            )
        )
        return 0 if holds else 1
    for name, version in versions.items():
        print(f"{name:<20} {version or 'unknown'}")
    for extra, version in extras.items():
        print(f"{f'agentrl[{extra}]':<20} {version or 'not installed'}")
    for name, layer in found.items():
        print(f"{name:<20} {'works' if layer.works else 'missing'} {layer.detail}".rstrip())
    for shown, reasons in tiers.items():
        print(f"tier {shown:<15} {' '.join(reasons) or 'works'}")
        for name, outcome in trials.get(shown, {}).items():
            print(f"  {name:<18} {outcome}")
    return 0 if holds else 1


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""
