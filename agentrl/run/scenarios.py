"""Where scenarios stand: a given path, the checkout, or the installed wheel."""

from __future__ import annotations

from pathlib import Path

from agentrl.errors import ConfigError, did_you_mean

PACKAGE = Path(__file__).resolve().parents[1]


def roots() -> list[Path]:
    """Return the folders that hold scenarios: beside the package in a checkout, inside it in a wheel."""
    return [folder for folder in (PACKAGE.parent / "scenarios", PACKAGE / "_scenarios") if folder.is_dir()]


def find(given: Path | str) -> Path:
    """Return the settings file that is meant: a path, or a name such as "household/train".

    Raises:
        ConfigError: there is none; the sentence names the nearest.
    """
    path = Path(given)
    if path.is_file():
        return path
    if path.is_dir():
        held = ", ".join(file.name for file in sorted(path.glob("*.toml"))[:8])
        raise ConfigError(
            f"{str(given)!r} is a folder, and settings are a TOML file. "
            + (f"Name one of those in it: {held}." if held else "It holds none.")
        )
    name = path.as_posix().removeprefix("scenarios/").removesuffix(".toml")
    for root in roots():
        if (root / f"{name}.toml").is_file():
            return root / f"{name}.toml"
    known = names()
    raise ConfigError(
        f"there is no settings file {str(given)!r}.{did_you_mean(name, known)} Give a TOML file, "
        f"or one of the scenarios: {', '.join(known) or 'none are installed'}."
    )


def names() -> list[str]:
    """Return the names of all scenarios, such as "household/train"."""
    return sorted(
        {
            file.relative_to(root).with_suffix("").as_posix()
            for root in roots()
            for file in root.rglob("*.toml")
        }
    )
