"""The one border between config files and the program.

A config file's `get_config(arg)` returns an `ml_collections.ConfigDict`. `resolve` turns it into the dataclasses of
`config.py`, and whatever is wrong with it is said here, with the field's name and the choices.
"""

import ast
import dataclasses
import difflib
import importlib
import importlib.util
import math
import pathlib
import re
import sys
import types
import typing
from collections.abc import Sequence
from typing import Any, Literal

import ml_collections

from s5jax.models import options as models
from s5jax.train import optimizer as optimizers
from s5jax.train.config import Config, Section, TaskConfig, UserError

__all__ = ["load_config", "load_module", "override", "resolve", "section"]

SECTIONS = [field.name for field in dataclasses.fields(Config)]
NoOptions = dataclasses.make_dataclass("NoOptions", [], frozen=True)
PACKAGES = {
    "mixers": ("s5jax.mixers", "apply"),
    "objective": ("s5jax.objectives", "objective"),
    "evaluators": ("s5jax.evaluators", "evaluate"),
    "task": ("s5jax.data.tasks", "load"),
}
"""Where the modules of a section are, and the function that they have."""


def load_config(file_and_arg: str) -> ml_collections.ConfigDict:
    """What `get_config(arg)` of a config file returns, for "FILE.py" or "FILE.py:ARG".

    A file below a directory `configs` may import its neighbours from there: `from configs import common`.
    """
    file, _, arg = file_and_arg.partition(":")
    path = pathlib.Path(file)
    if not path.is_file():
        hint = "run from the repository's root: --config=configs/digits.py:s5"
        raise UserError(f"config file {file} does not exist ({hint})")
    spec = importlib.util.spec_from_file_location(f"config_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UserError(f"config file {file} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    for directory in path.absolute().parents:
        if directory.name == "configs" and str(directory.parent) not in sys.path:
            sys.path.insert(0, str(directory.parent))
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # the file is the user's
        from s5jax.train import modules

        raise UserError(f"config file {file} cannot be run: {modules.fault_of(error)}") from error
    if not hasattr(module, "get_config"):
        raise UserError(f"config file {file} does not define get_config()")
    try:
        config = module.get_config(arg) if arg else module.get_config()
    except Exception as error:
        reason = error if isinstance(error, ValueError) else f"get_config() failed: {type(error).__name__}: {error}"
        raise UserError(f"{file}: {reason}") from error
    if not isinstance(config, ml_collections.ConfigDict):
        raise UserError(f"{file}: get_config() must return a ConfigDict, got {config!r}")
    return config


def override(config: ml_collections.ConfigDict, arguments: Sequence[str]) -> None:
    """Applies command line arguments of the form `--config.section.field=value` in place."""
    # With another task than the file's, the file's fields of it do not apply: its name first.
    for argument in sorted(arguments, key=lambda argument: not argument.startswith("--config.task.name=")):
        name, equals, text = argument.removeprefix("--").partition("=")
        if not argument.startswith("--config."):
            hint = "--help lists them, and fields are set by --config.section.field=value"
            raise UserError(f"unknown option {argument}; {hint}")
        if not equals:
            raise UserError(f"{argument} needs a value: --{name}=value")
        *sections, field = name.split(".")[1:]
        _check_names(SECTIONS, sections[:1], "config")
        at = config
        for depth, section in enumerate(sections, 1):
            if at.get(section, None) is None and (depth == 1 or sections[0] in ("mixers", "evaluators")):
                with at.unlocked():
                    at[section] = ml_collections.ConfigDict()
            at = at.get(section, None)
            if not isinstance(at, ml_collections.ConfigDict):
                raise UserError(f"--{name}: config.{'.'.join(sections[:depth])} is not a section")
        value = _parse(text)
        if name == "config.task.name" and value != at.get("name"):
            own = _fields(TaskConfig)
            config.task = at = ml_collections.ConfigDict({name: at[name] for name in own if name in at})
        with at.unlocked(), at.ignore_type():
            at[field] = value
    pattern = config.get("model", {}).get("pattern", models.Options.pattern)
    pattern = [pattern] if isinstance(pattern, str) else list(pattern)
    for argument in arguments:  # options of a mixer that the model does not have would do nothing
        path = re.match(r"--config\.mixers\.([^=]*)", argument)
        if path and not {path[1], path[1].rpartition(".")[0]} & set(pattern):
            raise UserError(f"{argument}: model.pattern has the mixers {', '.join(map(str, pattern))}")


def _parse(text: str) -> Any:
    try:
        return ast.literal_eval(text.title() if text.lower() in ("true", "false") else text)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return text


def resolve(values: ml_collections.ConfigDict | dict[str, Any]) -> Config:
    """The frozen config. Raises UserError where a field, a value or a module is not one that can be."""
    values = values.to_dict() if isinstance(values, ml_collections.ConfigDict) else dict(values)
    _check_names(SECTIONS, values, "config")
    if isinstance(values.get("task"), dict):
        task, own = dict(values["task"]), [name for name in _fields(TaskConfig) if name != "options"]
        module = load_module("task", task.get("name"))
        options = {name: task.pop(name) for name in list(task) if name not in own}
        if options or hasattr(module, "Options"):
            task["options"] = _options(module, options, "config.task", own)
        values["task"] = _build(TaskConfig, task, "config.task")
    model = values["model"] = _build(models.Options, values.get("model", {}), "config.model")
    given = _dict(values.get("mixers", {}), "config.mixers")
    values["mixers"] = {name: section("mixers", name, _at(given, name)) for name in model.pattern}
    for name in given:  # of a recipe whose pattern was changed: not used, but not nonsense either
        if name not in model.pattern and not any(used.startswith(f"{name}.") for used in model.pattern):
            section("mixers", name, given[name])
    evaluators = _dict(values.get("evaluators", {}), "config.evaluators")
    values["evaluators"] = {name: section("evaluators", name, given) for name, given in evaluators.items()}
    if values.get("objective") is not None:
        options = dict(_dict(values["objective"], "config.objective"))
        name = options.pop("module", None)
        # Without a name it is the task's, which is known when its data are loaded.
        of_task = Section(module="", options=options) if options else None
        values["objective"] = section("objective", name, options) if name else of_task
    config = _build(Config, values, "config")
    _check_ranges(config)
    return config


def _fields(cls: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(cls)]


def _dict(values: Any, where: str) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise UserError(f"{where} is a section of fields, got {values!r}")
    return values


def _at(given: dict[str, Any], name: str) -> Any:
    """The section of a mixer: of one whose name has dots it may be nested, as the command line has it."""
    for part in [name] if name in given else name.split("."):
        given = given.get(part, {}) if isinstance(given, dict) else given
    return given


def section(kind: str, name: Any, values: Any) -> Section:
    """A module of a kind, named or in the field `module`, with its options from plain values."""
    where = f"config.{kind}" if kind == "objective" else f"config.{kind}.{name}"
    values = dict(_dict(values, where))
    name = values.pop("module", name)
    return Section(module=name, options=_options(load_module(kind, name), values, where, ["module"]))


def _options(module: types.ModuleType, values: dict[str, Any], where: str, own: list[str]) -> Any:
    options = getattr(module, "Options", NoOptions)
    _check_names([*own, *_fields(options)], values, where)
    return _build(options, values, where)


def load_module(kind: str, name: Any) -> types.ModuleType:
    """A mixer, objective, evaluator or task of the package or, with dots, from elsewhere; UserError if it fails."""
    (package, entry), fault = PACKAGES[kind], None
    try:
        if isinstance(name, str) and re.fullmatch(r"\w+(\.\w+)*", name):
            module = importlib.import_module(name if "." in name else f"{package}.{name}")
            if hasattr(module, entry):
                return module
    except Exception as error:  # the file may be the user's
        fault = error
    from s5jax.train import modules

    raise modules.refusal(kind, name, fault) from fault


def _check_names(known: list[str], names: Any, where: str) -> None:
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(str(name), known, 1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise UserError(f"unknown field {where}.{name}{hint} (the fields of {where}: {', '.join(known)})")


def _build(cls: type, values: Any, where: str) -> Any:
    """An instance of a dataclass from nested dicts, every name and type checked."""
    _check_names(_fields(cls), _dict(values, where), where)
    hints = typing.get_type_hints(cls)
    arguments = {}
    for name, value in values.items():
        hint, at = hints[name], f"{where}.{name}"
        if hint is Any or dataclasses.is_dataclass(value) or name in ("mixers", "evaluators"):
            arguments[name] = value
        else:
            make: Any = _build if dataclasses.is_dataclass(hint) else _value
            arguments[name] = make(hint, value, at)
    try:
        return cls(**arguments)
    except TypeError:
        unset = [f.name for f in dataclasses.fields(cls) if f.default is f.default_factory is dataclasses.MISSING]
        raise UserError(f"{where} lacks {', '.join(name for name in unset if name not in arguments)}") from None
    except ValueError as error:
        raise UserError(f"{where}: {error}") from error


def _value(hint: Any, value: Any, where: str) -> Any:
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        if value not in parts:
            raise UserError(f"{where} must be one of {', '.join(map(str, parts))}; got {value!r}")
        return value
    if origin is types.UnionType and value is None:
        return None
    if origin is tuple:
        if isinstance(value, str | dict) or not isinstance(value, Sequence):
            example = "\"('s5', 'attention')\"" if parts[0] is str else '"(1.0, 2.0)"'
            raise UserError(f"{where} takes a tuple such as {example}, got {value!r}")
        parts = parts[:1] * len(value) if parts[-1] is Ellipsis else parts
        if len(parts) != len(value):
            raise UserError(f"{where} takes {len(parts)} values, got {value!r}")
        return tuple(_value(part, v, f"{where}[{i}]") for i, (part, v) in enumerate(zip(parts, value, strict=True)))
    if origin is dict:
        return _dict(value, where)
    if hint is float and type(value) is int and abs(value) < 2**53:
        value = float(value)
    if type(value) is not hint or (hint is float and not math.isfinite(value)):
        raise UserError(f"{where} takes {hint.__name__}, got {value!r} ({type(value).__name__})")
    return value


def _check_ranges(config: Config) -> None:
    optim, train = config.optim, config.train
    if not 0 <= config.seed < 2**32:
        raise UserError(f"config.seed must lie in 0..{2**32 - 1}, got {config.seed}")
    if not 0 <= optim.average < 1:
        raise UserError(f"config.optim.average must lie in [0, 1), got {optim.average}")
    for prefix in ("", "task.", "optim.", "train.", "log."):
        for name, value in vars(getattr(config, prefix[:-1]) if prefix else config).items():
            least = int(name in ("epochs", "batch_size", "micro_batches", "every_steps"))
            if isinstance(value, int | float) and value < least:
                raise UserError(f"config.{prefix}{name} must be at least {least}, got {value}")
    if optim.lr_min > min(optim.lr, optim.ssm_lr):
        raise UserError(f"config.optim.lr_min {optim.lr_min} exceeds lr or ssm_lr")
    if optim.grouping == "only_C" and optim.dt_global:
        raise UserError("config.optim.dt_global trains step sizes, which grouping only_C does not: choose one")
    if train.batch_size % optim.micro_batches:
        parts = f"config.optim.micro_batches {optim.micro_batches}"
        raise UserError(f"config.train.batch_size {train.batch_size} is not divisible by {parts}")
    if train.warmup_epochs >= train.epochs:
        raise UserError(f"config.train.warmup_epochs {train.warmup_epochs} leaves nothing of {train.epochs} epochs")
    if 0 < train.schedule_epochs <= train.warmup_epochs:
        why = f"is all warm-up, {train.warmup_epochs} epochs: it counts from the first step"
        raise UserError(f"config.train.schedule_epochs {train.schedule_epochs} {why}")
    optimizers.check(optim)
    for i, (pattern, values) in enumerate(optim.rules):
        where = f"config.optim.rules[{i}]"
        _check_names(["lr", "weight_decay", "frozen"], values, where)
        for name, value in values.items():
            if name == "frozen":
                _value(bool, value, f"{where}.frozen")
            elif _value(float, value, f"{where}.{name}") < 0:
                raise UserError(f"{where}.{name} must be at least 0, got {value}")
        try:
            re.compile(pattern)
        except re.error as error:
            raise UserError(f"{where}: {pattern!r} is not a regular expression: {error}") from None
