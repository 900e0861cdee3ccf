"""Spoken digits: classify one of ten digits from raw audio (3,000 recordings, up to a second at 8 kHz, L = 8000).

    python scripts/prepare_data.py spoken_digits --data_dir=data
    python scripts/train.py --config=configs/spoken_digits.py:MODEL --workdir=runs/spoken_digits

The recipes are our own and untuned. Their models are narrower than those of configs/speech_commands.py, and most other
values differ too. No scores are published. Here: not run yet. `s5` has 17,482 parameters.
"""

from ml_collections import ConfigDict

from configs.common import choose, table

S4 = {
    "mixer.state_size": 32,
    "model.depth": 4,
    "model.d_model": 32,
    "model.dropout": 0.1,
    "optim.weight_decay": 0.04,
    "train.epochs": 20,
    "train.batch_size": 16,
}
S5 = S4 | {"mixer.blocks": 4, "optim.grouping": "noBCdecay"}

RECIPES = table(
    "spoken_digits",
    {
        "s5": S5,
        "s5-ptd": S5,
        "s4d-lin": S4,
        "s4d-inv": S4,
        "s4d-legs": S4,
        "s4d-real": S4,
        "dss": S4 | {"mixer.dss_length": 8000},
        "s4-ptd": S4,
        "s4-legs": S4,
        "s4-fout": S4,
    },
)


def get_config(arg: str = "s5") -> ConfigDict:
    return choose(RECIPES, arg)
