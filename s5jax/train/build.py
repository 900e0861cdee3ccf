"""From a config to what training works with: the task, the model, the optimizer, and the state that they start from."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from s5jax import mixers
from s5jax.data import batches, store
from s5jax.data.task import DataError, Split, Task
from s5jax.models.heads import Kind
from s5jax.models.model import Model
from s5jax.train import optimizer as optimizers
from s5jax.train.config import Config, Section, UserError
from s5jax.train.resolve import fault_of, foreign_modules, load_module, section
from s5jax.train.step import TrainState

__all__ = ["Experiment", "RandomKeys", "UnpreparedError", "build", "load_task", "random_keys"]


class UnpreparedError(UserError):
    """The task's data have not been prepared."""


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
    """The function of the objective's module."""
    of_objective: dict[str, jax.Array]
    """Its numbers."""
    steps_per_epoch: int
    total_steps: int
    warmup_steps: int
    schedule_steps: int
    """Steps that the schedule of the rates spans, warm-up included."""

    def rates(self, step: int) -> np.ndarray:
        """The rate of each of the optimizer's groups at a step."""
        at = functools.partial(optimizers.rate_at, self.config.optim, step, self.warmup_steps, self.schedule_steps)
        return np.array([at(group.lr) if not group.frozen else 0.0 for group in self.optimizer.groups], np.float32)

    @functools.cached_property
    def constants(self) -> dict[str, Any]:
        """What of `hyper` is the same at every step."""
        config, optim = self.config, self.config.optim
        decays = [group.weight_decay for group in self.optimizer.groups]
        values = {"weight_decay": np.array(decays, np.float32), "objective": self.of_objective}
        for name, value in {"clip_norm": optim.clip_norm, "average": optim.average}.items():
            if value:
                values[name] = np.float32(value)
        if config.model.dropout:
            values |= {"dropout": np.float32(config.model.dropout), "key": random_keys(config.seed).dropout}
        return values

    def hyper(self, step: int) -> dict[str, Any]:
        """The numbers of a training step that change no shape: a change of one needs no compilation.

        `lr` and `weight_decay` of each of the optimizer's groups; `clip_norm`, `average`, `dropout` with the run's
        `key`, where these are not zero; and those of the objective.
        """
        return {"lr": self.rates(step), **self.constants}


def build(config: Config, task: Task) -> tuple[Experiment, TrainState]:
    """The experiment of a config, and the state that it starts from, on the default device.

    Raises:
      UserError: parts of the config do not fit each other or the task.
    """
    _check_foreign_mixers(config, task.length)
    try:
        model = make_model(config, task)
    except ValueError as error:  # the options of a mixer may fit no model of this width
        raise UserError(f"config.mixers, with model.d_model {config.model.d_model}: {error}") from error
    graphdef, *states = nnx.split(model, nnx.Param, nnx.BatchStat)
    params, batch_stats = (nnx.to_pure_dict(state) for state in states)

    steps_per_epoch = batches.steps_per_epoch(len(task.splits["train"]), config.train.batch_size)
    total_steps = config.train.epochs * steps_per_epoch
    warmup_steps = round(config.train.warmup_epochs * steps_per_epoch)
    schedule_steps = round((config.train.schedule_epochs or config.train.epochs) * steps_per_epoch)
    if warmup_steps >= min(total_steps, schedule_steps):
        raise UserError(
            f"config.train.warmup_epochs {config.train.warmup_epochs}: all {min(total_steps, schedule_steps)} steps"
            f" {'of the schedule ' if schedule_steps < total_steps else ''}would be warm-up"
        )
    optimizer = optimizers.Optimizer(config.optim, optimizers.group_labels(config, params))
    module, options = _objective(config, task)
    try:
        of_objective = module.hyper(task, options)
    except ValueError as error:
        raise UserError(f"config.objective: {error}") from error
    experiment = Experiment(
        config=config,
        task=task,
        graphdef=graphdef,
        optimizer=optimizer,
        objective=module.objective,
        of_objective=of_objective,
        steps_per_epoch=steps_per_epoch,
        total_steps=total_steps,
        warmup_steps=warmup_steps,
        schedule_steps=schedule_steps,
    )
    average = {"params": params, "batch_stats": batch_stats} if config.optim.average else None
    average = jax.tree.map(jnp.copy, average)  # the step gives up the buffers of a state, each once
    return experiment, TrainState(jnp.zeros((), jnp.int32), params, batch_stats, optimizer.init(params), average)


def make_model(config: Config, task: Task) -> Model:
    """The model of a config for a task, freshly initialised."""
    kind: Kind = "pair" if task.pairs else "step" if task.per_step else "sequence"
    module, _ = _objective(config, task)
    of_mixers = {name: (mixer.module, mixer.options) for name, mixer in config.mixers.items()}
    return Model(
        config.model,
        of_mixers,
        task.channels if task.num_tokens is None else task.num_tokens,
        module.outputs(task),
        head=kind,
        length=task.length,
        rngs=nnx.Rngs(random_keys(config.seed).init),
    )


def _objective(config: Config, task: Task) -> tuple[Any, Any]:
    """The module of the objective, and its options."""
    chosen = config.objective or Section(module="", options={})
    if not chosen.module:
        chosen = section("objective", task.objective, chosen.options)
    return load_module("objective", chosen.module), chosen.options


def _check_foreign_mixers(config: Config, length: int) -> None:
    """Raises UserError where a mixer of the user's fails, or does not return what it should."""
    for name in foreign_modules(config).keys() & {mixer.module for mixer in config.mixers.values()}:
        module, options = next((mixers.find(name), m.options) for m in config.mixers.values() if m.module == name)
        shape = (2, length, config.model.d_model)
        try:
            params = jax.eval_shape(
                lambda key, o=options, m=module: m.init(
                    key, config.model.d_model, o, depth=config.model.depth, length=length
                ),
                jax.random.key(0),
            )
            x = jax.ShapeDtypeStruct(shape, jnp.float32)
            result = jax.eval_shape(lambda params, x, o=options, m=module: m.apply(params, x, o), params, x)
        except Exception as error:
            raise UserError(f"config.model.pattern: {name} failed: {fault_of(error)}") from error
        if not isinstance(result, tuple) or len(result) != 2:
            raise UserError(f"config.model.pattern: {name}.apply must return (y, state), got {result!r}")
        if getattr(result[0], "shape", None) != shape or result[1] is not None:
            raise UserError(
                f"config.model.pattern: {name}.apply must return y of the shape of x, {shape}, and no state if none was"
                f" given; got {getattr(result[0], 'shape', result[0])} and {result[1]!r}"
            )


def load_task(config: Config, *, blank: bool = False) -> Task:
    """Loads the task's data and checks that the model can read them.

    Args:
      config: the experiment.
      blank: prepared data need not be there; zeros of the official sizes, which take no memory, stand for them.

    Raises:
      UserError: the data have not been prepared, are damaged, or are not for this config.
    """
    name = config.task.name
    module = load_module("task", name)
    try:
        arguments: list[Any] = []
        if hasattr(module, "FORMAT"):
            arguments.append(store.blank(module.FORMAT) if blank else store.read(module.FORMAT, config.task.data_dir))
        if hasattr(module, "Options"):
            arguments.append(config.task.options)
        task = module.load(*arguments)
    except store.Unprepared as error:
        raise UnpreparedError(str(error)) from error
    except DataError as error:
        raise UserError(str(error)) from error
    except OSError as error:
        raise UserError(f"task {name} cannot be loaded: {error}") from error
    except Exception as error:
        if "." not in name:
            raise
        raise UserError(f"task {name} cannot be loaded: {fault_of(error)}") from error
    if not isinstance(task, Task):
        raise UserError(f"task {name}: load() must return a Task, got {task!r}")
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
    _check_abilities(config, task.splits["train"])
    size = len(task.splits["train"])
    if config.train.batch_size > size:
        raise UserError(f"config.train.batch_size {config.train.batch_size} exceeds the {size} training examples")
    return task


def _check_abilities(config: Config, split: Split) -> None:
    """Raises UserError where a mixer would ignore something that the data have."""
    for name in config.model.pattern:
        mixer = config.mixers[name]
        given = {key: split.arrays.get(key) for key in ("mask", "reset", "rate")}
        try:
            mixers.check(mixers.find(mixer.module), mixer.options, **given)
        except ValueError as error:
            raise UserError(f"config.model.pattern, with the data of task {config.task.name}: {error}") from None
