"""What a config means, in words and tables: for `--dry_run` and `--help`."""

import ast
import dataclasses
import inspect
import itertools
import textwrap
import typing
from typing import Any

import jax
import jax.numpy as jnp

from s5jax.data import store
from s5jax.train.build import Experiment, build, load_task
from s5jax.train.config import DURATIONS, Config, Duration, TaskConfig, UserError
from s5jax.train.modules import faults_told, known, shapes
from s5jax.train.optimizer import path_name
from s5jax.train.program import Program
from s5jax.train.resolve import PACKAGES, load_file, load_module
from s5jax.train.step import TrainState

EXAMPLES = """examples:
  python scripts/train.py --config=configs/digits.py:s5 --workdir=runs/digits
  python scripts/train.py --config=configs/digits.py:s4d-lin --workdir=runs/slow --config.optim.lr=0.001
  python scripts/train.py --config=configs/lra/image.py:s5,debug --workdir=runs/debug   # after scripts/prepare_data.py
  python scripts/train.py --config=configs/digits.py:s5 --dry_run
  python scripts/train.py --config=configs/digits.py:s5 --workdir=runs/mine --config.model.pattern="('mine.mixer',)"

The colon is followed by a model of the file's table and by flags, separated by commas: `debug` shrinks a recipe to
seconds on a CPU. With --config=FILE, --help lists the models and flags of that file.
Modules of your own, a mixer or a task, have names with dots and are found from the current folder.
Kill a run at any moment and repeat the command: it goes on from the last checkpoint, to the same result.

"""


def dry_run(config: Config) -> str:
    """The resolved config, all parameters with shape, group, lr and weight decay, and the memory of a training step."""
    with faults_told(config):
        try:
            task, note = load_task(config), []
        except UserError as error:
            if not isinstance(error.__cause__, store.Unprepared):
                raise
            task, note = load_task(config, blank=True), [f"note: {error}. Steps are those of the official data", ""]
        experiment, state = build(config, task)
        memory = _step_memory(Program(experiment), state)
    steps = (
        f"{experiment.total_steps} steps, {experiment.steps_per_epoch} an epoch, warm-up {experiment.warmup_steps},"
        f" schedule {experiment.schedule_steps}"
    )
    sizes = ", ".join(f"{name} {size / 2**20:.1f} MiB" for name, size in memory.items())
    lines = [*note, *_config_lines(config.to_dict()), "", *_parameter_lines(experiment, state), "", steps]
    return "\n".join([*lines, f"memory of a step, per device: {sizes}"])


def _step_memory(program: Program, state: TrainState) -> dict[str, int]:
    """Bytes that a training step takes on each device, from the compiled program."""
    task, feeder = program.experiment.task, program.feeder
    split = task.splits["train"]
    examples = shapes(task, split, len(split) if "train" in feeder.resident else feeder.batch_size)
    places = jax.ShapeDtypeStruct((program.feeder.batch_size,), jnp.int32)
    with program.here():
        lowered = program.step_at(None).lower(state, (examples, places), program.experiment.hyper(0))
    analysis: Any = lowered.compile().memory_analysis()
    return {
        "state": sum(x.nbytes for x in jax.tree.leaves(state)),
        "data": sum(x.size * x.dtype.itemsize for x in examples.values()),
        "scratch": analysis.temp_size_in_bytes,
    }


def describe_recipe(file_and_arg: str | None) -> str:
    """What a config file says about itself, the models and flags of its table, and examples of commands."""
    if file_and_arg is None:
        return EXAMPLES
    file = file_and_arg.partition(":")[0]
    names = load_file(file)
    rows: dict[str, dict[str, Any]] = names.get("RECIPES", {})
    flags = sorted({key.partition(":")[0] for row in rows.values() for key in row if ":" in key})
    lines = [f"{file}:", "", textwrap.indent((names["__doc__"] or "").strip(), "  "), ""]
    if rows:
        lines += [f"  models, --config={file}:MODEL: {', '.join(rows)}"]
        lines += [f"  flags, --config={file}:MODEL,FLAG: {', '.join(flags)}", ""]
    return "\n".join([*lines, EXAMPLES])


def describe_fields() -> str:
    """All fields of a config with their defaults, choices and meaning, and all options of mixers, tasks and so on."""
    lines = [
        "fields, set by --config.SECTION.FIELD=VALUE, with the defaults for what a config file leaves out",
        "(--dry_run shows what a file sets):",
        *_field_lines("", Config, ["seed", "num_devices"]),
    ]
    for section, cls in typing.get_type_hints(Config).items():
        if section == "task":
            lines += ["", f"  task.name: {', '.join(known('task'))}"]
            lines += _field_lines("task.", TaskConfig, ["data_dir", "limit"])
        if section not in PACKAGES:
            lines += ["", *_field_lines(f"{section}.", cls)] if dataclasses.is_dataclass(cls) else []
            continue
        for name in known(section):
            options = getattr(load_module(section, name), "Options", None)
            title = {"task": "task.name=", "objective": "objective.module="}.get(section, f"{section}.") + name
            prefix = f"{section}." if "=" in title else f"{title}."
            if options or section != "task":
                lines += ["", f"  {title}", *(_field_lines(prefix, options) if options else [])]
    return "\n".join(lines)


def _field_lines(prefix: str, cls: Any, names: list[str] | None = None) -> list[str]:
    """Lines for each field of a section: its default and choices, and its docstring if it has one."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    docs = {
        field.target.id: " ".join(doc.value.value.split())
        for field, doc in itertools.pairwise(getattr(tree, "body", []))
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(doc, ast.Expr) and isinstance(doc.value, ast.Constant) and isinstance(doc.value.value, str)
    }
    hints = typing.get_type_hints(cls)
    lines = []
    for field in dataclasses.fields(cls):
        if names is not None and field.name not in names:
            continue
        default = "" if field.default is dataclasses.MISSING else field.default
        line = f"  {prefix}{field.name}={default}"
        if typing.get_origin(hints[field.name]) is typing.Literal:
            line += f"  ({', '.join(map(str, typing.get_args(hints[field.name])))})"
        if isinstance(default, Duration):
            key = default.key(field.name)
            others = (prefix + other for other, (name, _) in DURATIONS.items() if name == field.name and other != key)
            line = f"  {prefix}{key}={default.amount:g}  (or {', '.join(others)})"
        lines.append(line)
        if field.name in docs:
            lines.append(textwrap.fill(docs[field.name], 110, initial_indent=" " * 6, subsequent_indent=" " * 6))
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
    rows = [("parameter", "shape", "size", "group", "lr", "weight_decay")]
    leaves = jax.tree_util.tree_leaves_with_path(state.params)
    for (path, leaf), number in zip(leaves, jax.tree.leaves(optimizer.labels), strict=True):
        group = optimizer.groups[number]
        numbers = f"{group.lr:g}", f"{group.weight_decay:g}"
        rows.append((path_name(path), str(leaf.shape), f"{leaf.size:,}", group.name, *numbers))
    rows.append(("total", "", f"{sum(leaf.size for _, leaf in leaves):,}", "", "", ""))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
