"""The prepared data of a run: which they are, and that they stay the same."""

import pathlib

from s5jax.data import store
from s5jax.train.config import Config, UserError
from s5jax.train.workdir import read_json, write_json

__all__ = ["claim"]


def claim(workdir: pathlib.Path, config: Config) -> str:
    """See `workdir.claim_data`."""
    task, data_dir = config.task.name, config.task.data_dir
    origin = store.read_manifest(data_dir, task)["origin"]
    path, now = workdir / "data.json", {"task": task, "sha256": store.fingerprint(data_dir, task)}
    if not path.exists():
        write_json(path, {**now, "origin": origin})
    elif not now.items() <= read_json(path).items():
        fault = f"are not those that {workdir} was made with (by their SHA-256)"
        advice = "say where those are, or take another workdir"
        raise UserError(f"the data of task {task} in {data_dir} {fault}: {advice}")
    return origin
