"""Sequential Fashion-MNIST: ten kinds of clothes, pixel by pixel (L = 784).

    python scripts/prepare_data.py sfashion --data_dir=data
    python scripts/train.py --config=configs/sfashion.py:MODEL --workdir=runs/sfashion

The recipes are our own, with the values of configs/smnist.py, and untuned. No scores are published. Here: not run yet.
`s5` has 138,634 parameters.
"""

from ml_collections import ConfigDict

from configs.common import choose, table
from configs.smnist import S4, S5

RECIPES = table(
    "sfashion",
    {
        "s5": S5,
        "s5-ptd": S5,
        "s4d-lin": S4,
        "s4d-inv": S4,
        "s4d-legs": S4,
        "s4d-real": S4,
        "dss": S4 | {"mixer.dss_length": 784},
        "s4-ptd": S4 | {"mixer.n_ssm": 1},
        "s4-legs": S4,
        "s4-fout": S4,
    },
)


def get_config(arg: str = "s5") -> ConfigDict:
    return choose(RECIPES, arg)
