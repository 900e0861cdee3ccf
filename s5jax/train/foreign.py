"""Modules from outside the package, named with dots in a config: their files, and their mistakes in a line."""

import importlib
import pathlib
import sys
import traceback

import jax
import jax.numpy as jnp

from s5jax.train.config import Config, UserError

__all__ = ["check_mixers", "fault_of", "files_of", "raise_fault_in"]


def files_of(config: Config) -> dict[str, pathlib.Path]:
    """The file of each module of a config that is not of this package."""
    files = {name: importlib.import_module(name).__file__ for name in config.foreign_modules}
    return {name: pathlib.Path(file) for name, file in files.items() if file}


def raise_fault_in(error: Exception, config: Config) -> None:
    """Raises UserError, a line, for an exception that was raised in such a module, and nothing for another."""
    names = {str(file): name for name, file in files_of(config).items()}
    found = [names[frame.filename] for frame in traceback.extract_tb(error.__traceback__) if frame.filename in names]
    if found:
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


def check_mixers(config: Config, length: int) -> None:
    """Raises UserError where a mixer of the user's fails, or does not return what it should, at a length."""
    depth, width = config.model.depth, config.model.d_model
    for name, options in {
        mixer.module: mixer.options for mixer in config.mixers.values() if "." in mixer.module
    }.items():
        module, shape = importlib.import_module(name), (2, length, width)

        def run(key, x, module=module, options=options):  # type: ignore[no-untyped-def]
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
