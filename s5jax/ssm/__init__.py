"""The mathematics of state space models: pure functions of arrays.

A *layer* is a module of this package that offers `Options`, `init`, `apply`, `initial_state`, `step`,
`transfer_function` and `SSM_PARAMS` (see `s5.py`); the others are what layers are made of.
"""
