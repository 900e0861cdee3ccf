"""Sequential MNIST: handwritten digits, pixel by pixel (L = 784), in their order or permuted.

    python scripts/prepare_data.py smnist --data_dir=data
    python scripts/train.py --config=configs/smnist.py:MODEL --workdir=runs/smnist
    python scripts/train.py --config=configs/smnist.py:MODEL,permuted --workdir=runs/psmnist

With the flag `permuted`, pixels come in the published permutation, which reverses the bits of a pixel's number.

Published scores: none that we could verify. Here: not run yet. `s5` has 138,634 parameters, and 200,970 with
`permuted`.

Sources: S5 has the values of a published script for sMNIST (in the repository LAST), which reads in one direction, and
the defaults of the published code. Its values for the permuted digits are not verified, and that it reads them in one
direction is deduced. For S4D and S4, state-spaces/s4 has no such recipe. They are deduced from its
cifar/s4-cifar-ablation for sequential CIFAR, with GLU, step sizes and rates of cifar/s4-cifar. S5-PTD is deduced from
S5, and S4-PTD from S4D, with one (A, B) for all features.

eSSM has its published values for both orders of the pixels; its scores are not known. docs/mixers.md names the source.
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
ESSM = COMMON | {
    "seed": 123,
    "mixer.state_size": 128,
    "mixer.heads": 64,
    "optim.lr": 0.008,
    "optim.ssm_lr": 0.002,
    "optim.rules": ((".*/seq/[BC]", {"lr": 0.008, "weight_decay": 0.0}),),
    "train.epochs": 60,
    "train.warmup_steps": 200,
    "train.schedule_steps": 35_000,
    "permuted:seed": 66,
    "permuted:mixer.heads": 8,
    "permuted:model.activation": "full_glu",
    "permuted:model.dropout": 0.15,
    "permuted:optim.lr": 0.001,
    "permuted:optim.ssm_lr": 0.001,
    "permuted:optim.weight_decay": 0.0,
    "permuted:optim.rules": ((".*/seq/C", {"lr": 0.004, "weight_decay": 0.0}),),
    "permuted:train.epochs": 150,
    "permuted:train.warmup_steps": 1_000,
    "permuted:train.schedule_steps": 81_000,
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
        "essm": ESSM | PERMUTED,
    },
)


def get_config(arg: str = "s5") -> ConfigDict:
    return choose(RECIPES, arg)
