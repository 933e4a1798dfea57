"""What the policy is shown: the conversation as messages and, with a renderer, as exact tokens."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from agentrl.policy.base import Message
from agentrl.policy.scripted import closed_turn
from agentrl.rollout.memory import Memory, Past, whole_history
from agentrl.trajectory import no_tokens

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentrl.policy.render import Renderer
    from agentrl.rollout.memory import View
    from agentrl.trajectory import IntArray, Turn


EXPERT = "expert"
"""Role of a turn that the environment's expert wrote as a hint."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a turn adds before it is sampled.

    Attributes:
        tokens: (P,) None without a renderer; `fresh`: whether they begin a new stream.
    """

    tokens: IntArray | None
    fresh: bool = False

    @property
    def added(self) -> IntArray:
        """The tokens, none without a renderer."""
        return no_tokens() if self.tokens is None else self.tokens


@dataclass
class Context:
    """The context of one trajectory.

    Attributes:
        size: tokens of the current stream; `pending`: those of them that the policy has not been given yet.
        begun: turn with which the current stream began.
    """

    renderer: Renderer | None
    memory: Memory = whole_history
    system: str = ""
    messages: list[Message] = field(default_factory=list[Message])
    size: int = 0
    pending: IntArray = field(default_factory=no_tokens)
    begun: int = 0
    _observations: list[str] = field(default_factory=list[str])
    _texts: list[str] = field(default_factory=list[str])
    _answers: list[IntArray] = field(default_factory=list["IntArray"])

    def ask(self, observation: str) -> Prompt:
        """Show one more observation; the tokens that it adds."""
        self._observations.append(observation)
        view = self.memory(Past(self._observations, self._texts, self.begun)) if self._texts else None
        if view is not None:
            return Prompt(self._rewrite(view), fresh=True)
        if not self.messages:
            self._open(observation)
            return Prompt(None if self.renderer is None else self.renderer.begin(self.system, observation))
        self.messages.append(Message("user", observation))
        if self.renderer is None:
            return Prompt(None)
        return Prompt(self.renderer.extend(observation, closed=self._closed(-1)))

    def answer(self, prompt: Prompt, text: str, tokens: IntArray | None) -> None:
        """Note what the policy wrote after `prompt`, which it has been given."""
        if prompt.fresh:
            self.begun, self.size = len(self._texts), 0
        self._texts.append(text)
        self._answers.append(no_tokens() if tokens is None else tokens)
        self.size += len(prompt.added) + len(self._answers[-1])
        self.pending = no_tokens()
        self.messages.append(Message("assistant", text))

    def told(self, prompt: Prompt, text: str) -> IntArray:
        """Note what somebody else wrote after `prompt`; (P,) the tokens, none of them sampled, of both."""
        answer = no_tokens() if self.renderer is None else closed_turn(text, self.renderer)
        self._given(prompt, text, answer)
        return np.concatenate([prompt.added, answer])

    def take_over(self, turn: Turn) -> None:
        """Go on from a turn of another trajectory, of which the policy has seen nothing under this name."""
        prompt = self.ask(turn.observation)
        if turn.role == EXPERT:
            self.told(prompt, turn.text)
        else:
            tokens = None if self.renderer is None else turn.prompt_tokens
            self._given(Prompt(tokens, turn.fresh), turn.text, turn.tokens)

    def unseen(self, prompt: Prompt) -> IntArray | None:
        """(P,) what the policy must be given to answer `prompt`."""
        if prompt.tokens is None or prompt.fresh:
            return prompt.tokens
        return np.concatenate([self.pending, prompt.tokens]) if len(self.pending) else prompt.tokens

    def _given(self, prompt: Prompt, text: str, tokens: IntArray | None) -> None:
        before = no_tokens() if prompt.fresh else self.pending
        self.answer(prompt, text, tokens)
        self.pending = np.concatenate([before, prompt.added, self._answers[-1]])

    def _open(self, observation: str) -> None:
        self.messages.clear()
        if self.system:
            self.messages.append(Message("system", self.system))
        self.messages.append(Message("user", observation))

    def _rewrite(self, view: View) -> IntArray | None:
        """The history as `view` has it, in messages and tokens."""
        first = f"{view.opening}\n\n{self._observations[view.since]}"
        self._open(first)
        later = range(view.since, len(self._texts))
        for turn in later:
            self.messages.append(Message("assistant", self._texts[turn]))
            self.messages.append(Message("user", self._observations[turn + 1]))
        if self.renderer is None:
            return None
        parts = [self.renderer.begin(self.system, first)]
        for turn in later:
            shown = self.renderer.extend(self._observations[turn + 1], closed=self._closed(turn))
            parts += [self._answers[turn], shown]
        return np.concatenate(parts)

    def _closed(self, turn: int) -> bool:
        """Whether a turn's last token closes it; one ended by a limit or a stop string lacks that token."""
        answer = self._answers[turn]
        stops: Sequence[int] = () if self.renderer is None else self.renderer.stop_tokens
        return len(answer) > 0 and int(answer[-1]) in stops
