"""What the policy is shown: the conversation as messages and, with a renderer, as exact tokens."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from agentrl.policy.base import Message
from agentrl.policy.scripted import closed_turn
from agentrl.rollout.memory import Memory, Past, whole_history
from agentrl.trajectory import no_tokens

if TYPE_CHECKING:
    from collections.abc import Mapping

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
        viewed: whether a memory left something out, rather than the renderer.
    """

    tokens: IntArray | None
    fresh: bool = False
    viewed: bool = False

    @property
    def added(self) -> IntArray:
        """The tokens, none without a renderer."""
        return no_tokens() if self.tokens is None else self.tokens


@dataclass
class Context:
    """The context of one trajectory.

    Attributes:
        system: text before the first observation; `schemas`: of tools that a template or a server lists.
        size: tokens of the current stream; `pending`: those of them that the policy has not been given yet.
        begun: turn with which the current stream began; `viewed`: turn that the memory last rewrote.
    """

    renderer: Renderer | None
    memory: Memory = whole_history
    system: str = ""
    schemas: tuple[Mapping[str, object], ...] = ()
    messages: list[Message] = field(default_factory=list[Message])
    size: int = 0
    pending: IntArray = field(default_factory=no_tokens)
    begun: int = 0
    viewed: int = 0
    _observations: list[str] = field(default_factory=list[str])
    _texts: list[str] = field(default_factory=list[str])
    _answers: list[IntArray] = field(default_factory=list["IntArray"])

    def tell(self, system: str, schemas: tuple[Mapping[str, object], ...]) -> None:
        """Note what stands before the first observation: the system text and tools that a template lists."""
        self.system, self.schemas = system, schemas
        if self.renderer is not None:
            self.renderer = self.renderer.for_tools(schemas)

    def ask(self, observation: str) -> Prompt:
        """Show one more observation; the tokens that it adds."""
        self._observations.append(observation)
        view = self.memory(Past(self._observations, self._texts, self.viewed)) if self._texts else None
        if view is not None:
            return Prompt(self._rewrite(view), fresh=True, viewed=True)
        if not self.messages:
            self._open(observation)
            return Prompt(None if self.renderer is None else self.renderer.begin(self.system, observation))
        self.messages.append(Message("user", observation))
        if self.renderer is None:
            return Prompt(None)
        added = self.renderer.follow(self.messages, self._answers[-1])
        return Prompt(added.tokens, added.fresh)

    def answer(self, prompt: Prompt, text: str, tokens: IntArray | None) -> None:
        """Note what the policy wrote after `prompt`, which it has been given."""
        if prompt.fresh:
            self.begun, self.size = len(self._texts), 0
        if prompt.viewed:
            self.viewed = self.begun
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
            self._given(replace(prompt, tokens=tokens, fresh=turn.fresh), turn.text, turn.tokens)

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
        parts = [] if self.renderer is None else [self.renderer.begin(self.system, first)]
        for turn in range(view.since, len(self._texts)):
            self.messages.append(Message("assistant", self._texts[turn]))
            self.messages.append(Message("user", self._observations[turn + 1]))
            if self.renderer is not None:
                added = self.renderer.follow(self.messages, self._answers[turn])
                parts = [added.tokens] if added.fresh else [*parts, self._answers[turn], added.tokens]
        return np.concatenate(parts) if parts else None
