"""Data sets, a file each, found by name: `load` returns a `Task`; `FORMAT` and `plan` say how its data are prepared."""
