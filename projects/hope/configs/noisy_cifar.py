"""Sequential CIFAR-10 with as many steps of noise behind the pixels (L = 1024 + 1024).

    python scripts/prepare_data.py scifar --data_dir=data
    python scripts/train.py --config=projects/hope/configs/noisy_cifar.py:hope --workdir=runs/noisy_cifar/hope

Published accuracy, read off a figure (arXiv 2405.13975): HOPE about 65 %, S4D about 45 %. Here: not run yet.

Sizes, rates and step sizes are those of the published script for HOPE. `hope-published` is its layer: two directions, a
circular convolution of the unmirrored sequence, so that the outputs during the noise also see the pixels after them.
The others are causal. The published script draws new noise in each epoch.
"""

from ml_collections import ConfigDict

from configs.common import DEBUG, MODELS, Row, choose

SIZES: Row = {
    "task.name": "projects.hope.noisy_cifar",
    "mixer.dt_min": 0.1,
    "mixer.dt_max": 0.1,
    "mixer.bidirectional": False,
    "model.depth": 4,
    "model.d_model": 128,
    "model.activation": "full_glu",
    "model.gelu": "exact",
    "model.norm": "layer",
    "model.norm_epsilon": 1e-5,
    "model.prenorm": False,
    "model.dropout": 0.1,
    "optim.lr": 0.01,
    "optim.ssm_lr": 0.001,
    "optim.weight_decay": 0.01,
    "optim.rules": ((".*/seq/log_step", {"frozen": True}),),
    "train.batch_size": 64,
    "train.epochs": 100,
}
HOPE: Row = DEBUG | {"model.pattern": ("hope",), "debug:mixer.state_size": 8} | SIZES
HOPE |= {"mixer.state_size": 128, "mixer.h_scale": 0.354}
PUBLISHED: Row = {"mixer.bidirectional": True, "mixer.mirror": False, "mixer.dt_per_direction": True}
RECIPES: dict[str, Row] = {
    "hope": HOPE,
    "hope-published": HOPE | PUBLISHED,
    **{model: MODELS[model] | SIZES for model in ("s5", "s4d-lin", "s4d-legs", "s4-legs")},
}


def get_config(arg: str = "hope") -> ConfigDict:
    return choose(RECIPES, arg)
