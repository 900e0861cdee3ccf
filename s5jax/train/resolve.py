"""Turns config files into the dataclasses of `config.py`.

A config file's `get_config(arg)` returns an `ml_collections.ConfigDict`. Each mistake in it is reported here, in a line
with the field's name and the choices.
"""

import ast
import contextlib
import dataclasses
import difflib
import importlib
import math
import pathlib
import re
import runpy
import sys
import types
import typing
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import ml_collections

from s5jax.models import options as models
from s5jax.train.config import DURATIONS, Config, Duration, Optim, Section, TaskConfig, Train, UserError, explained

PACKAGES = {
    "mixers": ("s5jax.mixers", "apply"),
    "objective": ("s5jax.objectives", "objective"),
    "evaluators": ("s5jax.evaluators", "evaluate"),
    "task": ("s5jax.data.tasks", "load"),
}
"""Where the modules of a section are, and the function that they have."""


def load_file(file: str) -> dict[str, Any]:
    """What a config file defines. A file below a folder `configs` may import from it: `from configs import common`."""
    path = pathlib.Path(file)
    if not path.is_file():
        hint = "run from the repository's root: --config=configs/digits.py:s5"
        raise UserError(f"config file {file} does not exist ({hint})")
    for directory in path.absolute().parents:
        if directory.name == "configs" and str(directory.parent) not in sys.path:
            sys.path.insert(0, str(directory.parent))
    try:
        names = runpy.run_path(file)
    except (Exception, SystemExit) as error:  # the file is the user's
        from s5jax.train import modules

        raise UserError(f"config file {file} cannot be run: {modules.fault_of(error)}") from error
    if "get_config" not in names:
        raise UserError(f"config file {file} does not define get_config()")
    return names


def load_config(file_and_arg: str) -> ml_collections.ConfigDict:
    """What `get_config(arg)` of a config file returns, for "FILE.py" or "FILE.py:ARG"."""
    file, _, arg = file_and_arg.partition(":")
    get_config = load_file(file)["get_config"]
    try:
        config = get_config(arg) if arg else get_config()
    except (Exception, SystemExit) as error:
        reason = error if isinstance(error, ValueError) else f"get_config() failed: {type(error).__name__}: {error}"
        raise UserError(f"{file}: {reason}") from error
    if not isinstance(config, ml_collections.ConfigDict):
        raise UserError(f"{file}: get_config() must return a ConfigDict, got {config!r}")
    return config


def assign(config: ml_collections.ConfigDict, name: str, value: Any) -> None:
    """Sets a field by its dotted name, such as "optim.lr", in place.

    A duration replaces the same duration in another unit. A new task name removes the fields of the old task.
    """
    *sections, field = name.split(".")
    at = config
    for depth, section in enumerate(sections, 1):
        if at.get(section) is None:
            with at.unlocked():
                at[section] = ml_collections.ConfigDict()
        at = at[section]
        if not isinstance(at, ml_collections.ConfigDict):
            raise UserError(f"config.{name}: config.{'.'.join(sections[:depth])} is not a section")
    if name == "task.name" and value != at.get("name"):
        config.task = at = ml_collections.ConfigDict({name: at[name] for name in _fields(TaskConfig) if name in at})
    with at.unlocked(), at.ignore_type():
        for key in list(at) if sections == ["train"] and field in DURATIONS else []:
            if key in DURATIONS and DURATIONS[key][0] == DURATIONS[field][0]:
                del at[key]
        at[field] = value


def override(config: ml_collections.ConfigDict, arguments: Sequence[str]) -> None:
    """Applies command line arguments of the form `--config.section.field=value`, in place."""
    # The task's name first: it removes the fields of the file's task.
    for argument in sorted(arguments, key=lambda argument: not argument.startswith("--config.task.name=")):
        name, equals, text = argument.removeprefix("--config.").partition("=")
        if not argument.startswith("--config."):
            hint = "--help lists them, and fields are set by --config.section.field=value"
            raise UserError(f"unknown option {argument}; {hint}")
        if not equals:
            raise UserError(f"{argument} needs a value: --config.{name}=value")
        value: Any = text
        with contextlib.suppress(ValueError, TypeError, SyntaxError):
            value = ast.literal_eval(text.title() if text.lower() in ("true", "false") else text)
        if value == 0 and type(value) is float and re.match(r"[-+]?[0.]*[1-9]", text):
            raise UserError(f"config.{name}: {shown(text)} is too small, it would be rounded to 0")
        if type(value) is float and math.isinf(value) and text[-1:].isdigit():
            raise UserError(f"config.{name} must be a finite number, got {shown(text)}")
        assign(config, name, value)
    model, pattern = config.get("model"), [*models.Options.pattern]
    if isinstance(model, ml_collections.ConfigDict) and "pattern" in model:
        pattern = [*model.pattern] if isinstance(model.pattern, tuple | list) else [model.pattern]
    for argument in arguments:  # options of a mixer that the model does not have would do nothing
        path = re.match(r"--config\.mixers\.([^=]*)", argument)
        if path and path[1] not in pattern and path[1].rpartition(".")[0] not in pattern:
            raise UserError(f"{argument}: model.pattern has the mixers {', '.join(map(str, pattern))}")


def resolve(values: ml_collections.ConfigDict | dict[str, Any]) -> Config:
    """The frozen config. Raises UserError for an unknown field, a wrong value or a module that does not exist."""
    values = values.to_dict() if isinstance(values, ml_collections.ConfigDict) else dict(values)
    _check_names(_fields(Config), values, "config")
    if "task" in values:
        own = [name for name in _fields(TaskConfig) if name != "options"]
        options = dict(_dict(values["task"], "config.task"))
        task = {name: options.pop(name) for name in own if name in options}
        task["options"] = _options(load_module("task", task.get("name")), options, "config.task", own)
        values["task"] = build(TaskConfig, task, "config.task")
    model = values["model"] = build(models.Options, values.get("model", {}), "config.model")
    given: dict[str, Any] = {name: {} for name in model.pattern}
    given |= _by_name(_dict(values.get("mixers", {}), "config.mixers"), model.pattern)
    checked = {name: section("mixers", name, options) for name, options in given.items()}
    values["mixers"] = {name: checked[name] for name in model.pattern}  # only those that the pattern uses
    evaluators = _by_name(_dict(values.get("evaluators", {}), "config.evaluators"))
    values["evaluators"] = {name: section("evaluators", name, given) for name, given in evaluators.items()}
    if values.get("objective") is not None:
        values["objective"] = section("objective", "", values["objective"])
    config = build(Config, values, "config")
    optim, size = config.optim, config.train.batch_size
    if size % optim.micro_batches:
        fault = f"is not divisible by config.optim.micro_batches {optim.micro_batches}"
        raise UserError(f"config.train.batch_size {size} {fault}")
    if (optim.name, optim.arguments, optim.rules) != (Optim.name, {}, ()):
        from s5jax.train import trial

        trial.check(optim)
    return config


def _fields(cls: Any) -> list[str]:
    """The names that a section takes; names of durations include the unit."""
    durations = DURATIONS if cls is Train else ()
    return [*durations, *(field.name for field in dataclasses.fields(cls) if field.type is not Duration)]


def _dict(values: Any, where: str) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise UserError(f"{where} is a section of fields, got {shown(values)}")
    return values


def _by_name(given: dict[str, Any], known: Sequence[str] = ()) -> dict[str, Any]:
    """Sections by module name. A name with dots may come as nested sections, as from the command line."""
    found: dict[str, Any] = {}
    for name, values in given.items():
        nested = isinstance(values, dict) and values and all(isinstance(value, dict) for value in values.values())
        within = {f"{name}.{part}": value for part, value in values.items()} if nested and name not in known else {}
        found |= _by_name(within, known) or {name: values}
    return found


def section(kind: str, name: Any, values: Any) -> Section:
    """A mixer, an evaluator or the objective: its module and its options, from plain values."""
    where = f"config.{kind}" if kind == "objective" else f"config.{kind}.{name}"
    values = dict(_dict(values, where))
    name = values.pop("module", name)
    if kind == "objective" and not name:  # the task's objective, which is known when its data are loaded
        return Section(module="", options=values)
    return Section(module=name, options=_options(load_module(kind, name), values, where, ["module"]))


def _options(module: types.ModuleType, values: dict[str, Any], where: str, own: list[str]) -> Any:
    options: Any = getattr(module, "Options", None)
    if options and not (dataclasses.is_dataclass(options) and options.__dataclass_params__.frozen):  # type: ignore
        raise UserError(f"{where}: Options of {module.__name__} must be a frozen dataclass")
    _check_names([*own, *(_fields(options) if options else [])], values, where)
    return build(options, values, where) if options else None


def load_module(kind: str, name: Any) -> types.ModuleType:
    """A mixer, objective, evaluator or task of the package or, with dots, from elsewhere; UserError if it fails."""
    (package, entry), fault = PACKAGES[kind], None
    try:
        module = importlib.import_module(name if "." in name else f"{package}.{name}")
        if hasattr(module, entry):
            return module
    except Exception as error:  # the file may be the user's
        fault = error
    from s5jax.train import modules

    raise modules.refusal(kind, name, fault) from fault


def _check_names(known: list[str], names: Iterable[Any], where: str) -> None:
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(str(name), known, 1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise UserError(f"unknown field {where}.{name}{hint} (the fields of {where}: {', '.join(known)})")


def build(cls: type, values: Any, where: str) -> Any:
    """An instance of a dataclass from nested dicts, with every name and type checked."""
    _check_names(_fields(cls), _dict(values, where), where)
    hints = typing.get_type_hints(cls)
    arguments: dict[str, Any] = {}
    for key, value in values.items():
        name, unit = DURATIONS[key] if cls is Train and key in DURATIONS else (key, None)
        if name in arguments:
            raise UserError(f"{where}.{key} is given in another unit, too: choose one")
        if unit:
            value = Duration(_value(float if unit == "epochs" else int, value, f"{where}.{key}"), unit)
        arguments[name] = _value(hints[name], value, f"{where}.{key}")
    for field in dataclasses.fields(cls):
        if field.default is field.default_factory is dataclasses.MISSING and field.name not in arguments:
            raise UserError(f"{where} lacks {field.name}")
    with explained(where):
        return cls(**arguments)


def _value(hint: Any, value: Any, where: str) -> Any:
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any or dataclasses.is_dataclass(value):
        return value
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return build(hint, value, where)
    if origin is Literal:
        if value not in parts:
            raise UserError(f"{where} must be one of {', '.join(map(str, parts))}; got {shown(value)}")
        return value
    if origin in (types.UnionType, typing.Union):
        for part in parts:
            with contextlib.suppress(UserError):
                return _value(part, value, where)
        raise UserError(
            f"{where} takes {str(hint).replace('typing.', '')}, got {shown(value)} ({type(value).__name__})"
        )
    if origin is tuple:
        if not isinstance(value, tuple | list):
            examples = {str: "('s5', 'attention')", float: "(1.0, 2.0)"}
            example = examples.get(parts[0], "(('@dynamics', {'lr': 0.001}),)")
            raise UserError(f'{where} takes a tuple such as "{example}", got {shown(value)}')
        parts = parts[:1] * len(value) if parts[-1] is Ellipsis else parts
        if len(parts) != len(value):
            raise UserError(f"{where} takes {len(parts)} values, got {shown(value)}")
        return tuple(_value(part, v, f"{where}[{i}]") for i, (part, v) in enumerate(zip(parts, value, strict=True)))
    if origin is dict:
        return _dict(value, where)
    if hint is float and type(value) is int:
        value = float(value) if abs(value) < 10**300 else math.inf
    if hint is float and (value in ("nan", "inf", "-inf") or (type(value) is float and not math.isfinite(value))):
        raise UserError(f"{where} must be a finite number, got {value}")
    if type(value) is not hint:
        raise UserError(f"{where} takes {hint.__name__}, got {shown(value)} ({type(value).__name__})")
    return value


def shown(value: Any) -> str:
    """A value in an error message, cut if it is long."""
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:80]}... ({len(text)} characters)"
