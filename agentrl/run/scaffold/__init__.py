"""A new package with an environment: files that work as they are, to be changed."""

from __future__ import annotations

import importlib.util
import keyword
import re
import string
from pathlib import Path
from typing import Final

from agentrl.errors import ConfigError

_TEMPLATES: Final = Path(__file__).with_name("package")
_FILES: Final = {
    "pyproject.toml": "pyproject.toml.in",
    "README.md": "README.md.in",
    "$package/__init__.py": "init.py.in",
    "$package/env.py": "env.py.in",
    "tests/test_env.py": "test_env.py.in",
    "scenarios/train.toml": "train.toml.in",
    "scenarios/eval.toml": "eval.toml.in",
}
_NAME: Final = re.compile(r"[a-z][a-z0-9]*([_-][a-z0-9]+)*\Z")


def write_package(name: str, parent: Path) -> Path:
    """Write a package of this name into a new folder below `parent`, and return the folder.

    Args:
        name: small letters, digits and underscores; a hyphen becomes an underscore.
        parent: an existing folder.

    Raises:
        ConfigError: the name is no name of a package, or a package or the folder has it already.
    """
    package = name.replace("-", "_")
    if not _NAME.match(name):
        raise ConfigError(
            f"a package is named with small letters, digits and underscores, like 'my_world'; got {name!r}."
        )
    if keyword.iskeyword(package):
        raise ConfigError(f"{name!r} is a word of Python's own, which names no package; give another.")
    folder = parent / name
    if folder.exists():
        raise ConfigError(f"{folder} exists already; nothing was written. Give another name, or remove it.")
    if importlib.util.find_spec(package) is not None:
        raise ConfigError(
            f"there is a package {package!r} in this Python already, which a new one would replace; give "
            "another name, or uninstall that one first."
        )
    words = {"package": package, "title": "".join(word.capitalize() for word in package.split("_"))}
    for path, template in _FILES.items():
        target = folder / string.Template(path).substitute(words)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(string.Template((_TEMPLATES / template).read_text()).substitute(words))
    return folder
