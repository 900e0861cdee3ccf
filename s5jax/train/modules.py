"""What configs name, modules and optimizers of optax: which there are, and what is wrong with one, in a line.

Foreign modules come from outside the package; their names have dots. A run with adamw, without rules, without foreign
modules and without a mistake does not import this file.
"""

import contextlib
import dataclasses
import difflib
import importlib
import inspect
import pathlib
import pkgutil
import re
import sys
import traceback
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax

from s5jax.data.task import DataError
from s5jax.models.options import check_least
from s5jax.train.config import Config, Optim, UserError
from s5jax.train.resolve import PACKAGES, build

__all__ = ["check_mixers", "check_optimizer", "explain_task", "fault_of", "faults_told", "files_of", "known", "refusal"]


def known(kind: str) -> list[str]:
    """Names of the mixers, objectives, evaluators or tasks of the package."""
    package, entry = PACKAGES[kind]
    names = []
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
        try:
            if hasattr(importlib.import_module(f"{package}.{module.name}"), entry):
                names.append(module.name)
        except Exception:  # a file that is still being written must not stand in the way of others
            continue
    return names


def refusal(kind: str, name: Any, error: Exception | None) -> UserError:
    """Why `resolve.load_module` cannot give a module: it is not one, or importing it raised an exception."""
    package, entry = PACKAGES[kind]
    where = {"mixers": "config.model.pattern", "task": "config.task.name"}.get(kind, f"config.{kind}")
    there = f"there are {', '.join(known(kind))}"
    if not isinstance(name, str) or not re.fullmatch(r"\w+(\.\w+)*", name):
        fault = "is missing" if name is None else f"{name!r} is not the name of a module"
        return UserError(f"{where}: {fault}; {there}")
    if error is None:
        return UserError(f"{where}: {name} has no function {entry}; {there}")
    path = name if "." in name else f"{package}.{name}"
    if isinstance(error, ModuleNotFoundError) and error.name and f"{path}.".startswith(f"{error.name}."):
        return UserError(f"{where}: {name!r} does not exist; {there}, and with dots any module")
    return UserError(f"{where}: {name} cannot be imported: {fault_of(error)}")


def files_of(config: Config) -> dict[str, pathlib.Path]:
    """The files of the foreign modules of a config."""
    files = {name: importlib.import_module(name).__file__ for name in sorted(config.foreign_modules)}
    return {name: pathlib.Path(file) for name, file in files.items() if file}


@contextlib.contextmanager
def faults_told(config: Config) -> Iterator[None]:
    """Raises UserError, a line, for an exception that was raised in a foreign module."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        names = {str(file): name for name, file in files_of(config).items()}
        found = [
            names[frame.filename] for frame in traceback.extract_tb(error.__traceback__) if frame.filename in names
        ]
        if not found:
            raise
        raise UserError(f"{found[-1]} failed: {fault_of(error)}") from error


def fault_of(error: BaseException) -> str:
    """An exception of a user's own code in a line: what it says, and where it was raised."""
    ours = str(pathlib.Path(__file__).parents[1])
    place = ""
    for frame in traceback.extract_tb(error.__traceback__):
        if not frame.filename.startswith((ours, sys.prefix, sys.base_prefix, "<")):
            place = f" ({frame.filename}, line {frame.lineno})"
    if isinstance(error, SyntaxError):
        place = f" ({error.filename}, line {error.lineno})"
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}{place}"


def explain_task(name: str, error: Exception) -> None:
    """Raises UserError for an exception in loading a task, unless it is a fault of ours."""
    if isinstance(error, DataError):
        raise UserError(str(error)) from error
    if isinstance(error, OSError):
        raise UserError(f"task {name} cannot be loaded: {error}") from error
    if "." in name and not isinstance(error, UserError):
        raise UserError(f"task {name} cannot be loaded: {fault_of(error)}") from error


def check_mixers(config: Config, length: int) -> None:
    """Raises UserError where a foreign mixer fails, or does not return what it should, at a length."""
    depth, width = config.model.depth, config.model.d_model
    for name, options in {mixer.module: mixer.options for mixer in config.mixers.values()}.items():
        if "." not in name:
            continue
        module, shape = importlib.import_module(name), (2, length, width)

        def run(key: Any, x: Any, module: Any = module, options: Any = options) -> Any:
            return module.apply(module.init(key, width, options, depth=depth, length=length), x, options)

        try:
            result = jax.eval_shape(run, jax.random.key(0), jax.ShapeDtypeStruct(shape, jnp.float32))
        except Exception as error:
            raise UserError(f"config.model.pattern: {name} failed: {fault_of(error)}") from error
        if not isinstance(result, tuple) or len(result) != 2:
            raise UserError(f"config.model.pattern: {name}.apply must return (y, state), got {result!r}")
        if getattr(result[0], "shape", None) != shape or result[1] is not None:
            raise UserError(
                f"config.model.pattern: {name}.apply must return y of the shape of x, {shape}, and no state if none was"
                f" given; got {getattr(result[0], 'shape', result[0])} and {result[1]!r}"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule:
    """What a rule of `optim.rules` may set; what it leaves out is as in `optim`."""

    lr: float = 0.0
    weight_decay: float = 0.0
    frozen: bool = False

    def __post_init__(self) -> None:
        check_least(self, 0, "lr", "weight_decay")


def check_optimizer(optim: Optim) -> None:
    """Raises UserError for a mistake in the rules, or if optax has no such optimizer or it lacks an argument."""
    for i, (pattern, values) in enumerate(optim.rules):
        build(Rule, values, f"config.optim.rules[{i}]")
        try:
            re.compile(pattern)
        except re.error as error:
            raise UserError(f"config.optim.rules[{i}]: {pattern!r} is not a regular expression: {error}") from None
    make = getattr(optax, optim.name, None)
    parameters = dict(inspect.signature(make).parameters) if inspect.isfunction(make) else {}
    if not parameters.pop("learning_rate", None):
        common = ["adamw", "adam", "lion", "sgd", "rmsprop", "lamb", "adafactor"]
        close = difflib.get_close_matches(optim.name, common, 1)
        hint = f"; did you mean {close[0]}?" if close else "; adamw, adam, lion and sgd are some"
        raise UserError(f"config.optim.name: optax has no optimizer {optim.name!r}{hint}")
    for name in ("b1", "b2", "eps"):
        if name not in parameters and getattr(optim, name) != getattr(Optim, name):
            raise UserError(f"config.optim.{name}: optax.{optim.name} has no such argument")
    for name in optim.arguments:
        if name not in parameters or name == "weight_decay":
            known = ", ".join(key for key in parameters if key != "weight_decay")
            raise UserError(f"config.optim.arguments: optax.{optim.name} has no argument {name!r}; it has {known}")
