"""From a config to what training works with: the task, the model, the optimizer, and the state that they start from."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from s5jax import mixers
from s5jax.data import batches
from s5jax.data.task import DataError, Task
from s5jax.models.model import Model
from s5jax.train import optimizer as optimizers
from s5jax.train.config import Config, Section, UserError
from s5jax.train.resolve import load_module, section
from s5jax.train.step import TrainState

__all__ = ["Experiment", "RandomKeys", "build", "load_task", "random_keys"]


class RandomKeys(NamedTuple):
    """A stream for each purpose."""

    init: jax.Array
    order: jax.Array
    dropout: jax.Array


def random_keys(seed: int) -> RandomKeys:
    return RandomKeys(*jax.random.split(jax.random.key(seed), 3))


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What stays the same while a state is trained. Its numbers reach the training step as `hyper`."""

    config: Config
    task: Task
    graphdef: nnx.GraphDef
    optimizer: optimizers.Optimizer
    objective: Any
    of_objective: dict[str, jax.Array]
    """Numbers that `objective`, the function of the objective's module, takes."""
    steps_per_epoch: int
    total_steps: int
    warmup_steps: int
    schedule_steps: int
    """Steps that the schedule of the rates spans, warm-up included."""
    summary: Any = None
    """The objective's, if it has one."""

    def rates(self, step: int) -> np.ndarray:
        """The rate of each of the optimizer's groups at a step."""
        at = functools.partial(optimizers.rate_at, self.config.optim, step, self.warmup_steps, self.schedule_steps)
        return np.array([at(group.lr) if not group.frozen else 0.0 for group in self.optimizer.groups], np.float32)

    @functools.cached_property
    def constants(self) -> dict[str, Any]:
        """What of `hyper` is the same at every step."""
        config, decays = self.config, [group.weight_decay for group in self.optimizer.groups]
        values = {"weight_decay": np.array(decays, np.float32), "objective": self.of_objective}
        numbers = {
            "clip_norm": config.optim.clip_norm,
            "average": config.optim.average,
            "dropout": config.model.dropout,
        }
        values |= {name: np.float32(value) for name, value in numbers.items() if value}
        return {**values, "key": random_keys(config.seed).dropout} if config.model.dropout else values

    def hyper(self, step: int) -> dict[str, Any]:
        """The numbers of a training step that change no shape: a change of one needs no compilation.

        `lr` and `weight_decay` of each of the optimizer's groups; `clip_norm`, `average`, `dropout` with the run's
        `key`, where these are not zero; and those of the objective.
        """
        values = {"lr": self.rates(step), **self.constants}
        if self.config.train.carry_state:
            values["fresh"] = np.bool_(step % self.steps_per_epoch == 0)
        return values

    def report(self, means: dict[str, float]) -> dict[str, float]:
        """Means of the objective's metrics, and what follows from its loss."""
        return means if self.summary is None else {**means, **self.summary(self.task, means["loss"])}


def build(config: Config, task: Task) -> tuple[Experiment, TrainState]:
    """The experiment of a config, and the state that it starts from, on the default device.

    Raises UserError if parts of the config do not fit each other or the task.
    """
    if config.foreign_modules:
        from s5jax.train import modules

        modules.check_mixers(config, task.length)
    module, options = _objective(config, task)
    of_mixers = {name: (mixer.module, mixer.options) for name, mixer in config.mixers.items()}
    head = "pair" if task.pairs else "step" if task.per_step else "sequence"
    about: dict[str, Any] = {"head": head, "length": task.length, "rngs": nnx.Rngs(random_keys(config.seed).init)}
    try:
        model = Model(config.model, of_mixers, task.input_size, module.outputs(task), **about)
    except ValueError as error:  # the options of a mixer may fit no model of this width
        raise UserError(f"config.mixers, with model.d_model {config.model.d_model}: {error}") from error
    _check_causal(config, task, module)
    try:
        memory = model.init_state(config.train.batch_size) if config.train.carry_state else None
    except ValueError as error:
        raise UserError(f"config.train.carry_state: {error}") from error
    graphdef, *states = nnx.split(model, nnx.Param, nnx.BatchStat)
    params, batch_stats = (nnx.to_pure_dict(state) for state in states)

    train, steps_per_epoch = config.train, batches.steps_per_epoch(len(task.splits["train"]), config.train.batch_size)
    total_steps = train.epochs * steps_per_epoch
    warmup_steps = round(train.warmup_epochs * steps_per_epoch)
    schedule_steps = round((train.schedule_epochs or train.epochs) * steps_per_epoch)
    if warmup_steps >= min(total_steps, schedule_steps):
        steps = f"{total_steps} steps" if total_steps <= schedule_steps else f"{schedule_steps} steps of the schedule"
        raise UserError(f"config.train.warmup_epochs {train.warmup_epochs}: all {steps} would be warm-up")
    optimizer = optimizers.Optimizer(config.optim, optimizers.group_labels(config, params))
    try:
        of_objective = module.hyper(task, options)
    except ValueError as error:
        raise UserError(f"config.objective: {error}") from error
    parts = (config, task, graphdef, optimizer, module.objective, of_objective)
    of_module = getattr(module, "summary", None)
    experiment = Experiment(*parts, steps_per_epoch, total_steps, warmup_steps, schedule_steps, of_module)
    average = {"params": params, "batch_stats": batch_stats} if config.optim.average else None
    average = jax.tree.map(jnp.copy, average)  # the step gives up the buffers of a state, each once
    opt_state = optimizer.init(params)
    return experiment, TrainState(jnp.zeros((), jnp.int32), params, batch_stats, opt_state, average, memory)


def _check_causal(config: Config, task: Task, objective: Any) -> None:
    """Raises UserError where a model reads ahead though it must not, or cannot carry a state from batch to batch."""
    carrying = config.train.carry_state
    if carrying and not task.consecutive:
        raise UserError(f"config.train.carry_state: the sequences of task {task.name} are not pieces of one text")
    why = "config.train.carry_state" if carrying else f"objective {objective.__name__.rpartition('.')[2]}"
    for name, mixer in config.mixers.items() if carrying or getattr(objective, "CAUSAL", False) else ():
        module = mixers.find(mixer.module)
        if not mixers.ability(module, "CAUSAL", mixer.options):
            raise UserError(f"{why} needs a causal model, but the mixer {name} reads in both directions")
        if carrying and not hasattr(module, "init_state"):
            raise UserError(f"{why} needs mixers with a state, but {name} has no init_state")
    conflicts = {"optim.micro_batches": config.optim.micro_batches > 1, "task.limit": config.task.limit > 0}
    for field in [field for field, is_set in conflicts.items() if carrying and is_set]:
        raise UserError(f"config.{field} cannot be combined with config.train.carry_state")


def _objective(config: Config, task: Task) -> tuple[Any, Any]:
    """The module of the objective, and its options."""
    chosen = config.objective or Section(module="", options={})
    if not chosen.module:
        chosen = section("objective", task.objective, chosen.options)
    return load_module("objective", chosen.module), chosen.options


def load_task(config: Config, *, blank: bool = False) -> Task:
    """Loads the task's data and checks that the model can read them.

    With `blank`, zeros of the official sizes, which take no memory, stand for prepared data. Raises UserError if the
    data have not been prepared, are damaged, or are not for this config.
    """
    name, train = config.task.name, config.train
    try:
        task = _load(config, blank)
    except DataError as error:
        raise UserError(str(error)) from error
    except OSError as error:
        raise UserError(f"task {name} cannot be loaded: {error}") from error
    except Exception as error:
        if "." not in name or isinstance(error, UserError):
            raise
        from s5jax.train import modules

        raise UserError(f"task {name} cannot be loaded: {modules.fault_of(error)}") from error
    if not isinstance(task, Task):
        raise UserError(f"task {name}: load() must return a Task, got {task!r}")
    if (config.model.encoder == "dense") != (task.num_tokens is None):
        fault = "values: use dense" if task.num_tokens is None else "tokens: use one_hot or embedding"
        raise UserError(f"config.model.encoder is {config.model.encoder!r}, but task {task.name} gives {fault}")
    if config.task.limit:
        task = task.limited(config.task.limit)
    split = task.splits["train"]
    if train.buckets and (split.lengths is None or not config.model.mask_padding):
        needs = "needs a task that pads, and config.model.mask_padding=True"
        raise UserError(f"config.train.buckets cuts padding, which {needs}")
    given = {key: split.arrays.get(key) for key in ("mask", "reset", "rate")}
    for mixer in config.mixers.values():  # one might ignore something that the data have
        try:
            mixers.check(mixers.find(mixer.module), mixer.options, **given)
        except ValueError as error:
            raise UserError(f"config.model.pattern, with the data of task {name}: {error}") from None
    if train.batch_size > len(split):
        raise UserError(f"config.train.batch_size {train.batch_size} exceeds the {len(split)} training examples")
    return task


def _load(config: Config, blank: bool) -> Any:
    module, arguments = load_module("task", config.task.name), []
    if hasattr(module, "FORMAT"):
        from s5jax.data import store

        arguments.append(store.blank(module.FORMAT) if blank else store.read(module.FORMAT, config.task.data_dir))
    if hasattr(module, "Options"):
        arguments.append(config.task.options)
    return module.load(*arguments)
