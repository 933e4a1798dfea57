"""The registry: ids, sources, sentences, entry points and the mirror in Gymnasium."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as gymnasium_check_env

from agentrl.errors import MissingExtraError, RegistryError
from agentrl.world import (
    AsyncTextEnv,
    EnvSpec,
    TextEnv,
    list_envs,
    list_tools,
    load_tool,
    make,
    make_any,
    mirror_to_gymnasium,
    register,
    rescan,
    spec,
    tools_of,
)
from agentrl.world import registry as registry_module
from agentrl.world.entrypoints import load_attribute

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def _clean_registries() -> Iterator[None]:
    ours, theirs = dict(registry_module._SPECS), dict(gymnasium.registry)
    yield
    registry_module._SPECS.clear()
    registry_module._SPECS.update(ours)
    gymnasium.registry.clear()
    gymnasium.registry.update(theirs)


class Door(TextEnv):
    """A door to open."""

    def __init__(self, size: int = 3, *, locked: bool = False, render_mode: str | None = None) -> None:
        super().__init__(render_mode=render_mode)
        self.size = size
        self.locked = locked


class OtherDoor(Door):
    """Another door."""


class Later(AsyncTextEnv):
    """Asynchronous."""


@pytest.fixture
def offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An installed distribution with a good world, a broken one, one without its extra, and tools."""
    (tmp_path / "offered_good.py").write_text(
        "from agentrl.world import TextEnv, tool\n"
        "class World(TextEnv):\n    '''Good.'''\n"
        "class Kit:\n"
        "    def __init__(self, depth=1): self.depth = depth\n"
        "    @tool\n    def dig(self) -> str:\n        '''Dig.'''\n        return f'{self.depth} deep'\n"
        "NOTHING = 3\n"
    )
    (tmp_path / "offered_broken.py").write_text("import a_module_that_is_not_there\n")
    (tmp_path / "offered_extra.py").write_text(
        "from agentrl.errors import MissingExtraError\nraise MissingExtraError('Extra worlds', 'textworld')\n"
    )
    info = tmp_path / "offered-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: offered\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[agentrl.envs]\n"
        "offered/Good-v0 = offered_good:World\noffered/Broken-v0 = offered_broken:World\n"
        "offered/Extra-v0 = offered_extra:World\noffered/Typo-v0 = offered_good:Wrld\nnot an id = x:y\n"
        "[agentrl.tools]\ndig = offered_good:Kit\nnothing = offered_good:NOTHING\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    rescan()
    yield tmp_path
    for name in ("offered_good", "offered_broken", "offered_extra"):
        sys.modules.pop(name, None)
    rescan()


@pytest.mark.parametrize(
    "given", ["Door", "mine/Door", "mine/Door-0", "mine/Door-v", "a b/Door-v0", "/Door-v0", "mine/Door-v0x"]
)
def test_malformed_ids_are_refused(given: str) -> None:
    with pytest.raises(RegistryError, match="an environment id is 'namespace/Name-vN'"):
        register(given, Door)


def test_decorator_and_function_register_the_same_way() -> None:
    assert register("mine/Door-v0", size=5)(Door) is Door
    made = make("mine/Door-v0", locked=True)
    assert isinstance(made, Door)
    assert (made.size, made.locked, spec("mine/Door-v0").description) == (5, True, "A door to open.")
    assert register("mine/Door-v1", Door, tags=("small",)).tags == ("small",)
    assert list_envs(tag="small") == ("mine/Door-v1",)
    assert {"mine/Door-v0", "mine/Door-v1"} <= set(list_envs())


def test_the_same_source_may_register_again_and_another_may_not() -> None:
    register("mine/Door-v0", Door)
    register("mine/Door-v0", Door, size=4)
    assert spec("mine/Door-v0").kwargs == {"size": 4}
    with pytest.raises(
        RegistryError, match=r"'mine/Door-v0' is taken by .*:Door; .*:OtherDoor needs another name"
    ):
        register("mine/Door-v0", OtherDoor)


def test_a_script_imported_twice_registers_once(tmp_path: Path) -> None:
    script = tmp_path / "twice_script.py"
    script.write_text(
        "from agentrl.world import TextEnv, make, register\n"
        "@register('twice/Door-v0')\nclass Door(TextEnv):\n    '''Door.'''\n"
        "if __name__ == '__main__':\n"
        "    import twice_script\n"
        "    register('twice/Door-v0', 'twice_script:Door')\n"
        "    print(type(make('twice/Door-v0')) is Door)\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("True\n", "")


def test_unknown_ids_name_the_nearest() -> None:
    register("mine/Door-v0", Door)
    with pytest.raises(RegistryError, match=r"no environment 'mine/Dor-v0'\. Did you mean 'mine/Door-v0'\?"):
        make("mine/Dor-v0")
    with pytest.raises(RegistryError, match=r"no environment 'mine/Door-v7'\. There is mine/Door-v0\."):
        make("mine/Door-v7")
    with pytest.raises(RegistryError, match=r"got 'mine/Door'\. Did you mean 'mine/Door-v0'\?"):
        make("mine/Door")


def test_wrong_arguments_name_the_accepted_ones() -> None:
    register("mine/Door-v0", Door)
    message = r"has no argument 'siz'\. Did you mean 'size'\? It accepts size, locked, render_mode\."
    with pytest.raises(RegistryError, match=message):
        make("mine/Door-v0", siz=3)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"size": "large"}, "takes size as a whole number; got 'large'"),
        ({"size": True}, "takes size as a whole number; got True"),
        ({"size": 1.5}, "takes size as a whole number; got 1.5"),
        ({"locked": "yes"}, "takes locked as true or false; got 'yes'"),
        ({"locked": 1}, "takes locked as true or false; got 1"),
    ],
)
def test_plain_arguments_of_a_wrong_kind_are_named(given: dict[str, object], message: str) -> None:
    register("mine/Door-v0", Door)
    with pytest.raises(RegistryError, match=message):
        make("mine/Door-v0", **given)
    assert make("mine/Door-v0", size=np.int64(4)).spec is not None


def test_a_missing_argument_is_named() -> None:
    class Named(TextEnv):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

    register("mine/Named-v0", Named)
    with pytest.raises(RegistryError, match="needs the argument 'name'"):
        make("mine/Named-v0")
    assert make("mine/Named-v0", name="x").spec is not None


def test_a_path_needs_no_registration(offered: Path) -> None:
    assert type(make("offered_good:World")).__name__ == "World"
    with pytest.raises(RegistryError, match=r"'offered_good' has no 'Wold'\. Did you mean 'World'\?"):
        make("offered_good:Wold")
    with pytest.raises(RegistryError, match="importing 'no_such_module' failed with ModuleNotFoundError"):
        make("no_such_module:World")
    with pytest.raises(RegistryError, match="made a Kit; an environment is a TextEnv"):
        make("offered_good:Kit")


def test_an_entry_point_without_a_class_is_told_its_form() -> None:
    said = r"the tool 'x' cannot be loaded: its entry point 'json' names a module alone; write 'module:Class'"
    with pytest.raises(RegistryError, match=said):
        load_attribute("json", "the tool 'x'")


@pytest.fixture
def squatting(tmp_path: Path, offered: Path) -> None:
    """Another distribution offers an id of `agentrl`, and one of a namespace that is nobody's."""
    del offered
    for name, ids in (("squat", ("agentrl/Household-v0", "free/World-v0")), ("other", ("free/World-v0",))):
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        lines = "".join(f"{item} = {name}_worlds:World\n" for item in ids)
        (info / "entry_points.txt").write_text(f"[agentrl.envs]\n{lines}")
    rescan()


@pytest.mark.usefixtures("squatting")
def test_an_id_belongs_to_the_distribution_of_its_namespace(capsys: pytest.CaptureFixture[str]) -> None:
    from agentrl.run.cli import run

    assert spec("agentrl/Household-v0").distribution == "agentrl"
    assert type(make("agentrl/Household-v0")).__name__ == "HouseholdEnv"
    with pytest.raises(RegistryError, match=r"offered by other_worlds:World \(other\) and squat_worlds"):
        spec("free/World-v0")
    assert run(["envs", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    household = [line for line in lines if line.startswith("agentrl/Household-v0")]
    assert ["cannot be used: the id belongs to 'agentrl'" in line for line in household] == [False, True]
    assert "squat_worlds:World  (squat)" in household[1]
    free = [line for line in lines if line.startswith("free/World-v0")]
    assert len(free) == 2
    assert all(line.endswith("Uninstall one of them.") for line in free)
    assert run(["envs", "list", "--json"]) == 0
    assert '"problem": "the id belongs to' in capsys.readouterr().out


def test_async_worlds_are_made_by_make_any() -> None:
    register("mine/Later-v0", Later)
    assert isinstance(make_any("mine/Later-v0"), Later)
    with pytest.raises(RegistryError, match="make it with make_any"):
        make("mine/Later-v0")
    assert "mine/Later-v0" not in gymnasium.registry


def test_listing_imports_nothing(offered: Path) -> None:
    found = [name for name in list_envs() if name.startswith("offered/")]
    assert found == ["offered/Broken-v0", "offered/Extra-v0", "offered/Good-v0", "offered/Typo-v0"]
    assert {"dig", "nothing"} <= set(list_tools())
    assert "offered_good" not in sys.modules


def test_a_broken_package_is_a_sentence_and_others_go_on(offered: Path) -> None:
    with pytest.raises(
        RegistryError, match=r"'offered/Broken-v0' of the package 'offered' cannot be loaded.*not_there"
    ):
        make("offered/Broken-v0")
    with pytest.raises(RegistryError, match=r"has no 'Wrld'\. Did you mean 'World'"):
        make("offered/Typo-v0")
    with pytest.raises(MissingExtraError, match="agentrl\\[textworld\\]"):
        make("offered/Extra-v0")
    assert spec("offered/Good-v0").distribution == "offered"
    assert type(make("offered/Good-v0")).__name__ == "World"


def test_tools_are_loaded_by_name(offered: Path) -> None:
    assert load_tool("dig", depth=3)[0].call({}).text == "3 deep"
    with pytest.raises(RegistryError, match=r"no tool 'digg'\. Did you mean 'dig'"):
        load_tool("digg")
    with pytest.raises(RegistryError, match="has no argument 'deep'"):
        load_tool("dig", deep=3)
    with pytest.raises(RegistryError, match="names 3, which has no tools"):
        load_tool("nothing")
    assert [each.name for each in load_tool("offered_good:Kit")] == ["dig"]
    assert tools_of(load_tool("dig")[0])[0].name == "dig"


@pytest.mark.filterwarnings("error")
def test_gymnasium_makes_what_is_registered() -> None:
    register("mine/Door-v0", Door, size=8)
    env = gymnasium.make("mine/Door-v0", locked=True)
    assert isinstance(env.unwrapped, Door)
    assert (env.unwrapped.size, env.unwrapped.locked) == (8, True)
    gymnasium_check_env(env.unwrapped)
    gymnasium_check_env(make("mine/Door-v0"))


@pytest.mark.filterwarnings("error")
def test_a_package_mirrors_its_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mirrored.py").write_text(
        "from agentrl.world import EnvSpec, TextEnv, mirror_to_gymnasium\n"
        "class World(TextEnv):\n    '''World.'''\n"
        "SPEC = EnvSpec('mirrored/World-v0', 'mirrored:World')\n"
        "mirror_to_gymnasium(SPEC)\nmirror_to_gymnasium(SPEC)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert type(gymnasium.make("mirrored:mirrored/World-v0").unwrapped).__name__ == "World"
    assert type(gymnasium.make("mirrored/World-v0").unwrapped).__name__ == "World"
    sys.modules.pop("mirrored")


def test_the_mirror_does_not_overwrite() -> None:
    mirror_to_gymnasium(EnvSpec("mine/Door-v0", Door))
    with pytest.raises(RegistryError, match="Gymnasium has 'mine/Door-v0'"):
        mirror_to_gymnasium(EnvSpec("mine/Door-v0", OtherDoor))
