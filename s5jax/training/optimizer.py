"""AdamW with the groups of parameters and the schedules of the published S5 recipes."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from s5jax.training.config import Optim

__all__ = ["GROUPINGS", "groups", "label", "make_optimizer", "make_schedule"]

GROUPINGS = {
    "standard": {"B": "ssm"},
    "BandCdecay": {"B": "ssm_decay"},
    "BfastandCdecay": {"B": "regular"},
    "noBCdecay": {"B": "ssm", "C": "ssm", "C1": "ssm", "C2": "ssm", "D": "ssm"},
    "only_C": {"B": "frozen", "D": "frozen"},
}
"""By the published names: the group of some leaves of an SSM. Other leaves are "ssm" where the layer's SSM_PARAMS name
them, else "regular", as is all outside the SSM, norms and biases included. The grouping "plain" is "regular" alone. In
"only_C", which is ours, "ssm" is "frozen" too: of an SSM C alone is trained (arXiv 2310.01698, section 5)."""


def groups(optim: Optim) -> dict[str, tuple[float, float]]:
    """Base rate and weight decay of each group."""
    return {
        "regular": (optim.lr, optim.weight_decay),
        "ssm": (optim.ssm_lr, 0.0),
        "ssm_decay": (optim.ssm_lr, optim.weight_decay),
        "frozen": (0.0, 0.0),
    }


def label(params: dict[str, Any], optim: Optim, ssm_params: tuple[str, ...]) -> dict[str, Any]:
    """The group of every parameter, in a tree like theirs. The leaves of an SSM are those below the name `seq`."""

    def group(path: tuple[Any, ...], _: Any) -> str:
        *_, parent, leaf = ("", *(key.key for key in path))
        if parent != "seq" or optim.grouping == "plain" or (optim.dt_global and leaf == "log_step"):
            return "regular"
        dynamics = "frozen" if optim.grouping == "only_C" else "ssm"
        return GROUPINGS[optim.grouping].get(leaf, dynamics if leaf in ssm_params else "regular")

    return jax.tree_util.tree_map_with_path(group, params)


def make_schedule(optim: Optim, base: float, warmup_steps: int, total_steps: int) -> optax.Schedule:
    """Rate of each step.

    `warmup_cosine`: linear to `base` over the warm-up, then half a cosine that reaches lr_min after the last of
    `total_steps`. Where training goes on, so does the cosine, up again, as in the published S4 code (`s5_published`
    stays at lr_min).

    `s5_published`: what the published S5 loop does. Step 0 runs at `base`, before any warm-up, and each later step at
    the rate computed for the step before it, k: base (k + 1) / warmup while k < warmup, then a cosine of length
    total - warmup in k itself, not k - warmup. The rate so drops at the seam, and is lr_min for the last warmup steps.
    """

    def cosine(steps: int) -> optax.Schedule:
        half_turn = jnp.pi / steps
        return lambda step: optim.lr_min + (base - optim.lr_min) * (1 + jnp.cos(half_turn * jnp.float32(step))) / 2

    if optim.schedule == "warmup_cosine":
        first = base / warmup_steps if warmup_steps else base
        warmup = optax.linear_schedule(first, base, warmup_steps)
        return optax.join_schedules([warmup, cosine(total_steps - warmup_steps)], [warmup_steps])

    def published(step: jax.typing.ArrayLike) -> jax.Array:
        previous = jnp.asarray(step, jnp.float32) - 1
        cosine_steps = total_steps - warmup_steps
        rising = base * (previous + 1) / max(warmup_steps, 1)
        falling = cosine(cosine_steps)(jnp.minimum(previous, cosine_steps))
        return jnp.where(previous < 0, base, jnp.where(previous < warmup_steps, rising, falling))

    return published


def make_optimizer(
    optim: Optim, labels: dict[str, Any], warmup_steps: int, total_steps: int
) -> optax.GradientTransformation:
    """One AdamW a group, none for what is frozen, after clipping by global norm where that is asked for."""
    rules: dict[str, optax.GradientTransformation] = {
        name: optax.adamw(make_schedule(optim, rate, warmup_steps, total_steps), weight_decay=decay)
        for name, (rate, decay) in groups(optim).items()
        if name != "frozen"
    }
    by_group = optax.multi_transform({**rules, "frozen": optax.set_to_zero()}, labels)
    if not optim.clip_norm:
        return by_group
    frozen = jax.tree.map(lambda group: group == "frozen", labels)  # their gradients do not count
    clip = optax.clip_by_global_norm(optim.clip_norm)
    return optax.chain(optax.masked(optax.set_to_zero(), frozen), clip, by_group)
