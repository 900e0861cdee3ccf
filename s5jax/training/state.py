"""What training changes, and how it starts."""

import importlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from s5jax.data import batches
from s5jax.data.task import Task
from s5jax.models.classifier import Classifier
from s5jax.models.names import per_layer
from s5jax.models.retrieval import Retrieval
from s5jax.training import optimizer as optimizers
from s5jax.training.config import Config, UserError

__all__ = ["Experiment", "RandomKeys", "TrainState", "build", "random_keys", "report_unstable", "require", "ssm_layers"]


class TrainState(NamedTuple):
    """All that a training step takes and gives back. Trees are nested dicts, by the names of the models."""

    step: jax.Array
    """Steps done, int32."""
    params: dict[str, Any]
    batch_stats: dict[str, Any]
    opt_state: Any


class RandomKeys(NamedTuple):
    """A stream for each purpose."""

    init: jax.Array
    order: jax.Array
    dropout: jax.Array


def random_keys(seed: int) -> RandomKeys:
    return RandomKeys(*jax.random.split(jax.random.key(seed), 3))


class Experiment(NamedTuple):
    """The fixed parts around a state."""

    graphdef: nnx.GraphDef
    optimizer: optax.GradientTransformation
    steps_per_epoch: int
    total_steps: int
    warmup_steps: int
    schedule_steps: int
    """Steps that the schedule of the rates spans, warm-up included."""


def build(config: Config, task: Task) -> tuple[Experiment, TrainState]:
    """The model and optimizer of a config, and their initial state, on the default device."""
    kind = Retrieval if task.pairs else Classifier
    ssm = (config.ssm.name, config.ssm.options)
    rngs = nnx.Rngs(random_keys(config.seed).init)
    try:
        model = kind(config.model, ssm, task.input_size, task.outputs, rngs=rngs)
    except ValueError as error:  # a layer's options may fit no model of this width
        raise UserError(f"config.ssm, with model.d_model {config.model.d_model}: {error}") from error
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
    ssm_params = importlib.import_module(f"s5jax.ssm.{config.ssm.name}").SSM_PARAMS
    labels = optimizers.label(params, config.optim, ssm_params)
    optimizer = optimizers.make_optimizer(config.optim, labels, warmup_steps, schedule_steps)
    experiment = Experiment(graphdef, optimizer, steps_per_epoch, total_steps, warmup_steps, schedule_steps)
    return experiment, TrainState(jnp.zeros((), jnp.int32), params, batch_stats, optimizer.init(params))


def ssm_layers(params: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The parameters of each SSM of a model by name, `layers_0` first."""
    blocks = {name: block["seq"] for name, block in per_layer(params)["encoder"].items() if "seq" in block}
    return dict(sorted(blocks.items(), key=lambda item: int(item[0].removeprefix("layers_"))))


def require(config: Config, *names: str) -> None:
    """Raises UserError if the config's SSM lacks some of the functions that training itself does without."""
    layer = importlib.import_module(f"s5jax.ssm.{config.ssm.name}")
    missing = [name for name in names if not hasattr(layer, name)]
    if missing:
        raise UserError(f"s5jax/ssm/{config.ssm.name}.py has no {' and no '.join(missing)}, which this needs")


def report_unstable(config: Config, params: dict[str, Any]) -> str | None:
    """Says which SSMs of a model have modes that may grow, Re(Lambda) >= 0; `None` if there are none.

    Over a whole sequence they may do no harm, since it is finite; in recurrent mode they overflow sooner or later. (Not
    always in S4, whose low-rank part may damp what its Lambda does not.)
    """
    layer, options = importlib.import_module(f"s5jax.ssm.{config.ssm.name}"), config.ssm.options
    if not hasattr(layer, "Lambda"):
        return None
    found = []
    for name, ssm in ssm_layers(params).items():
        real = np.asarray(layer.Lambda(ssm, options).real)
        if (real >= 0).any():
            found.append(f"{(real >= 0).sum()} of {real.size} modes of {name} (largest Re {real.max():.2g})")
    if not found:
        return None
    cures = {"clip_eigs": True, "real_transform": "exp"}
    hints = [f"{name}={value}" for name, value in cures.items() if getattr(options, name, value) != value]
    hint = f"; config.ssm.{hints[0]} keeps them below" if hints else ""
    return f"may be unstable: Re(Lambda) >= 0 in {', '.join(found)}{hint}"
