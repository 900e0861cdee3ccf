"""The optimizer: learning rates and weight decays of groups of parameters, how the learning rates change, and the
update.

Rules divide the parameters into groups: `(pattern, {"lr": ..., "weight_decay": ..., "frozen": ...})`; the first rule
that matches counts. A pattern is a regular expression that matches a leaf's whole path, as `--dry_run` shows it
("encoder/layers/0/seq/B"), or `@name` for a group in the `GROUPS` of the mixers ("@dynamics"). What a rule leaves out
is as in the config. Rates and decays are arguments of the training step, see `hyper` in `build.py`.
"""

import functools
import inspect
import math
import re
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from s5jax import mixers
from s5jax.train.config import Config, Optim, UserError

FIELDS = ("b1", "b2", "eps")  # arguments of optimizers that are fields of the config
Rules = tuple[tuple[str, dict[str, Any]], ...]

_SSM: dict[str, Any] = {"name": "ssm", "lr": "ssm_lr", "weight_decay": 0.0}
_SSM_DECAY: dict[str, Any] = {"name": "ssm_decay", "lr": "ssm_lr"}
_REGULAR: dict[str, Any] = {"name": "regular"}
_FROZEN: dict[str, Any] = {"name": "frozen", "frozen": True}

GROUPINGS: dict[str, Rules] = {
    "standard": (("@dynamics", _SSM),),
    "BandCdecay": ((".*/seq/B(_re|_im)?", _SSM_DECAY), ("@dynamics", _SSM)),
    "BfastandCdecay": ((".*/seq/B(_re|_im)?", _REGULAR), ("@dynamics", _SSM)),
    "noBCdecay": ((".*/seq/(B|C|C1|C2)(_re|_im)?|.*/seq/D", _SSM), ("@dynamics", _SSM)),
    "only_C": ((".*/seq/(B(_re|_im)?|D)", _FROZEN), ("@dynamics", _FROZEN)),
    "plain": (),
}
"""Rules by the published names of groupings. The first four are S5's: dynamics at `ssm_lr` without weight decay; B, C
(and D in noBCdecay) as listed; all else at `lr` with weight decay. Our "only_C" freezes all of a state
space mixer except C (arXiv 2310.01698, section 5), and nothing of attention."""


class Group(NamedTuple):
    """Parameters with the same highest learning rate `lr` and the same weight decay."""

    name: str
    lr: float
    weight_decay: float
    frozen: bool


def _rules_of(optim: Optim) -> Rules:
    """All rules of a config: its own, then those of its grouping."""
    step_sizes: Rules = ((".*/seq/log_step", _REGULAR),) if optim.dt_global else ()
    return (*optim.rules, *step_sizes, *GROUPINGS[optim.grouping])


def groups_of(optim: Optim) -> list[Group]:
    """The group of each rule, in their order, and last the group of all other parameters."""
    groups = []
    for i, (_, values) in enumerate((*_rules_of(optim), ("", _REGULAR)), 1):
        lr, decay = values.get("lr", optim.lr), values.get("weight_decay", optim.weight_decay)
        lr = optim.ssm_lr if lr == "ssm_lr" else lr
        frozen, name = bool(values.get("frozen", False)), values.get("name", f"rule {i}")
        groups.append(Group(name, 0.0 if frozen else float(lr), 0.0 if frozen else float(decay), frozen))
    return groups


def group_labels(config: Config, params: Any) -> Any:
    """The number of each parameter's group in `groups_of`, as a tree like `params`.

    Raises UserError if a rule of the config, or dt_global, matches no parameter, or lr_min exceeds a learning rate.
    """
    optim, rules = config.optim, _rules_of(config.optim)
    paths = jax.tree_util.tree_leaves_with_path(params)
    if optim.dt_global and not any(path_name(path).endswith("/seq/log_step") for path, _ in paths):
        raise UserError("config.optim.dt_global changes nothing: no mixer of the model has a log_step")

    def label(path: tuple[Any, ...], _: Any) -> int:
        name = path_name(path)
        return next((i for i, (pattern, _) in enumerate(rules) if _matches(pattern, name, config)), len(rules))

    labels = jax.tree_util.tree_map_with_path(label, params)
    used = {*jax.tree.leaves(labels)}
    unused = {*range(len(optim.rules))} - used
    if unused:
        fault = "matches no parameter, or only ones of an earlier rule; remove it, and --dry_run lists all names"
        raise UserError(f"config.optim.rules: {rules[min(unused)][0]!r} {fault}")
    for group in (groups_of(optim)[i] for i in sorted(used)):
        if 0 < group.lr < optim.lr_min:
            raise UserError(f"config.optim.lr_min {optim.lr_min} exceeds {group.lr}, the lr of group {group.name}")
    return labels


def _matches(pattern: str, name: str, config: Config) -> bool:
    if not pattern.startswith("@"):
        return re.fullmatch(pattern, name) is not None
    found = re.fullmatch(r".*/layers/(\d+)/seq/(.*)", name)
    if found is None:
        return False
    mixer = mixers.find(config.mixers[config.model.pattern[int(found[1])]].module)
    expression = getattr(mixer, "GROUPS", {}).get(pattern[1:])
    return expression is not None and re.fullmatch(expression, found[2]) is not None


def path_name(path: tuple[Any, ...]) -> str:
    """The path of a leaf, with slashes between the names."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def rate_at(optim: Optim, step: int, warmup_steps: int, total_steps: int, base: float) -> float:
    """The learning rate after `step` steps, for a group whose highest one is `base`; `total_steps` are those of the
    schedule.

    `constant`: linear to `base` over the warm-up, then `base`. `warmup_cosine`: the same warm-up, then half a cosine
    that reaches lr_min after `total_steps`; beyond them it rises again, as in the published S4 code.
    `inverse_sqrt`: the same warm-up, then base sqrt(max(1, warmup) / step).

    `s5_published`: what the published S5 loop does. Step 0 runs at `base`. Each later step runs at the rate for
    k = step - 1: base (k + 1) / warmup while k < warmup, and after that a cosine of length total - warmup, evaluated at
    k instead of k - warmup. The rate therefore drops after the warm-up, and is lr_min for the last warmup - 1 steps.
    """

    def cosine(k: int) -> float:
        return optim.lr_min + (base - optim.lr_min) * (1 + math.cos(math.pi * k / (total_steps - warmup_steps))) / 2

    if optim.schedule == "s5_published":
        if step == 0:
            return base
        k = step - 1
        return base * (k + 1) / warmup_steps if k < warmup_steps else cosine(min(k, total_steps - warmup_steps))
    if step < warmup_steps:
        return base * (1 + step * (warmup_steps - 1) / warmup_steps) / warmup_steps
    if optim.schedule == "inverse_sqrt":
        return base * math.sqrt(max(warmup_steps, 1) / max(step, 1))
    return base if optim.schedule == "constant" else cosine(step - warmup_steps)


class Optimizer:
    """The config's optimizer of optax, one for each group. `labels` are from `group_labels`."""

    def __init__(self, optim: Optim, labels: Any):
        self.optim, self.labels, self.groups = optim, labels, groups_of(optim)
        given = {name: getattr(optim, name) for name in FIELDS if getattr(optim, name) is not None}
        self._make = functools.partial(getattr(optax, optim.name), **given, **optim.arguments)

    def _transformation(self, lr: Any, weight_decay: Any, clip_norm: Any) -> optax.GradientTransformation:
        def of_group(i: int) -> optax.GradientTransformation:
            if self.groups[i].frozen:
                return optax.set_to_zero()
            if "weight_decay" in inspect.signature(self._make).parameters:
                return self._make(lr[i], weight_decay=weight_decay[i])
            return optax.chain(optax.add_decayed_weights(weight_decay[i]), self._make(lr[i]))

        update = optax.multi_transform({i: of_group(i) for i in sorted({*jax.tree.leaves(self.labels)})}, self.labels)
        if clip_norm is None:
            return update
        frozen = jax.tree.map(lambda i: self.groups[i].frozen, self.labels)  # their gradients do not count
        return optax.chain(optax.masked(optax.set_to_zero(), frozen), optax.clip_by_global_norm(clip_norm), update)

    def init(self, params: Any) -> Any:
        """The state before the first step."""
        rates = np.array([group.lr for group in self.groups])  # rprop's state starts from them
        return self._transformation(rates, np.zeros(len(rates)), self.optim.clip_norm or None).init(params)

    def update(self, grads: Any, state: Any, params: Any, hyper: dict[str, Any]) -> tuple[Any, Any]:
        """Updates of the parameters, and the next state; `hyper` has `lr` and `weight_decay` for each of `groups`."""
        transformation = self._transformation(hyper["lr"], hyper["weight_decay"], hyper.get("clip_norm"))
        return transformation.update(grads, state, params)
