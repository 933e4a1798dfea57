"""Learning: the parts of a loss, the algorithm that holds them, and the learner that steps it."""
