"""The commands of `agentrl`, one file for each job. Heavy rooms are imported where a command needs them."""
