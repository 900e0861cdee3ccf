"""The prepared data of a run: which they are, and that they stay the same."""

import pathlib
from typing import Any

from s5jax.data import store
from s5jax.data.task import DataError
from s5jax.train.config import UserError
from s5jax.train.workdir import read_json

__all__ = ["check"]


def check(workdir: pathlib.Path, task: str, data_dir: str) -> dict[str, Any]:
    """See `workdir.check_data`; `task` is the name of the store."""
    try:
        now = {"task": task, "sha256": store.fingerprint(data_dir, task)}
        found = {**now, "origin": store.read_manifest(data_dir, task)["origin"]}
    except DataError as error:
        raise UserError(str(error)) from error
    path = workdir / "data.json"
    before = read_json(path) if path.exists() else found
    if not now.items() <= before.items():
        fault = f"are not those that {workdir} was made with (by their SHA-256)"
        advice = "say where those are, or take another workdir"
        raise UserError(f"the data of task {task} in {data_dir} {fault}: {advice}")
    return before
