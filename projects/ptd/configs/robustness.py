"""Digits read pixel by pixel, for models that are to be disturbed afterwards (arXiv 2310.01698, section 5).

    python scripts/train.py --config=projects/ptd/configs/robustness.py:s4-ptd --workdir=runs/robustness/s4-ptd-0
    python projects/ptd/robustness.py --workdirs runs/robustness/* --out=runs

A model with "-frozen" behind its name, such as s4-ptd-frozen, follows the paper's protocol: of an SSM only C is
trained. A, B and step sizes keep their initial values, D is zero, and there is no residual connection. Each run takes
half a minute to a minute on two CPU cores.
"""

from ml_collections import ConfigDict

from configs.common import MODELS, choose, table

SIZES = {
    "mixer.state_size": 32,  # the last spike of S4D-LegS is at 325.4 rad/time
    "mixer.bidirectional": False,
    "model.depth": 4,
    "model.d_model": 64,
    "model.norm": "layer",
    "model.prenorm": False,
    "model.dropout": 0.1,
    "train.batch_size": 32,
    "train.epochs": 20,
    "train.eval_every_steps": 195,  # 5 epochs
}
LEGS = SIZES | {"mixer.B_clip": 0.0}  # as in the paper's baseline; 2, as in published S4, would cut the spike down
FROZEN = {"model.residual": False, "mixer.D_init": "zero", "optim.grouping": "only_C"}

RECIPES = table(
    "digits",
    dict.fromkeys(("s4d-legs", *MODELS), SIZES)
    | {"s4d-legs": LEGS, "s4-legs": LEGS, "dss": SIZES | {"mixer.dss_length": 64}},
)
RECIPES |= {f"{model}-frozen": row | FROZEN for model, row in RECIPES.items()}


def get_config(arg: str = "s4d-legs") -> ConfigDict:
    return choose(RECIPES, arg)
