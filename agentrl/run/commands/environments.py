"""`agentrl envs list`, `show`, `check`, `play` and `new`."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

from cyclopts import App, Parameter

from agentrl.errors import AgentrlError, CheckError, ConfigError, RegistryError, as_sentence
from agentrl.run.commands.training import Json  # noqa: TC001  # cyclopts reads annotations

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

    from agentrl.world.asynchronous import AsyncTextEnv
    from agentrl.world.env import TextEnv
    from agentrl.world.registry import AnyEnv, EnvSpec

Texts = Annotated[list[str] | None, Parameter(negative="")]

HOOKS = ("observation_key", "state_key", "gold", "admissible", "expert", "snapshot")

app = App(name="envs", help="List, show, check, play and start environments.", version_flags=[])


@app.command(name="list")
def list_all(*, as_json: Json = False) -> None:
    """List all environments, without importing the packages that offer them.

    Args:
        as_json: print JSON.
    """
    from agentrl.world.registry import clashes, list_envs

    found = [(item, "") for name in list_envs() if (item := _offered(name)) is not None] + clashes()
    found.sort(key=lambda row: row[0].id)
    if as_json:
        print(json.dumps([{**_origin(item), **({"problem": why} if why else {})} for item, why in found]))
        return
    width = max((len(item.id) for item, _ in found), default=0)
    for item, why in found:
        broken = f"  cannot be used: {why}" if why else ""
        print(f"{item.id:<{width}}  {item.source}{_of(item.distribution)}{broken}")


@app.command
def show(env: str, /, *arguments: str, as_json: Json = False) -> None:
    """Show an environment: splits, tasks, hooks and the first observation.

    Args:
        env: an id, or "module:Class".
        arguments: constructor arguments, as name=value.
        as_json: print JSON.
    """
    from agentrl.world.closing import close_world
    from agentrl.world.registry import make_any, spec

    about = spec(env)
    made = make_any(env, **arguments_of(arguments))
    content = {
        **_origin(about),
        "description": about.description or _first_line(type(made).__doc__),
        "splits": {split: made.num_tasks(split) for split in made.list_splits()},
        "hooks": [name for name in HOOKS if _overrides(made, name)],
        "system_text": made.system_text(),
        "first_observation": _first_observation(made),
    }
    close_world(made)
    if as_json:
        print(json.dumps(content))
        return
    print(_described(about, content))


def _offered(name: str) -> EnvSpec | None:
    """The spec of an id, None where several packages claim it."""
    from agentrl.world.registry import spec

    try:
        return spec(name)
    except RegistryError:
        return None


def _described(about: EnvSpec, content: Mapping[str, object]) -> str:
    sizes = cast("Mapping[str, int | None]", content["splits"])
    splits = (f"{name} ({'no end' if size is None else f'{size} tasks'})" for name, size in sizes.items())
    system = f"{content['system_text']}\n\n" if content["system_text"] else ""
    return (
        f"{about.id}: {content['description']}\n"
        f"Source: {about.source}{_of(about.distribution)}\n"
        f"Splits: {', '.join(splits)}\n"
        f"Hooks: {', '.join(cast('list[str]', content['hooks'])) or 'none'}\n\n"
        f"{system}{content['first_observation']}"
    )


def _of(distribution: str) -> str:
    return f"  ({distribution})" if distribution else ""


@app.command
def check(
    env: str, /, *arguments: str, action: Texts = None, processes: bool = True, as_json: Json = False
) -> int:
    """Check an environment against the contract; exit with 1 where it is broken.

    Args:
        env: an id, or "module:Class".
        arguments: constructor arguments, as name=value.
        action: a text to play; give it once for each turn, so that an episode comes to its end. By default
            admissible commands are played.
        processes: play in two other processes, too, where sets of texts have another order.
        as_json: print JSON.
    """
    from agentrl.testing import check_env

    given = arguments_of(arguments)
    made = _Made(env, given) if given else env
    report = check_env(made, actions=action or (), processes=processes)
    if as_json:
        findings = [{"severity": f.severity, "check": f.check, "message": f.message} for f in report.findings]
        print(json.dumps({"subject": report.subject, "checks": report.checks, "findings": findings}))
    else:
        print(report)
    return 0 if report else 1


@app.command
def play(env: str, /, *arguments: str, split: str = "", index: int = 0, seed: int = 0) -> None:
    r"""Play an environment at the keyboard: ? lists the admissible commands, :q quits, a final \ continues.

    Args:
        env: an id, or "module:Class".
        arguments: constructor arguments, as name=value.
        split: which split; the first one by default.
        index: which task.
        seed: of the environment.
    """
    from agentrl.world.closing import close_world
    from agentrl.world.registry import make

    for option, number in (("--seed", seed), ("--index", index)):
        if number < 0:
            raise ConfigError(f"{option} is a whole number from 0 on; got {number}.")
    made = make(env, **arguments_of(arguments))
    options: dict[str, object] = {"split": split or made.list_splits()[0], "index": index}
    with _blamed(made):
        observation, _ = made.reset(seed=seed, options=options)
    if made.system_text():
        print(made.system_text(), end="\n\n")
    print(observation)
    try:
        print(_episode(made, input))
    finally:
        close_world(made)


@app.command
def new(name: str, /) -> None:
    """Write a package with a small environment, its test and its scenarios into a new folder, to be changed.

    Args:
        name: of the package and the folder: small letters, digits and underscores. A hyphen stays one in the
            folder's name and is an underscore in the package's.
    """
    from agentrl.run.scaffold import write_package

    folder = write_package(name, Path.cwd())
    print(f"Written to {folder}. Next: python -m pip install -e {name}, then see {name}/README.md.")


def _written(read: Callable[[str], str]) -> str:
    r"""What was typed; a line that ends in a backslash goes on in the next one, for blocks of code."""
    lines = [read("> ")]
    while lines[-1].endswith("\\"):
        lines.append(read(". "))
    return "\n".join(line.removesuffix("\\") for line in lines).strip()


@contextlib.contextmanager
def _blamed(env: TextEnv) -> Generator[None]:
    """What a world raises is the world's defect, not ours."""
    try:
        yield
    except AgentrlError:
        raise
    except Exception as error:
        raise CheckError(
            f"{type(env).__name__} raised {type(error).__name__}: {as_sentence(error)} Mend the environment; "
            "`agentrl envs check` plays it and says more."
        ) from error


def _episode(env: TextEnv, read: Callable[[str], str]) -> str:
    """Play to the end, and say how it ended."""
    total, turns = 0.0, 0
    while True:
        try:
            line = _written(read)
        except EOFError:
            line = ":q"
        if line == ":q":
            return f"Left after {turns} turns, reward {total:g}."
        if line == "?":
            commands = env.admissible()
            print("\n".join(commands) if commands else "This environment lists no commands.")
            continue
        with _blamed(env):
            observation, reward, terminated, truncated, info = env.step(line)
        turns, total = turns + 1, total + reward
        print(observation)
        if terminated or truncated:
            ended = "ended" if terminated else "was cut"
            verdict = {None: "", True: ", success"}.get(
                cast("bool | None", info.get("success")), ", no success"
            )
            return f"The episode {ended} after {turns} turns, reward {total:g}{verdict}."


@dataclass(frozen=True)
class _Made:
    """Makes an environment with arguments."""

    id: str
    arguments: Mapping[str, object]

    def __call__(self) -> TextEnv:
        from agentrl.world.registry import make

        return make(self.id, **self.arguments)

    def __repr__(self) -> str:
        return f"{self.id}({', '.join(f'{name}={value!r}' for name, value in self.arguments.items())})"


def arguments_of(given: tuple[str, ...]) -> dict[str, object]:
    """Return constructor arguments from `name=value`. Raises `ConfigError` for what cannot be read."""
    from agentrl.config import apply_override

    arguments: dict[str, object] = {}
    for item in given:
        if "=" not in item:
            raise ConfigError(f"an argument has the form name=value; got {item!r}.")
        apply_override(arguments, item)
    return arguments


def _origin(item: EnvSpec) -> dict[str, object]:
    return {"id": item.id, "source": item.source, "distribution": item.distribution}


def _overrides(env: AnyEnv, hook: str) -> bool:
    from agentrl.world.asynchronous import AsyncTextEnv
    from agentrl.world.env import TextEnv

    base = TextEnv if isinstance(env, TextEnv) else AsyncTextEnv
    return getattr(type(env), hook, None) is not getattr(base, hook, None)


def _first_observation(env: AnyEnv) -> str:
    from agentrl.world.env import TextEnv

    options: dict[str, object] = {"split": env.list_splits()[0], "index": 0}
    if isinstance(env, TextEnv):
        return env.reset(seed=0, options=options)[0]
    return asyncio.run(_reset(env, options))


async def _reset(env: AsyncTextEnv, options: dict[str, object]) -> str:
    observation, _ = await env.reset(seed=0, options=options)
    return observation


def _first_line(text: str | None) -> str:
    return text.strip().splitlines()[0] if text else ""
