"""What a config means, in words and tables: for `--dry_run` and `--help`."""

import dataclasses
import importlib
import typing
from typing import Any

import jax

from s5jax.models.names import per_layer
from s5jax.training import optimizer as optimizers
from s5jax.training import state as states
from s5jax.training.config import Config, TaskConfig, UnpreparedError, known_modules, load_task
from s5jax.training.program import Program

__all__ = ["describe_fields", "dry_run"]


def dry_run(config: Config) -> str:
    """The resolved config, all parameters with shape, group, rate and decay, and the memory of a training step."""
    try:
        task, note = load_task(config), []
    except UnpreparedError as error:
        task, note = load_task(config, blank=True), [f"note: {error}. Steps are those of the official data", ""]
    experiment, state = states.build(config, task)
    memory = Program(config, task, experiment).step_memory(state)
    return "\n".join(
        [
            *note,
            *_config_lines(config.to_dict()),
            "",
            *_parameter_lines(config, state),
            "",
            f"{experiment.total_steps} steps, {experiment.steps_per_epoch} an epoch, warm-up {experiment.warmup_steps},"
            f" schedule {experiment.schedule_steps}",
            "memory of a step, per device: "
            + ", ".join(f"{name} {size / 2**20:.1f} MiB" for name, size in memory.items()),
        ]
    )


def describe_fields() -> str:
    """All fields of a config with their defaults and choices, and what SSMs and tasks there are."""
    lines = [
        "fields, set by --config.SECTION.FIELD=VALUE, with the defaults where a config file leaves them out",
        "(--dry_run shows what a file sets; the comments in configs/*.py and s5jax/training/config.py explain them):",
    ]
    hints = typing.get_type_hints(Config)
    for section in dataclasses.fields(Config):
        if section.name == "ssm":
            for name in known_modules("ssm"):
                options = importlib.import_module(f"s5jax.ssm.{name}").Options
                lines += ["", f"  ssm.name={name}", *_field_lines("ssm", options)]
        elif section.name == "task":
            lines += ["", *_field_lines("task", TaskConfig), f"  task.name: {', '.join(known_modules('task'))}"]
            for name in known_modules("task"):
                options = getattr(importlib.import_module(f"s5jax.data.{name}"), "Options", None)
                lines += ["", f"  task.name={name}", *_field_lines("task", options)] if options else []
        elif dataclasses.is_dataclass(hints[section.name]):
            lines += ["", *_field_lines(section.name, hints[section.name])]
        else:
            lines += [f"  {section.name}={section.default}"]
    return "\n".join(lines)


def _field_lines(section: str, cls: Any) -> list[str]:
    hints = typing.get_type_hints(cls)
    lines = []
    for field in dataclasses.fields(cls):
        if field.name in ("name", "options"):
            continue
        choices = ", ".join(map(str, typing.get_args(hints[field.name])))
        default = "" if field.default is dataclasses.MISSING else field.default
        lines.append(f"  {section}.{field.name}={default}" + (f"  ({choices})" if choices else ""))
    return lines


def _config_lines(values: dict[str, Any], indent: str = "") -> list[str]:
    lines = []
    for name, value in values.items():
        if isinstance(value, dict):
            lines += [f"{indent}{name}:", *_config_lines(value, indent + "  ")]
        else:
            lines.append(f"{indent}{name}: {value}")
    return lines


def _parameter_lines(config: Config, state: states.TrainState) -> list[str]:
    groups, params = optimizers.groups(config.optim), per_layer(state.params)
    ssm_params = importlib.import_module(f"s5jax.ssm.{config.ssm.name}").SSM_PARAMS
    labels = optimizers.label(params, config.optim, ssm_params)
    rows = [("parameter", "shape", "size", "group", "rate", "decay")]
    leaves = jax.tree_util.tree_leaves_with_path(params)
    for (path, leaf), group in zip(leaves, jax.tree.leaves(labels), strict=True):
        rate, decay = groups[group]
        name = "/".join(str(key.key) for key in path)
        rows.append((name, str(leaf.shape), f"{leaf.size:,}", group, f"{rate:g}", f"{decay:g}"))
    rows.append(("total", "", f"{sum(leaf.size for _, leaf in leaves):,}", "", "", ""))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
