"""Digits with noise behind them (L = 64 + 192): HOPE against S5, S4D and S4, all causal.

    python scripts/train.py --config=projects/hope/configs/noisy_digits.py:hope --workdir=runs/noisy_digits/hope

The CPU-sized version of `noisy_cifar.py`. The recipes are our own and untuned. `-short` behind a name sets all step
sizes to 0.1 and keeps them there, as published for noisy CIFAR: S5, S4D and S4 then forget within some 50 steps.
`--config.task.noise_steps` sets another number of steps of noise.
"""

from ml_collections import ConfigDict

from configs.common import DEBUG, MODELS, Row, choose

SIZES: Row = {
    "task.name": "projects.hope.noisy_digits",
    "mixer.state_size": 64,
    "mixer.bidirectional": False,
    "model.depth": 4,
    "model.d_model": 64,
    "model.activation": "full_glu",
    "model.norm": "layer",
    "model.prenorm": False,
    "model.dropout": 0.1,
    "train.batch_size": 32,
    "train.epochs": 20,
    "train.eval_every_epochs": 5,
    "log.every_steps": 20,
}
HOPE: Row = DEBUG | {"model.pattern": ("hope",), "debug:mixer.state_size": 8}
SHORT: Row = {
    "mixer.dt_min": 0.1,
    "mixer.dt_max": 0.1,
    "optim.rules": ((".*/seq/log_step", {"frozen": True}),),
}
ROWS: dict[str, Row] = {
    "hope": HOPE | SIZES,
    **{model: MODELS[model] | SIZES for model in ("s5", "s4d-lin", "s4d-legs", "s4-legs")},
}
RECIPES = ROWS | {f"{model}-short": row | SHORT for model, row in ROWS.items()}


def get_config(arg: str = "hope") -> ConfigDict:
    return choose(RECIPES, arg)
