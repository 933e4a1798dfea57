"""Who plays an evaluation: `random`, `expert`, `hf:PATH`, `openai:URL#model`, or a run and a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agentrl.errors import ConfigError, PolicyError, RunDirectoryError, did_you_mean
from agentrl.rollout.memory import whole_history
from agentrl.run.directory import RunDirectory
from agentrl.run.settings import ModelSettings
from agentrl.run.slots import memory_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from agentrl.policy.base import Policy
    from agentrl.policy.openai import OpenAIPolicy
    from agentrl.policy.render import Renderer
    from agentrl.rollout.memory import Memory
    from agentrl.run.shard import Actor
    from agentrl.run.suite import DecodingSettings, ServerSettings

LONGEST_CONTEXT = 4096
"""Tokens of cache for each slot where the model could hold more; `model.context` says otherwise."""


@dataclass(frozen=True)
class Player:
    """One policy of an evaluation.

    Attributes:
        name: as the user wrote it; `actor`: who acts on the shards.
        folder: the model's folder in the hub's format, or hub name; None for players without a model.
        shape: how the model is decoded; None takes the suite's settings and the model's own context.
        policy: an object of the user's own, which plays in this process.
        memory: what of its past it is shown: of a run's policy, what it was trained with.
    """

    name: str
    actor: Actor = "model"
    folder: Path | None = None
    shape: ModelSettings | None = None
    policy: Policy | None = None
    memory: Memory = whole_history

    @property
    def samples(self) -> bool:
        """Whether greedy and sampled play can differ."""
        return self.folder is not None or self.policy is not None


def player_of(policy: str | Policy, server: ServerSettings | None = None) -> Player:
    """Return the player that a name or a policy object stands for.

    Args:
        server: how the servers of `openai:URL#model` are asked.

    Raises:
        ConfigError: the name is neither a player nor a run directory.
        PolicyError: there is no such model folder.
        RunDirectoryError: the run has no such checkpoint.
    """
    if not isinstance(policy, str):
        return Player(policy.name, policy=policy)
    if policy == "random":
        return Player(policy, "random")
    if policy == "expert":
        return Player(policy, "expert")
    if policy.startswith("hf:"):
        return Player(policy, folder=check_model_folder(policy.removeprefix("hf:")))
    if policy.startswith("openai:"):
        return Player(policy, policy=served_policy(policy, server))
    path, _, checkpoint = (policy, "", "") if Path(policy).is_dir() else policy.rpartition(":")
    if not path or not RunDirectory(Path(path)).started:
        raise ConfigError(
            f"there is no policy {policy!r}.{did_you_mean(policy, ('random', 'expert'))} A policy is random, "
            "expert, hf:PATH for a model in the hub's format, openai:URL#MODEL for one behind a server, or a "
            "run directory such as runs/mine:trained."
        )
    return _from_run(policy, RunDirectory(Path(path)), checkpoint or "trained")


def served_policy(name: str, settings: ServerSettings | None = None) -> OpenAIPolicy:
    """Return the policy that `openai:URL,URL#MODEL` stands for.

    Raises:
        ConfigError: an address is wrong.
        PolicyError: there is no tokenizer where the settings say.
    """
    from agentrl.http import Patience
    from agentrl.policy.openai import OpenAIPolicy, Prices
    from agentrl.run.suite import ServerSettings

    server = settings or ServerSettings()
    urls, _, model = name.removeprefix("openai:").partition("#")
    renderer = None
    if server.tokenizer:
        from agentrl.policy.load import load_renderer

        renderer = load_renderer(server.tokenizer)
    return OpenAIPolicy(
        [url.strip() for url in urls.split(",") if url.strip()],
        model,
        renderer,
        key_variable=server.key_variable,
        patience=Patience(
            total_seconds=server.seconds, attempts=server.attempts, most_bytes=server.most_bytes
        ),
        concurrency=server.concurrency,
        per_minute=server.per_minute,
        prices=Prices(server.price_prompt, server.price_completion),
        logprobs=server.logprobs,
        extra=server.extra,
        name=name,
    )


def check_model_folder(given: str) -> Path:
    """Return a model's folder or hub name as a path. Raises `PolicyError` for a folder that is missing."""
    folder = Path(given).expanduser()
    if looks_local(given) and not folder.is_dir():
        raise PolicyError(f"there is no model folder {given}. Give one in the hub's format, or a hub name.")
    return folder


def _from_run(name: str, run: RunDirectory, checkpoint: str) -> Player:
    folder = run.checkpoints / checkpoint / "model"
    if not folder.is_dir():
        found = sorted(path.parent.name for path in run.checkpoints.glob("*/model"))
        raise RunDirectoryError(
            f"the run in {run.path} has no checkpoint {checkpoint!r}.{did_you_mean(checkpoint, found)} "
            f"It has {', '.join(found) or 'none yet'}; name one as {run.path}:NAME."
        )
    shape = ModelSettings.model_validate(run.settings().get("model", {}))
    return Player(name, folder=folder, shape=shape, memory=memory_of(run.algorithm()))


@dataclass(frozen=True)
class Loaded:
    """A player's model in this process, or nothing for a player without one."""

    shape: ModelSettings
    model: PreTrainedModel | None = None
    renderer: Renderer | None = None


def load_player(player: Player, decoding: DecodingSettings) -> Loaded:
    """Load a player's model where it has one; without one nothing heavy is imported.

    Raises:
        MissingExtraError: torch or transformers is not installed.
        PolicyError: nothing loadable is there.
    """
    shape = player.shape or ModelSettings(
        renderer=decoding.renderer, template=decoding.template, slots=decoding.slots
    )
    if player.folder is None:
        return Loaded(shape)
    from agentrl.policy.load import load_model

    model, renderer = load_model(str(player.folder), shape.renderer, variables=shape.template)
    import torch

    torch.set_num_threads(1)
    if player.shape is None:
        own = int(getattr(model.config, "max_position_embeddings", LONGEST_CONTEXT))
        shape = shape.model_copy(update={"context": decoding.context or min(own, LONGEST_CONTEXT)})
    return Loaded(shape, model, renderer)


def looks_local(path: str) -> bool:
    """Return whether a path cannot be a hub name, which is `name` or `owner/name`."""
    return path.startswith((".", "/", "~")) or path.count("/") > 1
