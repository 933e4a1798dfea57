"""agentrl: agentic multi-turn reinforcement learning of language models."""
