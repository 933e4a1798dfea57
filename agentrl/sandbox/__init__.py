"""Where model-written things run: jail, sessions, guards, graders."""
