"""The settings of a training run and of an evaluation suite."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, JsonValue, model_validator

from agentrl.config import Settings
from agentrl.world.terms import Terms

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Count = Annotated[int, Field(ge=1)]
Whole = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Positive = Annotated[float, Field(gt=0.0)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Plain = bool | int | float | str
RendererName = Literal["auto", "template", "append", "markup"]
Arguments = dict[str, Plain | list[str] | dict[str, Plain]]
"""Of a world's constructor, as TOML gives them; a table stands for nested settings."""


class ToolTerms(Settings):
    """How often a tool may be called in a trajectory, and what each call costs; see `agentrl.world.Terms`."""

    calls: Whole | None = None
    cost: Annotated[float, Field(ge=0.0)] = 0.0

    @property
    def value(self) -> Terms:
        """The terms as the rollout takes them."""
        return Terms(self.calls, self.cost)


class EnvironmentSettings(Settings):
    """Which world: a registered id or "module:Class", and its constructor's arguments.

    `protocol` "auto" is plain text for a world that defines its own `step`, and the world's own protocol for
    a world of tools; "native" is the model's own form of calls. `tools` holds the terms of tools by name.
    """

    id: str = Field(examples=["agentrl/Household-v0"])
    kwargs: Arguments = Field(default_factory=dict)
    split: str = "train"
    protocol: str = "auto"
    tools: dict[str, ToolTerms] = Field(default_factory=dict)


class ModelSettings(Settings):
    """The policy's model: a folder or hub name in `path`, or the size of one built from a config.

    `renderer` "auto" is the model's chat template where it has one; "append" leaves out that template's
    rewriting of history. `template` gives variables that it reads, such as { enable_thinking = false }.
    """

    path: str = ""
    renderer: RendererName = "auto"
    template: dict[str, Plain] = Field(default_factory=dict)
    hidden: Count = 128
    layers: Count = 2
    heads: Count = 4
    kv_heads: Count = 2
    intermediate: Count = 384
    context: Count = 640
    slots: Count = 64
    vocabulary: Count = 1024
    whole_names: bool = True
    phrase_share: Share = 0.001
    number_digits: Annotated[int, Field(ge=0, le=3)] = 0
    bare_words: bool = False

    @model_validator(mode="after")
    def _heads_divide(self) -> ModelSettings:
        if self.hidden % self.heads or self.heads % self.kv_heads:
            raise ValueError("hidden must be a multiple of heads, and heads of kv_heads")  # pydantic shows it
        return self


class OptimizerSettings(Settings):
    """AdamW, or Muon for the hidden matrices with AdamW for the rest."""

    kind: Literal["adamw", "muon"] = "adamw"
    learning_rate: Positive = 4e-4
    matrix_learning_rate: Positive = 0.02
    beta_2: Share = 0.95
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.0
    max_grad_norm: Positive = 1.0
    warmup: Share = 0.03
    final: Share = 1.0


class WarmStartOptimizerSettings(OptimizerSettings):
    """Muon, with the rates that train a small model from scratch; one of them may be set alone."""

    kind: Literal["adamw", "muon"] = "muon"
    learning_rate: Positive = 3e-3
    final: Share = 0.05


class WarmStartSettings(Settings):
    """Supervised training on the expert's turns of disturbed demonstrations.

    `path` starts from a warm start made before instead: a model folder, or a run directory, whose warm start
    it takes.
    """

    path: str = ""
    demonstrations: Whole = 2000
    noise: Share = 0.25
    seed: Seed = 7
    steps: Whole = 600
    batch: Count = 16
    observation_weight: Share = 0.15
    evaluate_every: Whole = 200
    optimizer: WarmStartOptimizerSettings = WarmStartOptimizerSettings()


class ReinforcementSettings(Settings):
    """The reinforcement phase; `algorithm` names a recipe or "module:NAME".

    `optimizer` replaces the algorithm's own where it is given, `critic_optimizer` that of its critic.
    `answer_lead` is written before what the protocol writes, where the belief in a gold answer is measured.
    `rewards` adds components that the environment names (`info["rewards"]`) to what the algorithm takes as
    its reward, each with a weight; evaluations do not see them.
    `plan` replaces slots of its plan, for example `plan.brancher = { part = "Expand", trees = 2 }`; see
    `agentrl.run.slots.with_slots`. The phase ends after `steps`, or sooner, once `cpu_seconds` are spent or
    `sampled_tokens` drawn; 0 sets no such bound.
    """

    algorithm: str = "GIGPO"
    steps: Whole = 100
    tasks: Count = 16
    members: Count = 8
    temperature: Positive = 1.0
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    optimizer: OptimizerSettings | None = None
    critic_optimizer: OptimizerSettings | None = None
    answer_lead: str = ""
    rewards: dict[str, Finite] = Field(default_factory=dict)
    plan: dict[str, JsonValue] = Field(default_factory=dict)
    evaluate_every: Whole = 20
    first_task: Whole = 1_000_000
    most_invalid: Share = 0.1
    most_skipped: Whole = 20
    cpu_seconds: Annotated[float, Field(ge=0.0)] = 0.0
    sampled_tokens: Whole = 0


class ControlSettings(Settings):
    """More supervised training from the warm start, for as many CPU-seconds as the reinforcement phase took.

    `steps` fixes their number instead (for reproducible runs). `beside` trains it while the reinforcement
    phase is at work, in a process of its own beside the `processes` of the run, and not afterwards.
    """

    enabled: bool = False
    steps: Whole = 0
    beside: bool = False


class LimitSettings(Settings):
    """Bounds of one trajectory; see `agentrl.rollout.Limits`."""

    turns: Count = 30
    turn_tokens: Count = 16
    observation_tokens: Count | None = None
    step_seconds: Positive = 60.0
    trajectory_seconds: Positive | None = None
    repeats: Annotated[int, Field(ge=2)] | None = None


class EvaluationSettings(Settings):
    """How the run is judged: a small set for the curve, a large one at the end."""

    curve_split: str = "valid_seen"
    curve_tasks: Whole = 128
    final_split: str = "valid_unseen"
    final_tasks: Whole = 512
    first_task: Whole = 0


class TrainSettings(Settings):
    """Everything that defines a training run."""

    name: str = "run"
    seed: Seed = 1
    out: Path = Path("runs")
    processes: Annotated[int, Field(ge=1, le=64)] = 2
    shards: Annotated[int, Field(ge=1, le=64)] = 2
    reproducible: bool = False
    checkpoint_every: Count = 25
    keep_checkpoints: Annotated[int, Field(ge=2)] = 2
    micro_tokens: Count = 8192
    samples: Whole = 24
    environment: EnvironmentSettings
    model: ModelSettings = ModelSettings()
    warm_start: WarmStartSettings = WarmStartSettings()
    rl: ReinforcementSettings = ReinforcementSettings()
    control: ControlSettings = ControlSettings()
    limits: LimitSettings = LimitSettings()
    evaluation: EvaluationSettings = EvaluationSettings()

    @model_validator(mode="after")
    def _plain_name(self) -> TrainSettings:
        if self.name in {"", ".", ".."} or any(mark in self.name for mark in "/\\\0"):
            raise ValueError(
                f"name is {self.name!r}; it names a folder inside `out`, so write it without slashes. "
                "Set `out`, or --out, to write elsewhere"
            )  # pydantic shows it
        return self

    @model_validator(mode="after")
    def _one_start(self) -> TrainSettings:
        if self.warm_start.path and self.model.path:
            raise ValueError(
                "warm_start.path and model.path both name the model to start from; leave one out"
            )  # pydantic shows it
        return self

    @model_validator(mode="after")
    def _reproducible(self) -> TrainSettings:
        clocks = self.limits.trajectory_seconds is not None or self.rl.cpu_seconds > 0
        if self.reproducible and clocks:
            raise ValueError(
                "a reproducible run has no wall-clock limits; unset limits.trajectory_seconds, rl.cpu_seconds"
            )  # pydantic shows it
        if self.reproducible and self.control.enabled and not self.control.steps:
            raise ValueError(
                "a reproducible run needs control.steps, not a measured number of CPU-seconds"
            )  # pydantic shows it
        return self
