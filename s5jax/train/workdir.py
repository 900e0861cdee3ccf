"""The directory of a run: its files besides checkpoints and figures, and the config that it belongs to.

config.json      the config as run, every field
run.json         what it was started with: versions, commit, hashes of your own modules, device, parameter count;
                 how long it took; what had changed when it was resumed
data.json        the SHA-256 of prepared data or of a text; the origin of the data, or the vocabulary of the text
metrics.jsonl    a line of metrics per report; holds nothing that depends on time
eigenvalues/     <step>.npz with the eigenvalues and step sizes of every mixer, where the config asks for them
result.json      written last: the run is finished
"""

import contextlib
import dataclasses
import datetime
import fcntl
import hashlib
import importlib.metadata
import json
import pathlib
import platform
import subprocess
from collections.abc import Iterator
from typing import Any

import jax
from flax import traverse_util

import s5jax
from s5jax.data.task import Task
from s5jax.train.config import Config, UserError
from s5jax.train.resolve import resolve

DEPENDENCIES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "scipy")


@contextlib.contextmanager
def claim(workdir: pathlib.Path, config: Config) -> Iterator[None]:
    """Locks the directory for this process and checks that it belongs to this config. `record` then writes the config
    down.

    Raises UserError if it belongs to another config, or is in use by another process.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        lock = open(workdir / ".lock", "w")  # noqa: SIM115 (held until the run ends)
    except OSError as error:
        fault = "is a file, not a directory" if workdir.is_file() else f"cannot be written to: {error.strerror}"
        raise UserError(f"workdir {workdir} {fault}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"workdir {workdir} is in use by another process") from None
        if (workdir / "config.json").exists():
            different = differences(read_config(workdir), config)
            if different:
                raise UserError(f"workdir {workdir} belongs to another config; take another workdir, or {different}")
        yield


def differences(old: Config, new: Config) -> str:
    """The fields in which two configs differ, in words; "" if there are none.

    `task.data_dir` and `train.resident_gib` are ignored.
    """
    plain = (json.loads(json.dumps(config.to_dict())) for config in (old, new))
    there, now = (traverse_util.flatten_dict(values, sep=".") for values in plain)
    lines = [
        f"\n  config.{name}: {there.get(name)!r} there, {now.get(name)!r} now"
        for name in sorted({*there, *now} - {"task.data_dir", "train.resident_gib"})
        if there.get(name) != now.get(name)
    ]
    return "make these fields agree:" + "".join(lines) if lines else ""


def check_data(workdir: pathlib.Path, config: Config, task: Task) -> dict[str, Any] | None:
    """The data of a run, as in data.json; `None` for data that come with the package.

    Raises UserError if they are not those that it was started with.
    """
    if not task.facts:
        return None
    path, found = workdir / "data.json", {"task": config.task.name, **task.facts}
    before = read_json(path) if path.exists() else found
    if any(before.get(key) != found[key] for key in ("task", "sha256")):
        data = f"the data of task {found['task']}" + (f" in {config.task.data_dir}" if "origin" in found else "")
        fault = f"are not those that {workdir} was made with (by their SHA-256)"
        raise UserError(f"{data} {fault}: say where those are, or take another workdir")
    return before


def record(workdir: pathlib.Path, config: Config, data: dict[str, Any] | None) -> None:
    """Writes config.json and data.json, once the config is known to run."""
    write_json(workdir / "config.json", config.to_dict())
    if data:
        write_json(workdir / "data.json", data)


def read_config(workdir: pathlib.Path, data_dir: pathlib.Path | str | None = None) -> Config:
    """The config that a run was started with, with `data_dir` replaced if given; UserError if there is no run."""
    if not (workdir / "config.json").is_file():
        raise UserError(f"{workdir} is not a run's directory: it has no config.json")
    config = resolve(read_json(workdir / "config.json"))
    task = config.task if data_dir is None else dataclasses.replace(config.task, data_dir=str(data_dir))
    return dataclasses.replace(config, task=task)


def read_json(path: pathlib.Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON: {error}") from error


def write_json(path: pathlib.Path, values: dict[str, Any]) -> None:
    """Replaces the file at once, so that no reader ever sees half of it."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(values, indent=2) + "\n")
    temporary.replace(path)


def describe_run(workdir: pathlib.Path, config: Config, params: Any, num_devices: int) -> dict[str, Any]:
    """Writes run.json: what the run was started with and, under `resumed`, when it went on and what had changed then.

    Returns it, and as `changed` the names of foreign modules that have changed since the start.
    """
    path, files = workdir / "run.json", {}
    if config.foreign_modules:
        from s5jax.train import modules

        files = modules.files_of(config)
    ours = {"s5jax": s5jax.__version__, "python": platform.python_version()}
    run = {
        "started": now(),
        "parameters": sum(x.size for x in jax.tree.leaves(params)),
        "device": f"{num_devices} x {jax.devices()[0].device_kind} ({jax.default_backend()})",
        "git_commit": _git_commit(),
        "code": {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in files.items()},
        "versions": ours | {name: importlib.metadata.version(name) for name in DEPENDENCIES},
    }
    changed = []
    if path.exists():
        first = read_json(path)
        changed = [name for name, value in first["code"].items() if run["code"].get(name, value) != value]
        other = {name: value for name, value in run.items() if first.get(name) != value}
        run = {**first, "resumed": [*first.get("resumed", []), {"started": run["started"], **other}]}
    write_json(path, run)
    return {**run, "changed": changed}


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _git_commit() -> str | None:
    """The commit of the code, with "-dirty" if files have changed since; `None` outside a checkout."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    here = pathlib.Path(__file__).parent
    try:
        return subprocess.check_output(command, cwd=here, text=True, stderr=subprocess.DEVNULL).strip()
    except (OSError, subprocess.CalledProcessError):
        return None
