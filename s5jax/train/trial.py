"""Checks the optimizer that a config names, before a run is built on it. The default one needs no trial."""

import dataclasses
import difflib
import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax

from s5jax.models.options import check_least
from s5jax.train.config import Optim, UserError
from s5jax.train.modules import fault_of
from s5jax.train.optimizer import FIELDS, Optimizer
from s5jax.train.resolve import build

LAYERWISE = ("adafactor", "fromage", "lamb", "lars", "novograd")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule:
    """What a rule of `optim.rules` may set; what it leaves out is as in `optim`."""

    lr: float = 0.0
    weight_decay: float = 0.0
    frozen: bool = False

    def __post_init__(self) -> None:
        check_least(self, 0, "lr", "weight_decay")


def check(optim: Optim) -> None:
    """Raises UserError for a mistake in the rules, or if optax has no such optimizer, or none with such arguments."""
    for i, (pattern, values) in enumerate(optim.rules):
        build(Rule, values, f"config.optim.rules[{i}]")
        try:
            re.compile(pattern)
        except re.error as error:
            raise UserError(f"config.optim.rules[{i}]: {pattern!r} is not a regular expression: {error}") from None
    make = None if optim.name.startswith(("_", "scale_by_")) else getattr(optax, optim.name, None)
    parameters = dict(inspect.signature(make).parameters) if inspect.isfunction(make) else {}
    if not parameters.pop("learning_rate", None):
        common = ["adamw", "adam", "lion", "sgd", "rmsprop", "radam", "adagrad"]
        close = difflib.get_close_matches(optim.name, common, 1)
        hint = f"; did you mean {close[0]}?" if close else "; some that it has are adamw, adam, lion and sgd"
        raise UserError(f"config.optim.name: optax has no optimizer {optim.name!r}{hint}")
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
