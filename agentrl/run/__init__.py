"""The rooms that see everything: train, evaluate, report, serve, command line."""
