"""Lists the modules that a config can name, and explains in a line what is wrong with one.

Foreign modules come from outside the package; their names have dots. A run with the default optimizer and objective,
without foreign modules and without a mistake, does not import this file.
"""

import contextlib
import importlib
import pathlib
import pkgutil
import re
import sys
import traceback
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from s5jax import mixers
from s5jax.data.task import DataError, Split, Task
from s5jax.train.config import Config, UserError
from s5jax.train.program import gather, type_of
from s5jax.train.resolve import PACKAGES


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
    """Why `resolve.load_module` cannot give a module: it has no such function, or importing it raised an exception."""
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
        return UserError(f"{where}: {name!r} does not exist; {there}, and any module whose name has dots")
    return UserError(f"{where}: {name} cannot be imported: {fault_of(error)}")


def files_of(config: Config) -> dict[str, pathlib.Path]:
    """The files of the foreign modules of a config."""
    files = {name: importlib.import_module(name).__file__ for name in sorted(config.foreign_modules)}
    return {name: pathlib.Path(file) for name, file in files.items() if file}


@contextlib.contextmanager
def faults_told(config: Config) -> Iterator[None]:
    """Raises a one-line UserError for an exception that was raised in a foreign module."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        names = {str(file): name for name, file in files_of(config).items()}
        for frame in reversed(traceback.extract_tb(error.__traceback__)):
            if frame.filename in names:
                raise UserError(f"{names[frame.filename]} failed: {fault_of(error)}") from error
        raise


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


def shapes(task: Task, split: Split, size: int) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes and types of `size` examples of a split, as steps take them."""
    arrays = split.arrays.items()
    return {key: jax.ShapeDtypeStruct((size, *x.shape[1:]), type_of(task, key, x)) for key, x in arrays}


def check_objective(module: Any, options: Any, task: Task, batch_size: int) -> None:
    """Raises UserError where an objective fails, or does not return what it should, on a batch of a task."""
    name = module.__name__.removeprefix("s5jax.objectives.")
    examples = shapes(task, task.splits["train"], batch_size)

    def run(outputs: Any, examples: Any, hyper: Any) -> Any:
        return module.objective(outputs, gather(examples, jnp.arange(batch_size), task, length=None), **hyper)

    try:
        shape = (batch_size, *((task.length,) if task.per_step else ()), module.outputs(task))
        outputs = jax.ShapeDtypeStruct(shape, jnp.float32)
        numbers = module.hyper(task, options) if hasattr(module, "hyper") else {}
        found = jax.eval_shape(run, outputs, examples, numbers)
    except Exception as error:
        raise UserError(f"config.objective: {name} does not fit task {task.name}: {fault_of(error)}") from error
    values = found.values() if isinstance(found, dict) else [None]
    if not all(isinstance(v, tuple) and [getattr(x, "shape", None) for x in v] == [(), ()] for v in values):
        raise UserError(f"config.objective: {name} must return {{name: (sum, weight)}}, of numbers; got {found}")
    judged = {"loss": "the model is trained on", task.judge[0]: f"task {task.name} is judged by"}
    for metric, why in judged.items():
        if metric not in found:
            raise UserError(f"config.objective: {name} reports {', '.join(found)}, but not {metric}, which {why}")


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
    for name, options in ((mixer.module, mixer.options) for mixer in config.mixers.values()):
        if "." not in name:
            continue
        module, shape = importlib.import_module(name), (2, length, width)
        own_residual = mixers.ability(module, "OWN_RESIDUAL", options)

        def run(key: Any, x: Any, module: Any = module, options: Any = options, own: Any = own_residual) -> Any:
            params, given = module.init(key, width, options, depth=depth, length=length), {"skip": x} if own else {}
            if hasattr(module, "init_buffers"):
                given["buffers"] = module.init_buffers(key, width, options)
            return params, module.apply(params, x, options, **given)

        try:
            params, result = jax.eval_shape(run, jax.random.key(0), jax.ShapeDtypeStruct(shape, jnp.float32))
        except Exception as error:
            raise UserError(f"config.model.pattern: {name} failed: {fault_of(error)}") from error
        leaves = jax.tree.leaves(params, is_leaf=lambda x: not isinstance(x, dict))
        if not (isinstance(params, dict) and all(hasattr(leaf, "shape") for leaf in leaves)):
            raise UserError(f"config.model.pattern: {name}.init must return nested dicts of arrays, got {params}")
        parts = "(y, state, buffers)" if hasattr(module, "init_buffers") else "(y, state)"
        if not isinstance(result, tuple) or len(result) != parts.count(",") + 1:
            raise UserError(f"config.model.pattern: {name}.apply must return {parts}, got {result!r}")
        (y, state, *_), wanted = result, f"y of the shape of x, {shape}, and no state if none was given"
        if getattr(y, "shape", None) != shape or state is not None:
            got = f"{getattr(y, 'shape', y)} and {state!r}"
            raise UserError(f"config.model.pattern: {name}.apply must return {wanted}; got {got}")
