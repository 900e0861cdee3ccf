"""The directory of a run: its files besides checkpoints and figures, and the config that it belongs to.

config.json      the config as run, every field
run.json         what it was started with: versions, commit, hashes of your own modules, device, parameter count, sizes
                 of the model that the task gives; how long it took; what had changed when it was resumed
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
import os
import pathlib
import platform
import subprocess
from collections.abc import Iterator
from typing import Any

import jax
from flax import traverse_util

import s5jax
from s5jax.data import files
from s5jax.data.task import Task
from s5jax.models.stack import schedule
from s5jax.ssm import scan
from s5jax.train.config import Config, UserError
from s5jax.train.resolve import resolve

KEYS = {
    "config.json": {"task"},
    "run.json": {"code", "versions"},
    "data.json": {"sha256"},
    "result.json": {"steps", "best_step"},
}
"""Keys that each file of a run has; `read_json` reports a file without them as damaged."""

DEPENDENCIES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "scipy")


@contextlib.contextmanager
def claim(workdir: pathlib.Path, config: Config) -> Iterator[None]:
    """Locks the directory for this process and checks that it belongs to this config, or has neither checkpoint nor
    result yet and so belongs to none. `record` then writes the config down.

    Raises UserError if it belongs to another config, or is in use by another process.
    """
    created = not workdir.exists()
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        lock = os.open(workdir / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW)
    except OSError as error:
        fault = f"cannot be written to: {error.strerror} ({error.filename})"
        if isinstance(error, FileExistsError | NotADirectoryError):
            fault = "is a link to nothing" if workdir.is_symlink() and not workdir.exists() else "is not a directory"
        raise UserError(f"workdir {workdir} {fault}") from error
    with open(lock):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"workdir {workdir} is in use by another process") from None
        except OSError as error:
            print(f"warning: {workdir} cannot be locked ({error.strerror}): train in it with one process only")
        if os.fstat(lock).st_nlink == 0:  # the process that had it has just removed the folder
            raise UserError(f"workdir {workdir} is in use by another process")
        if (workdir / "config.json").exists() and (different := differences(read_config(workdir), config)):
            if any((workdir / "checkpoints").glob("*")) or (workdir / "result.json").exists():
                raise UserError(f"workdir {workdir} belongs to another config; take another workdir, or {different}")
            for name in ("data.json", "run.json", "wandb_id"):  # of a run that ended before its first checkpoint
                (workdir / name).unlink(missing_ok=True)
        try:
            yield
        finally:
            if created and [path.name for path in workdir.glob("*")] == [".lock"]:  # the run did not come to anything
                with contextlib.suppress(OSError):
                    (workdir / ".lock").unlink()
                    workdir.rmdir()


def differences(old: Config, new: Config) -> str:
    """The fields in which two configs differ, in words; "" if there are none.

    `task.data_dir`, `train.resident_gib`, `train.minutes` and `log` are ignored: the numbers do not depend on them.
    """
    plain = (json.loads(json.dumps(config.to_dict())) for config in (old, new))
    there, now = (traverse_util.flatten_dict(values, sep=".") for values in plain)
    lines = [
        f"\n  config.{name}: {there.get(name)!r} there, {now.get(name)!r} now"
        for name in sorted({*there, *now} - {"task.data_dir", "train.minutes", "train.resident_gib"})
        if there.get(name) != now.get(name) and not name.startswith("log.")
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
    """A JSON object. Raises UserError if the file holds something else, or lacks a key that every such file has."""
    try:
        values = json.loads(path.read_text())
        if not isinstance(values, dict) or not values.keys() >= KEYS.get(path.name, set()):
            raise ValueError("it is not what a run writes")
    except ValueError as error:
        hint = "delete it, and result.json if there is one: the command that trains writes both again"
        raise UserError(f"{path} is damaged ({error}): {hint}") from error
    return values


def write_json(path: pathlib.Path, values: dict[str, Any]) -> None:
    """Replaces the file at once, so that no reader ever sees half of it."""
    files.replace(path, json.dumps(values, indent=2) + "\n")


def describe_run(workdir: pathlib.Path, config: Config, params: Any, sizes: Any, num_devices: int) -> dict[str, Any]:
    """Writes run.json: what the run was started with and, under `resumed`, when it went on and what had changed then.

    Returns it, and as `changed` what has changed since the start and may change results: the names of foreign modules,
    and the number of cores; and as `chosen` what "auto" is on this platform (`remat` and `unroll`: what is used).
    """
    path, code = workdir / "run.json", {}
    if config.foreign_modules:
        from s5jax.train import modules

        code = modules.files_of(config)
    remat, unroll = schedule(config.model)
    chosen = {"scan_method": scan.choose("auto", 1, 1), "remat": remat, "unroll": unroll}
    ours = {"s5jax": s5jax.__version__, "python": platform.python_version()}
    run = {
        "started": now(),
        "parameters": sum(x.size for x in jax.tree.leaves(params)),
        "model": sizes,
        "device": f"{num_devices} x {jax.devices()[0].device_kind} ({jax.default_backend()})",
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "matmul_precision": config.train.matmul_precision,
        "auto": chosen,
        "git_commit": _git_commit(),
        "code": {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in code.items()},
        "versions": ours | {name: importlib.metadata.version(name) for name in DEPENDENCIES},
    }
    changed = []
    if path.exists():
        first = read_json(path)
        changed = [name for name, value in first["code"].items() if run["code"].get(name, value) != value]
        if jax.default_backend() == "cpu" and first.get("cores", run["cores"]) != run["cores"]:
            changed.append(f"the number of cores ({first['cores']}, now {run['cores']}), and with it rounding,")
        other = {name: value for name, value in run.items() if first.get(name) != value}
        run = {"model": sizes, **first, "resumed": [*first.get("resumed", []), {"started": run["started"], **other}]}
    write_json(path, run)
    return {**run, "changed": changed, "chosen": chosen}


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _git_commit() -> str | None:
    """The commit of the code, with "-dirty" if files have changed since; `None` outside a checkout."""
    command = ["git", "--no-optional-locks", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    here = pathlib.Path(__file__).parent
    try:
        return subprocess.check_output(command, cwd=here, text=True, stderr=subprocess.DEVNULL).strip()
    except (OSError, subprocess.CalledProcessError):
        return None
