"""Worlds of others, by prefix: `gym:<id>` and `rg:<family>`."""
