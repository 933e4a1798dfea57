"""Any model behind an OpenAI-compatible server as the agent: vLLM first, others as far as they go."""

from agentrl.policy.openai.forms import Prices
from agentrl.policy.openai.policy import OpenAIPolicy

__all__ = ["OpenAIPolicy", "Prices"]
