"""Worlds of others, by prefix: packages (gym, rg, textarena, gem) and servers (agentgym, openenv)."""
