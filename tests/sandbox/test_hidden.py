from __future__ import annotations

from typing import TYPE_CHECKING

from agentrl.sandbox.server import without

if TYPE_CHECKING:
    from pathlib import Path


def test_a_folder_is_given_in_parts_where_something_in_it_is_hidden(tmp_path: Path) -> None:
    for name in ("bin/python", "lib/site/agentrl/secret", "lib/site/numpy/core", "lib/other"):
        (tmp_path / name).mkdir(parents=True)

    parts = without(str(tmp_path), [str(tmp_path / "lib/site/agentrl")])

    assert [part.removeprefix(f"{tmp_path}/") for part in parts] == ["bin", "lib/other", "lib/site/numpy"]
