"""Data sets.

    task.py         what a data set is: `Task`, `Split`
    batches.py      the order of examples; buckets.py: lengths that batches are cut to; splits.py: seeded splits
    store.py        prepared data on disk; prepare.py: how they are made; summary.py: how they are checked
    language.py     texts as tokens
    tasks/          a file for each data set
    readers/        file formats: CIFAR-10, IDX, wav, text, archives, TFDS directories
    generators/     ListOps trees and Pathfinder images

A task is a module of `tasks/` with `load`, found by its name. The digits come with the package, and tasks of language
modelling read a text (`text_file.py`). The others are prepared once by `scripts/prepare_data.py`: their modules have
`FORMAT` and `plan` as well, see `prepare.py` and, for an example, `tasks/image.py`.
"""
