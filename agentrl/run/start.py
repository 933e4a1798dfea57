"""What a run starts from: demonstrations, a tokenizer trained on the world's text, and an untrained model."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from agentrl.errors import ConfigError, RunDirectoryError
from agentrl.learn.checkpoint import is_whole, writing_errors
from agentrl.policy.load import load_model, load_renderer, save_model
from agentrl.rollout.demonstrate import demonstrate
from agentrl.run.directory import RunDirectory
from agentrl.run.players import check_model_folder
from agentrl.run.shard import protocol_of
from agentrl.world.env import TextEnv
from agentrl.world.registry import make

if TYPE_CHECKING:
    from agentrl.policy.render import Renderer
    from agentrl.rollout.demonstrate import Demonstration
    from agentrl.run.settings import TrainSettings


def demonstrations_of(settings: TrainSettings) -> list[Demonstration]:
    """Return the run's fixed set of expert trajectories, the same for every call."""
    count = settings.warm_start.demonstrations
    if not count:
        return []
    env = make(settings.environment.id, **settings.environment.kwargs)
    if not isinstance(env, TextEnv):
        raise ConfigError(
            "demonstrations need a TextEnv; set warm_start.demonstrations = 0 for this environment."
        )
    size = env.num_tasks(settings.environment.split)
    if size is not None and size < count:
        raise ConfigError(
            f"warm_start.demonstrations is {count}, but split {settings.environment.split!r} has {size} "
            "tasks; lower it."
        )
    warm = settings.warm_start
    return demonstrate(
        env,
        settings.environment.split,
        range(count),
        noise=warm.noise,
        seed=warm.seed,
        protocol=protocol_of(settings.environment, env, _renderer_of(settings)),
        step_seconds=settings.limits.step_seconds,
    )


def _renderer_of(settings: TrainSettings) -> Renderer | None:
    """The renderer of the model that the run starts from, where the protocol is that model's own.

    Raises:
        ConfigError: the run builds its own model, which has no chat template.
    """
    if settings.environment.protocol != "native":
        return None
    path = _model_path(settings)
    if not path:
        raise ConfigError(
            'environment.protocol is "native", the calls of a model\'s own chat template, and this run '
            "builds a model that has none. Name a model folder in model.path, or choose another protocol."
        )
    return load_renderer(path, settings.model.renderer, variables=settings.model.template)


def _model_path(settings: TrainSettings) -> str:
    """The folder or hub name of the model to start from, checked; empty where the run builds one."""
    warm = settings.warm_start.path
    path = str(warm_start_folder(warm)) if warm else settings.model.path
    if path:
        check_model_folder(path)
    return path


def make_start(settings: TrainSettings, demonstrations: list[Demonstration], folder: Path) -> None:
    """Write the starting model and tokenizer to `folder` in the hub's format, whole or not at all.

    Raises:
        RunDirectoryError: the disk is full or read-only.
    """
    aside = folder.with_name(".start-writing")
    try:
        shutil.rmtree(aside, ignore_errors=True)  # of a run that was killed here
        aside.mkdir()
        _fill(settings, demonstrations, aside)
        shutil.rmtree(folder, ignore_errors=True)
        aside.rename(folder)
    except writing_errors() as error:
        raise RunDirectoryError(
            f"{folder} cannot be written: {error}. Free space or choose --out."
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _fill(settings: TrainSettings, demonstrations: list[Demonstration], folder: Path) -> None:
    shape = settings.model
    path = _model_path(settings)
    if path:
        model, renderer = load_model(path, shape.renderer, variables=shape.template)
        save_model(model, renderer, folder)
        return
    from agentrl.policy.build import ModelShape, build_model, train_tokenizer
    from agentrl.policy.render import Markup

    tokenizer = train_tokenizer(
        _texts(settings, demonstrations),
        vocabulary=shape.vocabulary,
        names=shape.whole_names,
        phrase_share=shape.phrase_share,
        number_digits=shape.number_digits,
        bare_words=shape.bare_words,
    )
    size = ModelShape(
        hidden=shape.hidden,
        layers=shape.layers,
        heads=shape.heads,
        kv_heads=shape.kv_heads,
        intermediate=shape.intermediate,
        context=shape.context,
    )
    save_model(build_model(tokenizer, size, seed=settings.seed), Markup(tokenizer), folder)


def warm_start_folder(path: str) -> Path:
    """Return the model folder that `warm_start.path` stands for: itself, or the warm start of a run.

    Raises:
        RunDirectoryError: the run has no whole warm start.
        ConfigError: nothing is there.
    """
    folder = Path(path).expanduser()
    if not RunDirectory(folder).started:
        if not (folder / "config.json").exists():
            raise ConfigError(
                f"warm_start.path is {path!r}, which is neither a run directory nor a folder with a model in "
                "the hub's format; name one of them."
            )
        return folder
    checkpoint = RunDirectory(folder).checkpoints / "warm-start"
    if not is_whole(checkpoint):
        raise RunDirectoryError(
            f"the run in {folder} has no whole checkpoint 'warm-start' yet, so warm_start.path cannot start "
            "from it. Resume that run first, or name another."
        )
    return checkpoint / "model"


def _texts(settings: TrainSettings, demonstrations: list[Demonstration]) -> list[str]:
    """The text a tokenizer is trained on: the demonstrations, or first observations where there are none."""
    if demonstrations:
        return [
            text
            for item in demonstrations
            for index, turn in enumerate(item.turns)
            for text in (item.shown(index), turn.action)
        ]
    env = make(settings.environment.id, **settings.environment.kwargs)
    size = env.num_tasks(settings.environment.split) or 256
    return [env.get_task(settings.environment.split, index).prompt for index in range(min(size, 256))]
