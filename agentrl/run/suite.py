"""The settings of an evaluation suite: a world, tasks of its splits, and who plays them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from agentrl.config import Settings
from agentrl.run.settings import (
    Count,
    EnvironmentSettings,
    LimitSettings,
    Plain,
    Positive,
    RendererName,
    Share,
    Whole,
)

Mode = Literal["sampled", "greedy"]


class ScenarioSettings(Settings):
    """Some tasks of one split and how they are played.

    `turns` overrides `limits.turns`; `threshold` is the success that the interval's lower bound must reach.
    """

    split: str = Field(examples=["valid_seen"])
    name: str = ""
    tasks: Count = 512
    first_task: Whole = 0
    rollouts: Count = 1
    modes: tuple[Mode, ...] = ("sampled", "greedy")
    temperature: Positive = 1.0
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    turns: Count | None = None
    threshold: Share | None = None

    @property
    def title(self) -> str:
        """The name, or the split where there is none."""
        return self.name or self.split


class DecodingSettings(Settings):
    """How a model that comes without a run directory is decoded; `context` is the model's own by default."""

    renderer: RendererName = "auto"
    template: dict[str, Plain] = Field(default_factory=dict)
    context: Count | None = None
    slots: Count = 64


class ServerSettings(Settings):
    """How models behind OpenAI-compatible servers are asked; see `agentrl.policy.openai.OpenAIPolicy`.

    `tokenizer` is the served model's folder or hub name: with it turns are exact tokens (vLLM), without it
    text. `extra` is added to each call's body. `prices` are those of a million tokens.
    """

    tokenizer: str = ""
    key_variable: str = "OPENAI_API_KEY"
    concurrency: Count = 64
    per_minute: Annotated[float, Field(ge=0.0)] = 0.0
    seconds: Positive = 120.0
    attempts: Count = 6
    most_bytes: Count = 32 << 20
    logprobs: Literal["raw", "processed"] = "raw"
    price_prompt: Annotated[float, Field(ge=0.0)] = 0.0
    price_completion: Annotated[float, Field(ge=0.0)] = 0.0
    extra: dict[str, Plain | dict[str, Plain]] = Field(default_factory=dict)


class EvaluationSuite(Settings):
    """What `agentrl eval` plays: every scenario by every policy."""

    name: str = "evaluation"
    policies: tuple[str, ...] = ()
    processes: Annotated[int, Field(ge=1, le=64)] = 2
    shards: Annotated[int, Field(ge=1, le=64)] = 2
    most_invalid: Share = 0.1
    environment: EnvironmentSettings
    scenario: Annotated[tuple[ScenarioSettings, ...], Field(min_length=1)]
    model: DecodingSettings = DecodingSettings()
    server: ServerSettings = ServerSettings()
    limits: LimitSettings = LimitSettings()

    @model_validator(mode="after")
    def _titles_differ(self) -> EvaluationSuite:
        titles = [scenario.title for scenario in self.scenario]
        twice = next((title for title in titles if titles.count(title) > 1), None)
        if twice is not None:
            # pydantic shows it
            raise ValueError(f"two scenarios are called {twice!r}; give each a name of its own")
        return self

    def limits_of(self, scenario: ScenarioSettings) -> LimitSettings:
        """Return the bounds of a scenario's trajectories."""
        turns = scenario.turns
        return self.limits if turns is None else self.limits.model_copy(update={"turns": turns})
