"""Who acts: the policy contract and its implementations."""
