"""What pytest does not read here: a program for an interpreter of its own."""

from __future__ import annotations

collect_ignore = ["openenv_worlds.py"]
