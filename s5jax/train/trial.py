"""An optimizer that a config names, tried before a run is built on it. The default one needs no trial."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from s5jax.train.config import Optim, UserError
from s5jax.train.modules import fault_of
from s5jax.train.optimizer import FIELDS, Optimizer, parameters_of

__all__ = ["try_optimizer"]

LAYERWISE = ("adafactor", "fromage", "lamb", "lars", "novograd")


def try_optimizer(optim: Optim) -> None:
    """Raises UserError if optax has no such optimizer, or it does not work with the arguments that the config gives."""
    parameters = parameters_of(optim.name)
    for name in FIELDS:
        if name not in parameters and getattr(optim, name) is not None:
            raise UserError(f"config.optim.{name}: optax.{optim.name} has no such argument")
    for name in optim.arguments:
        if name not in parameters or name == "weight_decay":
            known = ", ".join(key for key in parameters if key != "weight_decay")
            raise UserError(f"config.optim.arguments: optax.{optim.name} has no argument {name!r}; it has {known}")
    if optim.name in LAYERWISE:
        fault = "scales by the norm of a whole array, but here an array holds all layers of a kind"
        raise UserError(f"config.optim.name: optax.{optim.name} {fault}")
    alone = dataclasses.replace(optim, grouping="plain", rules=(), dt_global=False)
    rates = np.array([0.1], np.float32)
    hyper = {"lr": rates, "weight_decay": rates}

    def run(params):
        optimizer = Optimizer(alone, {"matrix": 0, "vector": 0})
        state = optimizer.init(params)
        return params, state, *optimizer.update(params, state, params, hyper)

    try:
        with jax.numpy_dtype_promotion("standard"):
            params, before, updates, after = jax.eval_shape(run, {"matrix": jnp.zeros((2, 3)), "vector": jnp.zeros(3)})
    except Exception as error:
        raise UserError(f"config.optim: optax.{optim.name} cannot be used so: {fault_of(error)}") from error
    if jax.tree.map(lambda x: x.shape, (params, before)) != jax.tree.map(lambda x: x.shape, (updates, after)):
        raise UserError(f"config.optim: optax.{optim.name} cannot be used: its state changes shape in an update")
