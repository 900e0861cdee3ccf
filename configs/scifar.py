"""Sequential CIFAR-10: colour, pixel by pixel (L = 1024, three values each).

    python scripts/prepare_data.py scifar --data_dir=data
    python scripts/train.py --config=configs/scifar.py:MODEL --workdir=runs/scifar

Published test accuracy, in % (the paper on S4D-DFouT, table 2): s5 90.10, s4d-legs 89.92, s4d-inv 90.69, s4d-lin 90.42,
s4-legs 91.80. Here: not run yet. `s5` has 5,134,730 parameters.

Sources: S4D and S4 have the values of cifar/s4-cifar in state-spaces/s4. S5 has the values of S5 on Image. Table 11 of
the S5 paper is said to give the published values; we have not seen it. For S5-PTD and S4-PTD nothing is published.
S5-PTD is deduced from S5-PTD on Image, and S4-PTD from S4D here, with one (A, B) for all features as in all published
S4-PTD.

Published for the other rows: lru 89.0 (as the paper on LION quotes it); longconv, essm and liquid: not known.
docs/mixers.md names their sources, and what differs from the published runs.
"""

from ml_collections import ConfigDict

from configs.common import LRU, choose, table
from configs.lra.image import S4_ALL, S5

S4 = S4_ALL | {"mixer.n_ssm": 2, "model.d_model": 512, "train.epochs": 200, "train.warmup_steps": 900}
LONGCONV = S4_ALL | {
    "mixer.lam": 0.001,
    "mixer.kernel_dropout": 0.2,
    "mixer.bidirectional": False,
    "model.d_model": 512,
    "train.epochs": 300,
    "train.warmup_steps": 1_000,
    "train.schedule_steps": 300_000,
}
ESSM = {
    "seed": 10,
    "mixer.state_size": 512,
    "mixer.heads": 64,
    "model.d_model": 256,
    "model.dropout": 0.1,
    "optim.lr": 0.005,
    "optim.rules": ((".*/seq/[BC]", {"lr": 0.005, "weight_decay": 0.0}),),
    "train.epochs": 300,
}
LIQUID = S4_ALL | {
    "mixer.state_size": 64,
    "mixer.bidirectional": True,
    "model.d_model": 512,
    "train.epochs": 200,
    "train.warmup_steps": 1_000,
    "train.schedule_steps": 200_000,
}

RECIPES = table(
    "scifar",
    {
        "s5": S5,
        "s5-ptd": S5 | {"seed": 16418, "optim.lr": 0.005},
        "s4d-lin": S4,
        "s4d-inv": S4,
        "s4d-legs": S4,
        "s4d-real": S4,
        "dss": S4 | {"mixer.dss_length": 1024},
        "s4-ptd": S4 | {"mixer.n_ssm": 1},
        "s4-legs": S4,
        "s4-fout": S4,
        "lru": LRU | {"train.epochs": 180},
        "longconv": LONGCONV,
        "essm": ESSM,
        "liquid": LIQUID,
    },
)


def get_config(arg: str = "s5") -> ConfigDict:
    return choose(RECIPES, arg)
