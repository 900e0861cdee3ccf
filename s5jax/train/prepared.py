"""The data of a run that do not come with the package: which they are, and that they stay the same."""

import pathlib

from s5jax.data import store
from s5jax.data.task import Task
from s5jax.train.config import Config, UserError
from s5jax.train.workdir import read_json, write_json

__all__ = ["claim"]


def claim(workdir: pathlib.Path, config: Config, task: Task) -> str | None:
    """See `workdir.claim_data`."""
    name, data_dir, facts = config.task.name, config.task.data_dir, dict(task.facts)
    if not facts:
        origin = store.read_manifest(data_dir, name)["origin"]
        facts = {"sha256": store.fingerprint(data_dir, name), "origin": origin}
    path, now = workdir / "data.json", {"task": name, "sha256": facts["sha256"]}
    if not path.exists():
        write_json(path, {**now, **facts})
    elif not now.items() <= read_json(path).items():
        where = f" in {data_dir}" if "origin" in facts else ""
        fault = f"are not those that {workdir} was made with (by their SHA-256)"
        raise UserError(f"the data of task {name}{where} {fault}: say where those are, or take another workdir")
    return facts.get("origin")
