"""Data sets. Each task is a module of this package that has `load`, see `task.py`.

The digits come with the package (`digits.py`). The others are prepared once by `scripts/prepare_data.py`: their modules
say by `FORMAT` and `plan` how a store is made of official files, see `preparation.py` and, for an example, `image.py`.
"""
