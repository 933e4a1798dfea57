"""Offer a world over HTTP: sessions, deadlines, limits; `agentrl.world.remote.RemoteEnv` is the client."""

from agentrl.run.serve.sessions import ServeLimits, Sessions

__all__ = ["ServeLimits", "Sessions"]
