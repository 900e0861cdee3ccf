"""Sequential CIFAR-10: colour, pixel by pixel (L = 1024, three values each).

    python scripts/prepare_data.py scifar --data_dir=data
    python scripts/train.py --config=configs/scifar.py:MODEL --workdir=runs/scifar

Published test accuracy, in % (the paper on S4D-DFouT, table 2): s5 90.10, s4d-legs 89.92, s4d-inv 90.69, s4d-lin 90.42,
s4-legs 91.80. Here: not run yet. `s5` has 5,134,730 parameters.

Numbers: for S4D and S4 cifar/s4-cifar of state-spaces/s4. S5's are said to be those of the paper's table 11, which is
not verified; what is not in that table is deduced, being that of S5 on Image, which has the same sizes and rates.
For S5-PTD and S4-PTD nothing is published: deduced are the former from S5-PTD on Image, the latter from S4D here, with
one (A, B) for all features as in all published S4-PTD.
"""

from ml_collections import ConfigDict

from configs.common import choose, table
from configs.lra.image import S4_ALL, S5

S4 = S4_ALL | {"mixer.n_ssm": 2, "model.d_model": 512, "train.epochs": 200, "train.warmup_steps": 900}

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
    },
)


def get_config(arg: str = "s5") -> ConfigDict:
    return choose(RECIPES, arg)
