"""What a config means, in words and tables: for `--dry_run` and `--help`."""

import dataclasses
import typing
from typing import Any

import jax
import jax.numpy as jnp

from s5jax.data import store
from s5jax.train.build import Experiment, build, load_task
from s5jax.train.config import Config, TaskConfig, UserError
from s5jax.train.modules import faults_told, known
from s5jax.train.optimizer import path_name
from s5jax.train.program import Program
from s5jax.train.resolve import load_module
from s5jax.train.step import TrainState

__all__ = ["describe_fields", "dry_run"]


def dry_run(config: Config) -> str:
    """The resolved config, all parameters with shape, group, rate and decay, and the memory of a training step."""
    with faults_told(config):
        try:
            task, note = load_task(config), []
        except UserError as error:
            if not isinstance(error.__cause__, store.Unprepared):
                raise
            task, note = load_task(config, blank=True), [f"note: {error}. Steps are those of the official data", ""]
        experiment, state = build(config, task)
        memory = _step_memory(Program(experiment), state)
    return "\n".join(
        [
            *note,
            *_config_lines(config.to_dict()),
            "",
            *_parameter_lines(experiment, state),
            "",
            f"{experiment.total_steps} steps, {experiment.steps_per_epoch} an epoch, warm-up {experiment.warmup_steps},"
            f" schedule {experiment.schedule_steps}",
            "memory of a step, per device: "
            + ", ".join(f"{name} {size / 2**20:.1f} MiB" for name, size in memory.items()),
        ]
    )


def _step_memory(program: Program, state: TrainState) -> dict[str, int]:
    """Bytes that a training step takes on each device, from the compiled program."""
    examples = program.feeder.shapes("train")
    places = jax.ShapeDtypeStruct((program.feeder.batch_size,), jnp.int32)
    lowered = program.step_at(None).lower(state, (examples, places), program.experiment.hyper(0))
    analysis: Any = lowered.compile().memory_analysis()
    return {
        "state": sum(x.nbytes for x in jax.tree.leaves(state)),
        "data": sum(x.size * x.dtype.itemsize for x in examples.values()),
        "scratch": analysis.temp_size_in_bytes,
    }


def describe_fields() -> str:
    """All fields of a config with their defaults and choices, and what mixers, objectives and tasks there are."""
    lines = [
        "fields, set by --config.SECTION.FIELD=VALUE, with the defaults where a config file leaves them out",
        "(--dry_run shows what a file sets; the comments in configs/*.py and s5jax/train/config.py explain them):",
    ]
    hints = typing.get_type_hints(Config)
    for section in dataclasses.fields(Config):
        if section.name in ("mixers", "evaluators", "objective"):
            for name in known(section.name):
                options = load_module(section.name, name).Options
                place = f"{section.name}.module={name}" if section.name == "objective" else f"{section.name}.{name}"
                prefix = section.name if section.name == "objective" else place
                lines += ["", f"  {place}", *_field_lines(prefix, options)]
        elif section.name == "task":
            lines += ["", *_field_lines("task", TaskConfig), f"  task.name: {', '.join(known('task'))}"]
            for name in known("task"):
                options = getattr(load_module("task", name), "Options", None)
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
        if field.name in ("name", "options") and cls is TaskConfig:
            continue
        choices = ""
        if typing.get_origin(hints[field.name]) is typing.Literal:
            choices = ", ".join(map(str, typing.get_args(hints[field.name])))
        default = "" if field.default is dataclasses.MISSING else field.default
        lines.append(f"  {section}.{field.name}={default}" + (f"  ({choices})" if choices else ""))
    return lines


def _config_lines(values: dict[str, Any], indent: str = "") -> list[str]:
    lines = []
    for name, value in values.items():
        if isinstance(value, dict) and value:
            lines += [f"{indent}{name}:", *_config_lines(value, indent + "  ")]
        else:
            lines.append(f"{indent}{name}: {value}")
    return lines


def _parameter_lines(experiment: Experiment, state: TrainState) -> list[str]:
    optimizer = experiment.optimizer
    rows = [("parameter", "shape", "size", "group", "rate", "decay")]
    leaves = jax.tree_util.tree_leaves_with_path(state.params)
    for (path, leaf), number in zip(leaves, jax.tree.leaves(optimizer.labels), strict=True):
        group = optimizer.groups[number]
        numbers = f"{group.lr:g}", f"{group.weight_decay:g}"
        rows.append((path_name(path), str(leaf.shape), f"{leaf.size:,}", group.name, *numbers))
    rows.append(("total", "", f"{sum(leaf.size for _, leaf in leaves):,}", "", "", ""))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
