"""Builds from a config what training needs: the task, the model, the optimizer, and their first state."""

import collections
import contextlib
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from s5jax import mixers
from s5jax.data.task import PER_STEP, Task
from s5jax.models.model import Model
from s5jax.train import optimizer as optimizers
from s5jax.train.config import Config, Section, UserError, explained
from s5jax.train.resolve import load_module, section
from s5jax.train.step import TrainState

RandomKeys = collections.namedtuple("RandomKeys", "init order dropout")


def random_keys(seed: int) -> RandomKeys:
    """Independent random keys, one for each purpose."""
    return RandomKeys(*jax.random.split(jax.random.key(seed), 3))


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What stays the same during training. `hyper` gives the numbers that are arguments of the training step."""

    config: Config
    task: Task
    graphdef: nnx.GraphDef
    optimizer: optimizers.Optimizer
    objective: Any
    of_objective: dict[str, jax.Array]
    """Keyword arguments of `objective`."""
    summary: Any
    """The objective's function `summary`, or `None`."""
    sizes: dict[str, Any]  # the arguments of `build_model` that the task gives
    steps_per_epoch: int
    total_steps: int
    warmup_steps: int
    schedule_steps: int
    """Length of the learning rate schedule in steps, warm-up included."""

    def rates(self, step: int) -> np.ndarray:
        """The learning rate of each of the optimizer's groups at a step."""
        at = functools.partial(optimizers.rate_at, self.config.optim, step, self.warmup_steps, self.schedule_steps)
        return np.array([at(group.lr) if group.lr else 0.0 for group in self.optimizer.groups], np.float32)

    @functools.cached_property
    def _constants(self) -> dict[str, Any]:
        optim, dropout = self.config.optim, self.config.model.dropout
        decays = np.array([group.weight_decay for group in self.optimizer.groups], np.float32)
        own = any(
            mixers.ability(mixers.find(m.module), "DROPOUT", m.options) == "own" for m in self.config.mixers.values()
        )
        key = {"key": random_keys(self.config.seed).dropout} if dropout or own else {}
        given = {"clip_norm": optim.clip_norm, "average": optim.average, "dropout": dropout}
        numbers = {name: np.float32(value) for name, value in given.items() if value}
        return {"weight_decay": decays, "objective": self.of_objective, **numbers, **key}

    def hyper(self, step: int) -> dict[str, Any]:
        """The numbers of a training step that determine no shape, so that changing one compiles nothing.

        `lr` and `weight_decay` of each of the optimizer's groups; `clip_norm`, `average`, `dropout`, where not zero;
        the run's `key`, if there is dropout; those of the objective; `fresh`, true where carried states begin anew.
        """
        fresh = {"fresh": np.bool_(step % self.steps_per_epoch == 0)} if self.config.train.carry_state else {}
        return {"lr": self.rates(step), **self._constants, **fresh}


def build(config: Config, task: Task) -> tuple[Experiment, TrainState]:
    """The experiment of a config and its first state, built on the CPU if jax has a CPU backend, so that parameters do
    not depend on the accelerator.

    Raises UserError if parts of the config do not fit each other or the task.
    """
    objective = config.objective or Section(module="", options={})
    if not objective.module:
        objective = section("objective", task.objective, objective.options)
    module = load_module("objective", objective.module)
    if config.foreign_modules or config.objective:
        from s5jax.train import modules

        modules.check_mixers(config, task.length)
        modules.check_objective(module, objective.options, task, config.train.batch_size)
    if config.evaluators:
        from s5jax.train import evaluation

        evaluation.check(config, task)
    if getattr(module, "CAUSAL", False):
        for name, mixer in config.mixers.items():
            if not mixers.ability(mixers.find(mixer.module), "CAUSAL", mixer.options):
                fault = f"needs a causal model, but {name} reads in both directions"
                raise UserError(f"objective {objective.module} {fault}")
    head = "pair" if task.pairs else "step" if task.per_step else "sequence"
    sizes = {"input_size": task.input_size, "outputs": module.outputs(task), "length": task.length}
    sizes = {name: int(size) for name, size in sizes.items()} | {"head": head}  # NumPy's integers are no JSON
    with _on_cpu():
        model, memory = build_model(config, **sizes), None
        if config.train.carry_state:
            from s5jax.train import carried

            memory = carried.init_memory(config, task, model)
        graphdef, *states = nnx.split(model, nnx.Param, nnx.BatchStat)
        params, batch_stats = (nnx.to_pure_dict(state) for state in states)

    train, steps_per_epoch = config.train, len(task.splits["train"]) // config.train.batch_size
    durations = (train.duration, train.warmup, train.schedule)
    total_steps, warmup_steps, schedule_steps = (d.steps(steps_per_epoch, train.batch_size) for d in durations)
    schedule_steps = schedule_steps or total_steps
    if total_steps >= 2**31:
        raise UserError(f"config.train.{train.duration.key('duration')}: {total_steps} steps, more than 2^31 - 1")
    if warmup_steps >= min(total_steps, schedule_steps):
        steps = f"{total_steps} steps" if total_steps <= schedule_steps else f"{schedule_steps} steps of the schedule"
        warmup = f"config.train.{train.warmup.key('warmup')} {train.warmup.amount}"
        raise UserError(f"{warmup}: all {steps} would be warm-up")
    optimizer = optimizers.Optimizer(config.optim, optimizers.group_labels(config, params))
    numbers = module.hyper(task, objective.options) if hasattr(module, "hyper") else {}
    parts = (config, task, graphdef, optimizer, module.objective, numbers, getattr(module, "summary", None), sizes)
    experiment = Experiment(*parts, steps_per_epoch, total_steps, warmup_steps, schedule_steps)
    # A copy, because the step donates each buffer of a state, which it can do only once.
    with _on_cpu():
        average = {"params": params, "batch_stats": batch_stats} if config.optim.average else None
        average = jax.tree.map(jnp.copy, average)
        state = TrainState(jnp.zeros((), jnp.int32), params, batch_stats, optimizer.init(params), average, memory)
    return experiment, state


def _on_cpu() -> Any:
    """A context in which jax computes on a CPU; with JAX_PLATFORMS=cuda there is none, and nothing changes."""
    try:
        return jax.default_device(jax.local_devices(backend="cpu")[0])
    except RuntimeError:
        return contextlib.nullcontext()


def build_model(config: Config, **sizes: Any) -> Model:
    """The untrained model of a config. `sizes` are the last arguments of `Model`. UserError if mixers do not fit."""
    of_mixers = {name: (mixer.module, mixer.options) for name, mixer in config.mixers.items()}
    with explained(f"config.mixers, with model.d_model {config.model.d_model}"):
        return Model(config.model, of_mixers, **sizes, rngs=nnx.Rngs(random_keys(config.seed).init))


def load_task(config: Config, *, blank: bool = False) -> Task:
    """Loads the task's data and checks that the model can read them.

    With `blank`, zeros of the official sizes, which take no memory, replace prepared data. Raises UserError if the data
    are not prepared, are damaged, or do not fit this config.
    """
    name, train = config.task.name, config.train
    try:
        task = _load(config, blank)
    except Exception as error:
        from s5jax.train import modules

        modules.explain_task(name, error)
        raise
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
    given = {key: array for split in task.splits.values() for key, array in split.arrays.items() if key in PER_STEP}
    for mixer in config.mixers.values():  # one might ignore something that the data have
        module = mixers.find(mixer.module)
        with explained(f"config.model.pattern, with the data of task {name}"):
            mixers.check(module, mixer.options, **given)
        if train.buckets and mixers.ability(module, "PADDING", mixer.options) == "zeros":
            raise UserError(f"config.train.buckets: what {mixer.module} computes depends on how far a batch is padded")
    if train.batch_size > len(split):
        raise UserError(f"config.train.batch_size {train.batch_size} exceeds the {len(split)} training examples")
    return task


def _load(config: Config, blank: bool) -> Any:
    module = load_module("task", config.task.name)
    options = [config.task.options] if hasattr(module, "Options") else []
    if not hasattr(module, "FORMAT"):
        return module.load(*options)
    from s5jax.data import store

    if blank:
        return module.load(store.blank(module.FORMAT), *options)
    name, data_dir = module.FORMAT.name, config.task.data_dir
    manifest = store.read_manifest(data_dir, name)
    facts = {"task": name, "sha256": store.fingerprint(manifest), "origin": manifest["origin"]}
    return dataclasses.replace(module.load(store.read(module.FORMAT, data_dir), *options), facts=facts)
