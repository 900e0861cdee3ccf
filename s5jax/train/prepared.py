"""The data of a run that do not come with the package: which they are, and that they stay the same."""

import pathlib
from typing import Any

from s5jax.data import store
from s5jax.data.task import DataError, Task
from s5jax.train.config import UserError
from s5jax.train.workdir import read_json

__all__ = ["check"]


def check(workdir: pathlib.Path, task: Task, name: str, data_dir: str) -> dict[str, Any]:
    """See `workdir.check_data`; `name` is that of the store, where the task has one."""
    found, where = {"task": name, **task.facts}, ""
    if not task.facts:
        where = f" in {data_dir}"
        try:
            found["sha256"] = store.fingerprint(data_dir, name)
            found["origin"] = store.read_manifest(data_dir, name)["origin"]
        except DataError as error:
            raise UserError(str(error)) from error
    path = workdir / "data.json"
    before = read_json(path) if path.exists() else found
    if any(before.get(key) != found[key] for key in ("task", "sha256")):
        fault = f"are not those that {workdir} was made with (by their SHA-256)"
        raise UserError(f"the data of task {name}{where} {fault}: say where those are, or take another workdir")
    return before
