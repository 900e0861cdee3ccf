"""The mathematics of state space models: pure functions of arrays."""
