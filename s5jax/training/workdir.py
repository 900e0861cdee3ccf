"""The directory of a run: what it holds besides checkpoints, and whose it is.

config.json      the config as run, every field
run.json         versions, commit, device, parameter count, how long it took
data.json        prepared data: their SHA-256, and where they are from
metrics.jsonl    a line of metrics per report; holds nothing that depends on time or machine
eigenvalues/     <step>.npz with the eigenvalues and step sizes of every SSM, where the config asks for them
result.json      written last: the run is finished
"""

import contextlib
import dataclasses
import fcntl
import importlib
import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

import s5jax
from s5jax.data import store
from s5jax.training import state as states
from s5jax.training.config import Config, UserError, resolve

__all__ = ["claim", "claim_data", "describe", "read_config", "read_json", "record", "write_eigenvalues", "write_json"]


@contextlib.contextmanager
def claim(workdir: pathlib.Path, config: Config) -> Iterator[None]:
    """Makes the directory this config's, for one process at a time. `record` then writes the config down.

    Raises:
      UserError: it belongs to another config, or is in use by another process.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        lock = open(workdir / ".lock", "w")  # noqa: SIM115 (held until the run ends)
    except FileExistsError:
        raise UserError(f"workdir {workdir} is a file, not a directory") from None
    except OSError as error:
        raise UserError(f"workdir {workdir} cannot be written to: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"workdir {workdir} is in use by another process") from None
        recorded = workdir / "config.json"
        if recorded.exists():
            old, new = resolve(read_json(recorded)).to_dict(), config.to_dict()
            for values in (old, new):  # the same data may lie elsewhere by now, and on another device
                del values["task"]["data_dir"], values["train"]["resident_gib"]
            differences = _differences(old, new)
            if differences:
                raise UserError(
                    f"workdir {workdir} belongs to another config; take another one, or make these fields agree:\n"
                    + "\n".join(f"  config.{name}: {old!r} there, {new!r} now" for name, old, new in differences)
                )
        yield


def claim_data(workdir: pathlib.Path, config: Config) -> str | None:
    """Notes in data.json which prepared data a run is made with, or sees that they are still those.

    Returns:
      Where these data are from, in a line; `None` if the task needs no preparation.

    Raises:
      UserError: they are not.
    """
    task, data_dir = config.task.name, config.task.data_dir
    if not hasattr(importlib.import_module(f"s5jax.data.{task}"), "FORMAT"):
        return None
    origin = store.read_manifest(data_dir, task)["origin"]
    now = {"task": task, "sha256": store.fingerprint(data_dir, task), "origin": origin}
    path = workdir / "data.json"
    if not path.exists():
        write_json(path, now)
    elif (read_json(path)["task"], read_json(path)["sha256"]) != (task, now["sha256"]):
        raise UserError(
            f"the data of task {task} in {data_dir} are not those that {workdir} was made with (by their SHA-256):"
            " say where those are, or take another workdir"
        )
    return origin


def record(workdir: pathlib.Path, config: Config) -> None:
    """Writes config.json, once the config has proved to be one that can be run."""
    write_json(workdir / "config.json", config.to_dict())


def read_config(workdir: pathlib.Path, data_dir: pathlib.Path | str | None = None) -> Config:
    """The config that a run was started with, its data elsewhere if that is said.

    Raises:
      UserError: there is no run in this directory.
    """
    if not (workdir / "config.json").is_file():
        raise UserError(f"{workdir} is no run's directory: it has no config.json")
    config = resolve(read_json(workdir / "config.json"))
    if data_dir is None:
        return config
    return dataclasses.replace(config, task=dataclasses.replace(config.task, data_dir=str(data_dir)))


def read_json(path: pathlib.Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path} is no valid JSON: {error}") from error


def write_json(path: pathlib.Path, values: dict[str, Any]) -> None:
    """Replaces the file at once, so that no reader ever sees half of it."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(values, indent=2) + "\n")
    os.replace(temporary, path)


def write_eigenvalues(workdir: pathlib.Path, config: Config, step: int, params: dict[str, Any]) -> None:
    """Writes eigenvalues/<step, 8 digits>.npz, the same bytes for the same parameters.

    It holds `<layer>/Lambda`, (P,) or (S, N), complex, in radians per unit of the layer's time (of S4, the diagonal
    part of A), and `<layer>/step_size` in that unit, in the shape of log_step, for each `layers_0`, `layers_1`, ...

    Args:
      workdir: of the run.
      config: of the run; its SSM has a function `Lambda`.
      step: number of steps done.
      params: of the model after them.
    """
    layer = importlib.import_module(f"s5jax.ssm.{config.ssm.name}")
    arrays: dict[str, Any] = {}
    for name, ssm in states.ssm_layers(params).items():
        arrays[f"{name}/Lambda"] = np.asarray(layer.Lambda(ssm, config.ssm.options))
        arrays[f"{name}/step_size"] = np.exp(np.asarray(ssm["log_step"]))
    file = workdir / "eigenvalues" / f"{step:08d}.npz"
    file.parent.mkdir(exist_ok=True)
    temporary = file.with_name(file.name + ".tmp")
    with temporary.open("wb") as stream:
        np.savez(stream, **arrays)
    os.replace(temporary, file)


def describe(num_parameters: int, num_devices: int) -> dict[str, Any]:
    """What a run depends on besides its config."""
    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "scipy")
    return {
        "parameters": num_parameters,
        "device": f"{num_devices} x {jax.devices()[0].device_kind} ({jax.default_backend()})",
        "git_commit": _git_commit(),
        "versions": {
            "s5jax": s5jax.__version__,
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in packages},
        },
    }


def _git_commit() -> str | None:
    """Of the code, "-dirty" appended where it was changed since; `None` outside a checkout."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=pathlib.Path(__file__).parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _differences(old: Any, new: Any, name: str = "") -> list[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted(old.keys() | new.keys())
        return [d for key in keys for d in _differences(old.get(key), new.get(key), f"{name}.{key}".lstrip("."))]
    return [] if old == new else [(name, old, new)]
