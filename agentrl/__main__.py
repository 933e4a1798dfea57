"""`python -m agentrl`, which is what torchrun starts."""

from agentrl.run.cli import main

if __name__ == "__main__":
    main()
