"""What a training step costs: TRL's `GRPOTrainer` with an environment, and ours, on the same work.

The household world behind one tool, the same weights, the same tokens (TRL's own copy of the Qwen2.5 chat
template, `<tool_call>` JSON), 16 tasks x 4 members, one optimizer step, one thread, float32. As TRL does, an
episode ends with the first turn that holds no readable call, not with the task. Before anything is timed the
two must agree: token ids of the prompt and of the tools' answers, log-probabilities of the same tokens; and
afterwards: the number of trajectories, sampled tokens for each within `TOLERANCE`.

    python -m tests.benchmarks.bench_trl [--steps 4] [--turns 16] [--quick]

TRL is set up in its favour: no gradient checkpointing, float32 (its bfloat16 default is slower on most CPUs),
no completions logged, and a turn is bounded (its default bounds the whole completion only).
"""

from __future__ import annotations

import argparse
import gc
import importlib
import importlib.util
import itertools
import json
import logging
import os
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.update(
    OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false", HF_HUB_OFFLINE="1"
)

import numpy as np
import torch
from transformers import PrinterCallback, TrainerCallback

from agentrl.learn.gradient import policy_gradient
from agentrl.learn.learner import Learner
from agentrl.learn.loss import prepare
from agentrl.learn.supervised import Example, examples_of
from agentrl.policy.base import Sampling
from agentrl.policy.build import ModelShape, train_tokenizer
from agentrl.policy.hf import HfPolicy
from agentrl.policy.load import renderer_for
from agentrl.recipes import GRPO
from agentrl.rollout import Limits, Play, Stock, assign_groups, collect, complete_groups
from agentrl.rollout.demonstrate import DemonstratedTurn, Demonstration, demonstrate
from agentrl.trajectory.pack import pack
from agentrl.world.env import Task, TextEnv
from agentrl.world.parsing import Parsed
from agentrl.world.protocol import JsonCalls
from agentrl.world.tool import tool
from agentrl_envs.household.env import HouseholdEnv
from tests.benchmarks.warm_start import WarmStart

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from agentrl.policy.render import Renderer
    from agentrl.trajectory import Trajectory
    from agentrl.world.env import StepResult

SYSTEM = "You act in a house. Call the tool once in each turn."
SPLIT, SEED, FIRST_TASK = "train", 3, 1_000_000
CONTEXT, MICRO_ROWS = 2048, 16
TOLERANCE, CLOSE = 0.1, 1e-4
MARKUP = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TAGS = ("<tool_call>", "</tool_call>")


@dataclass(frozen=True)
class Size:
    """How much work one step is."""

    tasks: int = 16
    members: int = 4
    turns: int = 16
    turn_tokens: int = 64
    steps: int = 4
    tolerance: float = TOLERANCE

    @property
    def trajectories(self) -> int:
        return self.tasks * self.members

    def indices(self, step: int) -> list[int]:
        first = FIRST_TASK + step * self.tasks
        return list(range(first, first + self.tasks))


# -- the world, once for each side ---------------------------------------------------------------------


class House:
    """The household as both sides play it: commands in, texts out, a share of accepted commands as reward."""

    def __init__(self) -> None:
        self.env = HouseholdEnv("small")
        self.done, self.commands, self.accepted = False, 0, 0

    def begin(self, index: int) -> str:
        observation, _ = self.env.reset(seed=index, options={"split": SPLIT, "index": index})
        self.done, self.commands, self.accepted = False, 0, 0
        return observation

    def do(self, command: str) -> str:
        self.commands += 1
        if self.done:
            return "The task is done."
        observation, _, self.done, _, info = self.env.step(command)
        self.accepted += bool(info["valid"])
        return observation

    @property
    def reward(self) -> float:
        return float(self.done) + self.accepted / max(self.commands, 1)


class TrlHouse:
    """The world as TRL wants it; its docstrings and type hints become the tool's schema."""

    def __init__(self) -> None:
        self._house = House()

    def reset(self, **row: Any) -> str:
        return self._house.begin(row["index"])

    def act(self, command: str) -> str:
        """Execute one command in the house.

        Args:
            command: the command, such as go to shelf 1
        """
        return self._house.do(command)

    def get_reward(self) -> float:
        return self._house.reward


# Transformers would add "return" to the tool's schema, which ours does not have.
del TrlHouse.act.__annotations__["return"]


class OurHouse(TextEnv):
    """The world as an environment of ours. A turn without a call ends the episode, as in TRL."""

    def __init__(self) -> None:
        super().__init__()
        self.house = House()

    def num_tasks(self, split: str) -> int:
        return self.house.env.num_tasks(split)

    def get_task(self, split: str, index: int) -> Task:
        return self.house.env.get_task(split, index)

    def reset(
        self, *, seed: int | None = None, options: dict[str, object] | None = None
    ) -> tuple[str, dict[str, object]]:
        index = (options or {}).get("index")
        observation = self.house.begin(index if isinstance(index, int) else 0)
        self.task = self.house.env.task
        return observation, {}

    def system_text(self) -> str:
        return f"{SYSTEM}\n\n{super().system_text()}"

    @tool
    def act(self, command: str) -> str:
        """Execute one command in the house.

        Args:
            command: the command, such as go to shelf 1
        """
        return self.house.do(command)

    def step(self, action: str) -> StepResult:
        before = self.house.reward
        observation, _, _, truncated, info = super().step(action)
        called = bool(info["tool_calls"])
        return observation, self.house.reward - before, not called, truncated, info


class Calls(JsonCalls):
    """JSON calls; what cannot be read is an answer, so that it ends the episode as it does in TRL."""

    def parse(self, text: str) -> Parsed:
        parsed = super().parse(text)
        return parsed if parsed.error is None else Parsed(parsed.text, answer=parsed.text or "nothing")


# -- what both start from ------------------------------------------------------------------------------


def call_of(command: str) -> str:
    """Write a command as the chat template writes a call."""
    arguments = json.dumps({"command": command})
    return f'<tool_call>\n{{"name": "act", "arguments": {arguments}}}\n</tool_call>'


def demonstrations(count: int) -> list[Demonstration]:
    """The expert's episodes as conversations with a tool."""
    world, protocol = OurHouse(), Calls()
    world.protocol = protocol
    system = world.system_text()
    played = demonstrate(HouseholdEnv("small"), SPLIT, range(count), noise=0.1, seed=7)
    return [
        Demonstration(
            item.task,
            system,
            tuple(
                DemonstratedTurn(turn.observation, call_of(turn.action), turn.learn) for turn in item.turns
            ),
            protocol,
        )
        for item in played
    ]


def make_tokenizer(played: Sequence[Demonstration], template: str) -> PreTrainedTokenizerBase:
    """Words of the world's conversations as tokens, with the markup of Qwen2.5."""
    texts = [
        text
        for item in played
        for index, turn in enumerate(item.turns)
        for text in (item.shown(index), turn.action)
    ]
    preamble = [item.system for item in played[::10]]
    tokenizer = train_tokenizer([*texts, *preamble], vocabulary=1024, phrase_share=1.0)
    tokenizer.add_tokens(list(TAGS))
    tokenizer.add_special_tokens(
        {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "additional_special_tokens": list(MARKUP)}
    )
    tokenizer.chat_template = template
    return tokenizer


@dataclass
class Start:
    """What both sides begin with; `model()` gives each its own copy of the weights."""

    tokenizer: PreTrainedTokenizerBase
    shape: ModelShape
    examples: list[Example]
    warm: WarmStart

    @property
    def renderer(self) -> Renderer:
        return renderer_for(self.tokenizer, kind="template")

    def model(self) -> PreTrainedModel:
        return self.warm(self.tokenizer, self.shape, self.examples)


def make_start(warm: WarmStart) -> Start:
    """Build the tokenizer and the demonstrations; the model is trained when first asked for."""
    template = Path(str(trl_module().__file__)).parent / "chat_templates" / "qwen2_5.jinja"
    played = demonstrations(320)
    tokenizer = make_tokenizer(played, template.read_text())
    renderer = renderer_for(tokenizer, kind="template")
    examples = [one for item in played for one in examples_of(item, renderer, observation_weight=0.1)]
    return Start(tokenizer, ModelShape(context=CONTEXT), examples, warm)


# -- what is measured ----------------------------------------------------------------------------------


@dataclass
class Cost:
    """What the steps of one side cost and did, one entry for each step."""

    name: str
    seconds: list[float] = field(default_factory=list[float])
    rollout: list[float] = field(default_factory=list[float])
    trajectories: list[int] = field(default_factory=list[int])
    turns: list[int] = field(default_factory=list[int])
    sampled: list[int] = field(default_factory=list[int])
    observed: list[int] = field(default_factory=list[int])

    def per(self, counts: list[int]) -> float:
        """Smallest CPU-seconds for each counted thing over the steps."""
        return min(spent / count for spent, count in zip(self.seconds, counts, strict=True))

    @property
    def trained(self) -> list[int]:
        """Sampled and observed tokens after the prompt."""
        return [first + second for first, second in zip(self.sampled, self.observed, strict=True)]

    @property
    def sampled_each(self) -> float:
        return sum(self.sampled) / sum(self.trajectories)


def run_ours(start: Start, size: Size) -> tuple[Cost, list[Trajectory]]:
    """Train for some steps; return the cost and the trajectories of the first step."""
    model = start.model()
    learner = Learner(model, GRPO.optimizer)
    policy = HfPolicy(model, start.renderer, slots=size.trajectories, context=CONTEXT)
    limits = Limits(turns=size.turns, turn_tokens=size.turn_tokens, trajectory_tokens=CONTEXT)
    play = Play(policy, Calls(), Sampling(max_tokens=size.turn_tokens), limits)
    stock, cost = Stock(OurHouse), Cost("agentrl")
    first: list[Trajectory] = []
    for step in range(size.steps + 1):
        gc.collect()
        begin = time.process_time()
        policy.refresh()
        assignments = assign_groups(SPLIT, size.indices(step), members=size.members, seed=SEED, step=step)
        harvest = complete_groups(collect(stock, play, assignments, concurrency=size.trajectories))
        middle = time.process_time()
        batch = pack(harvest.trajectories)
        credit = GRPO.credit(batch)
        # Every stream, also those whose advantage is 0, as TRL does; `reinforce` leaves those out.
        streams = np.arange(len(batch.stream_turn_start) - 1, dtype=np.int64)
        part = policy_gradient(model, GRPO, batch, prepare(GRPO, batch, credit), streams)
        learner.step(part.gradient, step / (size.steps + 1))
        end = time.process_time()
        first = first or list(harvest.trajectories)
        if step:  # the first step allocates
            prompts = sum(len(item.turns[0].prompt_tokens) for item in harvest.trajectories)
            _note(cost, end - begin, middle - begin, batch.num_trajectories, batch.num_turns)
            cost.sampled.append(len(batch.logprob))
            cost.observed.append(batch.num_tokens - prompts - len(batch.logprob))
    return cost, first


def _note(cost: Cost, seconds: float, rollout: float, trajectories: int, turns: int) -> None:
    cost.seconds.append(seconds)
    cost.rollout.append(rollout)
    cost.trajectories.append(trajectories)
    cost.turns.append(turns)


class Clock(TrainerCallback):
    """CPU time at the end of each optimizer step."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        gc.collect()
        self.ends.append(time.process_time())


@dataclass
class Generated:
    """What one call of TRL's rollout gave, and what it cost."""

    prompts: list[list[int]]
    completions: list[list[int]]
    masks: list[list[int]]
    seconds: float


class TrlSide:
    """TRL's trainer with ears: every rollout is noted."""

    def __init__(self, start: Start, size: Size, folder: str) -> None:
        self.size, self.clock = size, Clock()
        self.generated: list[Generated] = []
        self.trainer: Any = self._make(start, folder)
        self.trainer.remove_callback(PrinterCallback)
        self._generate = self.trainer._generate
        self.trainer._generate = self._listen

    def _make(self, start: Start, folder: str) -> Any:
        trl, datasets = trl_module(), importlib.import_module("datasets")
        size = self.size
        rows = [
            {
                "prompt": [{"role": "system", "content": SYSTEM}, {"role": "user", "content": ""}],
                "index": index,
            }
            for step in range(size.steps + 1)
            for index in size.indices(step)
        ]
        micro = min(MICRO_ROWS, size.trajectories)
        settings = trl.GRPOConfig(
            output_dir=folder, use_cpu=True, bf16=False, gradient_checkpointing=False, seed=SEED,
            per_device_train_batch_size=micro, gradient_accumulation_steps=size.trajectories // micro,
            num_generations=size.members, max_steps=size.steps + 1, shuffle_dataset=False,
            max_completion_length=CONTEXT - 512, max_tool_calling_iterations=size.turns - 1,
            generation_kwargs={"max_new_tokens": size.turn_tokens}, learning_rate=1e-6, weight_decay=0.01,
            lr_scheduler_type="constant", logging_strategy="no", save_strategy="no", report_to="none",
            disable_tqdm=True, dataloader_pin_memory=False,
        )  # fmt: skip
        return trl.GRPOTrainer(
            model=start.model(), args=settings, train_dataset=datasets.Dataset.from_list(rows),
            processing_class=start.tokenizer, environment_factory=TrlHouse, callbacks=[self.clock],
        )  # fmt: skip

    def _listen(self, prompts: list[Any]) -> Any:
        begin = time.process_time()
        result = self._generate(prompts)
        seconds = time.process_time() - begin
        self.generated.append(
            Generated([list(ids) for ids in result[0]], [list(ids) for ids in result[1]], result[2], seconds)
        )
        return result

    def run(self) -> Cost:
        self.trainer.train()
        cost, ends = Cost(f"TRL {trl_module().__version__}"), self.clock.ends
        for step in range(1, self.size.steps + 1):
            made = self.generated[step]
            turns = sum(_runs(mask) for mask in made.masks)
            _note(cost, ends[step] - ends[step - 1], made.seconds, len(made.completions), turns)
            cost.sampled.append(sum(map(sum, made.masks)))
            cost.observed.append(sum(map(len, made.masks)) - cost.sampled[-1])
        return cost

    def logprobs(self, trajectories: Sequence[Trajectory]) -> list[torch.Tensor]:
        """Log-probabilities of everything after the prompt, by TRL's own scoring."""
        heads = [item.turns[0].prompt_tokens for item in trajectories]
        tails = [np.concatenate(_tokens(item)[1:]) for item in trajectories]
        left, right = max(map(len, heads)), max(map(len, tails))
        ids = torch.zeros(len(heads), left + right, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, (head, tail) in enumerate(zip(heads, tails, strict=True)):
            place = slice(left - len(head), left + len(tail))
            ids[row, place] = torch.from_numpy(np.concatenate([head, tail])).long()
            mask[row, place] = 1
        model = self.trainer.model
        with torch.no_grad():
            scored = self.trainer._get_per_token_logps_and_entropies(model, ids, mask, right)[0]
        return [row[: len(tail)] for row, tail in zip(scored, tails, strict=True)]


def _runs(mask: list[int]) -> int:
    """How many turns: runs of sampled tokens."""
    return int((np.diff([0, *mask]) == 1).sum())


def _tokens(trajectory: Trajectory) -> list[np.ndarray[Any, Any]]:
    """The prompt, the first sampled turn, the next observation, and so on."""
    return [
        part
        for turn in trajectory.turns
        for part in (turn.prompt_tokens, turn.tokens if turn.tokens is not None else np.zeros(0, np.int32))
    ]


# -- equality ------------------------------------------------------------------------------------------


def check_prompts(side: TrlSide, first: Sequence[Trajectory]) -> None:
    """The first prompts of the first step are the same ids."""
    theirs = side.generated[0].prompts
    assert len(theirs) == len(first), f"{len(theirs)} trajectories against {len(first)}"
    for ids, trajectory in zip(theirs, first, strict=True):
        assert ids == trajectory.turns[0].prompt_tokens.tolist(), f"the prompts of {trajectory.task} differ"


def check_observations(side: TrlSide, start: Start) -> None:
    """What TRL put between two sampled turns is what our renderer puts there for the same text."""
    renderer, tokenizer, compared = start.renderer, start.tokenizer, 0
    for completion, mask in zip(side.generated[0].completions, side.generated[0].masks, strict=True):
        edges = [0, *(np.flatnonzero(np.diff(mask)) + 1).tolist(), len(mask)]
        for begin, end in itertools.pairwise(edges):
            if mask[begin]:
                continue
            written = str(tokenizer.decode(completion[begin:end]))
            said = written.partition("<tool_response>\n")[2].partition("\n</tool_response>")[0]
            ours = renderer.extend(Calls().render(said), closed=True).tolist()
            assert completion[begin:end] == ours, f"an answer of the tool is tokenised differently: {said!r}"
            compared += 1
    assert compared, "TRL called no tool"


def check_logprobs(side: TrlSide, trajectories: Sequence[Trajectory]) -> float:
    """Our log-probabilities as sampled, against TRL's scoring of the same tokens with the same weights."""
    worst = 0.0
    for item, scored in zip(trajectories, side.logprobs(trajectories), strict=True):
        place = 0
        for number, turn in enumerate(item.turns):
            place += len(turn.prompt_tokens) if number else 0
            if turn.tokens is None or turn.logprobs is None:
                continue
            ours = torch.from_numpy(np.asarray(turn.logprobs))
            worst = max(worst, float((scored[place : place + len(ours)] - ours).abs().max()))
            place += len(ours)
    assert worst < CLOSE, f"log-probabilities of the same tokens differ by {worst:.1e}"
    return worst


def check_work(ours: Cost, theirs: Cost, size: Size) -> None:
    """Both trained the same number of trajectories and about the same number of sampled tokens in each."""
    assert ours.trajectories == theirs.trajectories == [size.trajectories] * size.steps
    apart = abs(ours.sampled_each / theirs.sampled_each - 1)
    assert apart <= size.tolerance, f"sampled tokens per trajectory differ by {apart:.0%}"


# -- the table -----------------------------------------------------------------------------------------


def show(ours: Cost, theirs: Cost) -> None:
    """Print both sides and the ratios."""
    print(f"{'':12s} {'CPU-s/step':>10s} {'rollout':>8s} {'turns':>6s} {'sampled':>8s} {'observed':>8s} "
          f"{'ms/trajectory':>13s} {'us/token':>8s} {'ms/turn':>8s}")  # fmt: skip
    for cost in (theirs, ours):
        count = len(cost.seconds)
        print(f"{cost.name:12s} {min(cost.seconds):10.2f} {min(cost.rollout):8.2f} "
              f"{sum(cost.turns) / count:6.0f} "
              f"{sum(cost.sampled) / count:8.0f} {sum(cost.observed) / count:8.0f} "
              f"{1e3 * cost.per(cost.trajectories):13.1f} {1e6 * cost.per(cost.trained):8.0f} "
              f"{1e3 * cost.per(cost.turns):8.2f}")  # fmt: skip
    pairs = (
        ("trained trajectory", ours.trajectories, theirs.trajectories),
        ("trained token", ours.trained, theirs.trained),
        ("turn", ours.turns, theirs.turns),
    )
    for name, mine, other in pairs:
        print(f"ours / TRL, CPU-seconds per {name}: {ours.per(mine) / theirs.per(other):.3f}")


def trl_module() -> Any:
    """TRL, which has neither stubs nor a place among our dependencies."""
    return importlib.import_module("trl")


def _quiet() -> None:
    os.environ.update(TRL_EXPERIMENTAL_SILENCE="1", HF_DATASETS_DISABLE_PROGRESS_BARS="1")
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)


def main() -> int:
    """Compare, time, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, default=4, help="timed steps of each side, after one untimed")
    parser.add_argument("--turns", type=int, default=16)
    parser.add_argument("--quick", action="store_true", help="a small run that shows that everything holds")
    options = parser.parse_args()
    if importlib.util.find_spec("trl") is None:
        print("TRL is not installed, so nothing was compared; `pip install trl==1.16.0` into an environment.")
        return 0
    _quiet()
    torch.set_num_threads(1)
    size = Size(turns=options.turns, steps=options.steps)
    warm = WarmStart(steps=120, batch=8)
    if options.quick:
        size = Size(tasks=4, members=2, turns=4, steps=1, tolerance=0.6)
        warm = WarmStart(steps=60, batch=4)
    start = make_start(warm)
    with tempfile.TemporaryDirectory() as folder:
        side = TrlSide(start, size, folder)
        ours, first = run_ours(start, size)
        worst = check_logprobs(side, first[: 2 * MICRO_ROWS])
        theirs = side.run()
    check_prompts(side, first)
    check_observations(side, start)
    check_work(ours, theirs, size)
    prompt = len(first[0].turns[0].prompt_tokens)
    print(f"{size.tasks} tasks x {size.members} members, at most {size.turns} turns of {size.turn_tokens} "
          f"tokens, prompt of {prompt}; log-probabilities agree within {worst:.0e}")  # fmt: skip
    show(ours, theirs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
