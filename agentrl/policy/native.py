"""The protocol of a model's own tool calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentrl.errors import TemplateError
from agentrl.policy.render import NO_TEMPLATE

if TYPE_CHECKING:
    from agentrl.policy.render import Renderer
    from agentrl.world.protocol import Protocol


def native_protocol(renderer: Renderer) -> Protocol:
    """Return the protocol in which a model's chat template writes calls.

    Raises:
        TemplateError: there is no chat template, or nobody here reads its form.
    """
    from agentrl.policy.family import native_form
    from agentrl.policy.template import ChatTemplate

    if not isinstance(renderer, ChatTemplate):
        raise TemplateError(NO_TEMPLATE)
    return native_form(renderer.jinja)
