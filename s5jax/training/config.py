"""The one border between config files and the program.

A config file's `get_config(arg)` returns an `ml_collections.ConfigDict`. `resolve` turns it into the frozen dataclasses
below, and whatever is wrong with it is said here, with the field's name and the choices. A field that a config leaves
out has the default given here.
"""

import ast
import dataclasses
import difflib
import importlib
import importlib.util
import math
import pathlib
import pkgutil
import sys
import types
import typing
from collections.abc import Sequence
from typing import Any, Literal

import ml_collections

import s5jax.data
import s5jax.ssm
from s5jax.data import store
from s5jax.data.task import DataError, Task
from s5jax.models import layers

__all__ = ["Config", "UnpreparedError", "UserError", "known_modules", "load_config", "load_task", "override", "resolve"]


class UserError(Exception):
    """A mistake that one or two lines explain: shown without a traceback."""


class UnpreparedError(UserError):
    """The task's data have not been prepared."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ssm:
    """The layer `s5jax/ssm/<name>.py` and its `Options`."""

    name: str
    options: Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskConfig:
    """The data set `s5jax/data/<name>.py`, with its `Options` if it has any."""

    name: str
    options: Any = None
    data_dir: str = "data"
    """Where `scripts/prepare_data.py` has put it, in a folder `prepared`; of no meaning for data that are built in."""
    limit: int = 0
    """Examples of each split that are used, always the same random ones; 0: all."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optim:
    """AdamW for all but the SSM's own parameters, which have a rate of their own."""

    lr: float = 0.004
    """Base rate of all parameters but the SSM's."""
    ssm_lr: float = 0.001
    """Base rate of the SSM's."""
    weight_decay: float = 0.05
    """Decoupled, as a multiple of the rate."""
    grouping: Literal["standard", "BandCdecay", "BfastandCdecay", "noBCdecay", "only_C", "plain"] = "standard"
    """Which parameters have which rate and decay: see `optimizer.GROUPINGS`."""
    dt_global: bool = False
    """Train log_step like any parameter outside the SSM: at lr, decayed."""
    schedule: Literal["warmup_cosine", "s5_published"] = "warmup_cosine"
    """See `optimizer.make_schedule`."""
    lr_min: float = 0.0
    """Rate that the cosine ends at."""
    clip_norm: float = 0.0
    """Largest global norm of the gradient; 0: unbounded."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train:
    epochs: int = 40
    warmup_epochs: float = 1.0
    batch_size: int = 50
    """Examples a step, over all devices."""
    patience: int = 0
    """Evaluations without a better one before training stops, by validation accuracy and, of equals, loss; 0: never."""
    eval_every_steps: int = 0
    """Steps between evaluations on the validation split; 0: one each epoch."""
    checkpoint_every_steps: int = 0
    """Steps between checkpoints besides those at evaluations; 0: no others."""
    schedule_epochs: float = 0.0
    """Epochs that the schedule of the rates spans, warm-up included; 0: all of training. What comes after its end says
    `optimizer.make_schedule`."""
    steps_per_call: int = 1
    """Training steps in one call of the device; fewer where a report, an evaluation or a checkpoint is due."""
    buckets: int = 0
    """Lengths that padded batches are cut to, so that short sequences cost less; 0: all have the full length."""
    resident_gib: float = 8.0
    """GiB of stored inputs up to which a split stays on every device; a larger one is streamed from disk."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Log:
    every_steps: int = 50
    """Steps between two lines of training metrics, which are means over them."""
    wandb: Literal["off", "offline", "online"] = "off"
    """Weights & Biases; offline runs lie in the workdir for `wandb sync`."""
    wandb_project: str = "s5jax"
    tensorboard: bool = False
    """Write event files to <workdir>/tensorboard."""
    eigenvalues_every_steps: int = 0
    """Steps between records of all SSMs' eigenvalues, the first before training and the last after it; 0: none."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """A whole experiment."""

    task: TaskConfig
    ssm: Ssm
    model: layers.Options = layers.Options()
    optim: Optim = Optim()
    train: Train = Train()
    log: Log = Log()
    seed: int = 0
    """Of initialisation, order of examples, and dropout."""
    num_devices: int = 0
    """Devices to spread a batch over; 0: all there are."""

    def to_dict(self) -> dict[str, Any]:
        """Nested plain values; `resolve` takes them back."""
        values = dataclasses.asdict(self)
        for section in ("ssm", "task"):
            options = values[section].pop("options")
            values[section] |= options or {}
        return values


SECTIONS = [field.name for field in dataclasses.fields(Config)]


@dataclasses.dataclass(frozen=True)
class NoOptions:
    """Those of a task that has none."""


def load_config(file_and_arg: str) -> ml_collections.ConfigDict:
    """What `get_config(arg)` of a config file returns, for "FILE.py" or "FILE.py:ARG".

    A file below a directory `configs` may import its neighbours from there: `from configs import common`.
    """
    file, _, arg = file_and_arg.partition(":")
    path = pathlib.Path(file)
    if not path.is_file():
        raise UserError(
            f"config file {file} does not exist (run from the repository's root: --config=configs/digits.py:s5)"
        )
    spec = importlib.util.spec_from_file_location(f"config_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UserError(f"config file {file} is no Python file")
    module = importlib.util.module_from_spec(spec)
    for directory in path.absolute().parents:
        if directory.name == "configs" and str(directory.parent) not in sys.path:
            sys.path.insert(0, str(directory.parent))
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # the file is the user's
        raise UserError(f"config file {file} cannot be run: {type(error).__name__}: {error}") from error
    if not hasattr(module, "get_config"):
        raise UserError(f"config file {file} defines no get_config()")
    try:
        config = module.get_config(arg) if arg else module.get_config()
    except Exception as error:
        reason = error if isinstance(error, ValueError) else f"get_config() failed: {type(error).__name__}: {error}"
        raise UserError(f"{file}: {reason}") from error
    if not isinstance(config, ml_collections.ConfigDict):
        raise UserError(f"{file}: get_config() returns no ConfigDict but {config!r}")
    return config


def override(config: ml_collections.ConfigDict, arguments: Sequence[str]) -> None:
    """Applies command line arguments of the form `--config.section.field=value` in place."""
    # Names first: with another layer or task than the file's, the file's fields of it do not apply.
    names = ("--config.ssm.name=", "--config.task.name=")
    for argument in sorted(arguments, key=lambda argument: not argument.startswith(names)):
        name, equals, text = argument.removeprefix("--").partition("=")
        if not name.startswith("config.") or not argument.startswith("--"):
            raise UserError(
                f"{argument} is no option; --help lists them, and fields are set by --config.section.field=value"
            )
        if not equals:
            raise UserError(f"{argument} needs a value: --{name}=value")
        *sections, field = name.split(".")[1:]
        at = config
        if sections and sections[0] not in config:
            _check_names(SECTIONS, sections[:1], "config")
            with config.unlocked():
                config[sections[0]] = ml_collections.ConfigDict()
        for depth, section in enumerate(sections, 1):
            at = at.get(section, None)
            if not isinstance(at, ml_collections.ConfigDict):
                raise UserError(f"--{name}: config.{'.'.join(sections[:depth])} is no section")
        value = _parse(text)
        if name == "config.ssm.name" and value != at.get("name"):
            config.ssm = at = ml_collections.ConfigDict()
        if name == "config.task.name" and value != at.get("name"):
            own = [field.name for field in dataclasses.fields(TaskConfig)]
            config.task = at = ml_collections.ConfigDict({name: at[name] for name in own if name in at})
        with at.unlocked(), at.ignore_type():
            at[field] = value


def _parse(text: str) -> Any:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return text


def resolve(values: ml_collections.ConfigDict | dict[str, Any]) -> Config:
    """The frozen config.

    Raises:
      UserError: an unknown field, a value of the wrong type or outside its range, an SSM or a task that does not exist.
    """
    values = values.to_dict() if isinstance(values, ml_collections.ConfigDict) else dict(values)
    _check_names(SECTIONS, values, "config")
    if isinstance(values.get("task"), dict):
        options = getattr(_module("task", values["task"].get("name")), "Options", NoOptions)
        values["task"] = _build_with_options(TaskConfig, options, values["task"], "config.task")
    if isinstance(values.get("ssm"), dict):
        options = _module("ssm", values["ssm"].get("name")).Options
        values["ssm"] = _build_with_options(Ssm, options, values["ssm"], "config.ssm")
    config = _build(Config, values, "config")
    _check_ranges(config)
    return config


def load_task(config: Config, *, blank: bool = False) -> Task:
    """Loads the task's data and checks that the model can read them.

    Args:
      config: the experiment.
      blank: prepared data need not be there; zeros of the official sizes, which take no memory, stand for them.

    Raises:
      UserError: the data have not been prepared, are damaged, or are not for this config.
    """
    module = importlib.import_module(f"s5jax.data.{config.task.name}")
    try:
        arguments: list[Any] = []
        if hasattr(module, "FORMAT"):
            stored = store.blank(module.FORMAT) if blank else store.read(module.FORMAT, config.task.data_dir)
            arguments.append(stored)
        if hasattr(module, "Options"):
            arguments.append(config.task.options)
        task = module.load(*arguments)
    except store.Unprepared as error:
        raise UnpreparedError(str(error)) from error
    except DataError as error:
        raise UserError(str(error)) from error
    except OSError as error:
        raise UserError(f"task {config.task.name} cannot be loaded: {error}") from error
    if not isinstance(task, Task):
        raise UserError(f"s5jax/data/{config.task.name}.py: load() returned {task!r}, not a Task")
    if (config.model.encoder == "dense") != (task.num_tokens is None):
        kind, fit = ("values", "dense") if task.num_tokens is None else ("tokens", "one_hot or embedding")
        raise UserError(
            f"config.model.encoder is {config.model.encoder!r}, but task {task.name} gives {kind}: use {fit}"
        )
    if config.task.limit:
        task = task.limited(config.task.limit)
    if config.train.buckets and (task.splits["train"].lengths is None or not config.model.mask_padding):
        raise UserError(
            "config.train.buckets cuts padding, which needs a task that pads, and config.model.mask_padding=True"
        )
    size = len(task.splits["train"])
    if config.train.batch_size > size:
        raise UserError(f"config.train.batch_size {config.train.batch_size} exceeds the {size} training examples")
    return task


def known_modules(kind: Literal["ssm", "task"]) -> list[str]:
    """Names of the layers in s5jax/ssm, or of the tasks in s5jax/data."""
    package, offers = _KINDS[kind]
    names = []
    for module in pkgutil.iter_modules(package.__path__):
        try:
            if hasattr(importlib.import_module(f"{package.__name__}.{module.name}"), offers):
                names.append(module.name)
        except Exception:  # a file that is still being written must not stand in the way of others
            continue
    return names


_KINDS = {"ssm": (s5jax.ssm, "Options"), "task": (s5jax.data, "load")}
"""Where the modules of a kind are, and the name that tells them from the other modules there."""


def _module(kind: Literal["ssm", "task"], name: Any) -> types.ModuleType:
    package, offers = _KINDS[kind]
    if name in [module.name for module in pkgutil.iter_modules(package.__path__)]:
        try:
            module = importlib.import_module(f"{package.__name__}.{name}")
        except Exception as error:  # the file may be the user's
            place = f"{package.__name__.replace('.', '/')}/{name}.py"
            raise UserError(f"{place} cannot be imported: {type(error).__name__}: {error}") from error
        if hasattr(module, offers):
            return module
    fault = "is missing" if name is None else f"{name!r} does not exist"
    raise UserError(f"config.{kind}.name: {fault}; there are: {', '.join(known_modules(kind))}")


def _check_names(known: list[str], names: Any, where: str) -> None:
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            hint = f" Did you mean {close[0]}?" if close else ""
            raise UserError(f"{where}.{name} is no field.{hint} The fields of {where} are {', '.join(known)}")


def _build_with_options(cls: type, options: Any, values: dict[str, Any], where: str) -> Any:
    """A section whose fields are partly its own, partly those of the `Options` of the module that it names."""
    own = [field.name for field in dataclasses.fields(cls) if field.name != "options"]
    _check_names([*own, *(field.name for field in dataclasses.fields(options))], values, where)
    rest = {name: value for name, value in values.items() if name not in own}
    built = _build(options, rest, where) if options is not NoOptions else None
    return _build(cls, {**{name: values[name] for name in values if name in own}, "options": built}, where)


def _build(cls: type, values: Any, where: str) -> Any:
    """An instance of a dataclass from nested dicts, every name and type checked."""
    if not isinstance(values, dict):
        raise UserError(f"{where} is a section of fields, got {values!r}")
    _check_names([field.name for field in dataclasses.fields(cls)], values, where)
    hints = typing.get_type_hints(cls)
    arguments = {}
    for name, value in values.items():
        hint, at = hints[name], f"{where}.{name}"
        if hint is Any or isinstance(value, (Ssm, TaskConfig)):
            arguments[name] = value
        elif dataclasses.is_dataclass(hint):
            arguments[name] = _build(typing.cast(type, hint), value, at)
        else:
            arguments[name] = _value(hint, value, at)
    try:
        return cls(**arguments)
    except TypeError:
        required = (f.name for f in dataclasses.fields(cls) if f.default is dataclasses.MISSING)
        missing = ", ".join(name for name in required if name not in arguments)
        raise UserError(f"{where} lacks {missing}") from None
    except ValueError as error:
        raise UserError(f"{where}: {error}") from error


def _value(hint: Any, value: Any, where: str) -> Any:
    if typing.get_origin(hint) is Literal:
        choices = typing.get_args(hint)
        if value not in choices:
            raise UserError(f"{where}: {value!r} is none of {', '.join(map(str, choices))}")
        return value
    if hint is float and type(value) is int and abs(value) < 2**53:
        value = float(value)
    if type(value) is not hint or (hint is float and not math.isfinite(value)):
        raise UserError(f"{where} takes {hint.__name__}, got {value!r} ({type(value).__name__})")
    return value


def _check_ranges(config: Config) -> None:
    at_least = {
        "config.num_devices": (config.num_devices, 0),
        "config.train.epochs": (config.train.epochs, 1),
        "config.train.warmup_epochs": (config.train.warmup_epochs, 0),
        "config.train.batch_size": (config.train.batch_size, 1),
        "config.train.patience": (config.train.patience, 0),
        "config.train.eval_every_steps": (config.train.eval_every_steps, 0),
        "config.train.checkpoint_every_steps": (config.train.checkpoint_every_steps, 0),
        "config.train.schedule_epochs": (config.train.schedule_epochs, 0),
        "config.train.steps_per_call": (config.train.steps_per_call, 1),
        "config.train.buckets": (config.train.buckets, 0),
        "config.train.resident_gib": (config.train.resident_gib, 0),
        "config.task.limit": (config.task.limit, 0),
        "config.log.every_steps": (config.log.every_steps, 1),
        "config.log.eigenvalues_every_steps": (config.log.eigenvalues_every_steps, 0),
        **{
            f"config.optim.{name}": (getattr(config.optim, name), 0)
            for name in ("lr", "ssm_lr", "weight_decay", "lr_min", "clip_norm")
        },
    }
    for where, (value, least) in at_least.items():
        if not value >= least:
            raise UserError(f"{where} must be at least {least}, got {value}")
    if not 0 <= config.seed < 2**32:
        raise UserError(f"config.seed must lie in 0..{2**32 - 1}, got {config.seed}")
    if config.optim.lr_min > min(config.optim.lr, config.optim.ssm_lr):
        raise UserError(f"config.optim.lr_min {config.optim.lr_min} exceeds lr or ssm_lr")
    if config.optim.grouping == "only_C" and config.optim.dt_global:
        raise UserError("config.optim.dt_global trains step sizes, which grouping only_C does not: choose one")
    if config.train.warmup_epochs >= config.train.epochs:
        raise UserError(
            f"config.train.warmup_epochs {config.train.warmup_epochs} leaves nothing of {config.train.epochs} epochs"
        )
    if 0 < config.train.schedule_epochs <= config.train.warmup_epochs:
        raise UserError(
            f"config.train.schedule_epochs {config.train.schedule_epochs} is all warm-up,"
            f" {config.train.warmup_epochs} epochs: it counts from the first step"
        )
    if config.train.buckets and config.train.steps_per_call > 1:
        raise UserError("config.train.buckets and steps_per_call > 1 exclude each other: batches differ in length")
