"""Data sets. Each task is a module of this package with `load() -> Task`; see `task.py` and `digits.py`."""
