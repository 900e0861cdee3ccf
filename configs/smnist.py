"""Sequential MNIST: handwritten digits, pixel by pixel (L = 784), in their order or permuted.

    python scripts/prepare_data.py smnist --data_dir=data
    python scripts/train.py --config=configs/smnist.py:MODEL --workdir=runs/smnist
    python scripts/train.py --config=configs/smnist.py:MODEL,permuted --workdir=runs/psmnist

With the flag `permuted`, pixels come in the published order: the bits of a pixel's number are reversed.

Published scores: none that we could verify. Here: not run yet. `s5` has 138,634 parameters, 200,970 for the permuted
digits.

Numbers of S5: of a published script for sMNIST (the repository LAST), one direction, and the published code's defaults;
those for the permuted digits are not verified, and their one direction is deduced. For S4D and S4 nothing is published
in state-spaces/s4: deduced from its cifar/s4-cifar-ablation, for sequential CIFAR, with GLU and its step sizes
and rates of cifar/s4-cifar. Deduced too: S5-PTD from S5, and S4-PTD from S4D, with one (A, B) for all features.
"""

from ml_collections import ConfigDict

from configs.common import choose, table

COMMON = {"model.depth": 4, "model.dropout": 0.1, "optim.weight_decay": 0.01}
S5 = COMMON | {
    "seed": 1919,
    "mixer.state_size": 128,
    "mixer.C_init": "trunc_standard_normal",
    "mixer.bidirectional": False,
    "model.d_model": 96,
    "optim.lr": 0.008,
    "optim.ssm_lr": 0.002,
    "train.epochs": 150,
}
S4 = COMMON | {
    "seed": 2222,
    "mixer.n_ssm": 2,
    "model.norm": "layer",
    "model.prenorm": False,
    "optim.lr": 0.01,
    "train.epochs": 100,
}
PERMUTED = {"permuted:task.permuted": True}
S5_PERMUTED = PERMUTED | {
    "permuted:mixer.blocks": 2,
    "permuted:model.d_model": 128,
    "permuted:model.dropout": 0.15,
    "permuted:optim.lr": 0.004,
    "permuted:optim.ssm_lr": 0.001,
}

RECIPES = table(
    "smnist",
    {
        "s5": S5 | S5_PERMUTED,
        "s5-ptd": S5 | S5_PERMUTED,
        "s4d-lin": S4 | PERMUTED,
        "s4d-inv": S4 | PERMUTED,
        "s4d-legs": S4 | PERMUTED,
        "s4d-real": S4 | PERMUTED,
        "dss": S4 | PERMUTED | {"mixer.dss_length": 784},
        "s4-ptd": S4 | PERMUTED | {"mixer.n_ssm": 1},
        "s4-legs": S4 | PERMUTED,
        "s4-fout": S4 | PERMUTED,
    },
)


def get_config(arg: str = "s5") -> ConfigDict:
    return choose(RECIPES, arg)
