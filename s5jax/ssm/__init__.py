"""The mathematics of state space models: pure functions of arrays.

A *layer* is a module of this package that offers `Options`, `SSM_PARAMS`, `init`, `apply`, `initial_state`, `step`,
`recurrence`, `advance`, `transfer_function` and `Lambda` (see `s5.py`); the others are what layers are made of.
"""
