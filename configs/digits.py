"""Sequential digits: 1,797 real handwritten digits of 8 x 8 pixels, read pixel by pixel (L = 64).

    python scripts/train.py --config=configs/digits.py:MODEL --workdir=runs/digits

This takes half a minute to a minute and a half on two CPU cores. README.md has the test accuracies of all models; that
of `s5` is 0.986. The recipes are our own and untuned. No scores are published.
"""

from ml_collections import ConfigDict

from configs.common import MODELS, choose, table

SIZES = {
    "mixer.state_size": 32,
    "model.depth": 4,
    "model.d_model": 64,
    "model.dropout": 0.1,
    "model.gelu": "tanh",  # for all models
    "train.batch_size": 32,
    "train.eval_every_epochs": 5,
    "log.every_steps": 20,
}
SHAPE = {name: value for name, value in SIZES.items() if name != "mixer.state_size"}
ROWS = dict.fromkeys(MODELS, SIZES) | {"dss": SIZES | {"mixer.dss_length": 64}, "rtf": SIZES | {"mixer.trunc_len": 64}}
ROWS |= {"dss-softmax": SIZES | {"mixer.softmax_length": 64}}
ROWS |= {"sgconv": SHAPE | {"mixer.kernel_dim": 8}, "longconv": SHAPE, "gss": SIZES | {"mixer.features": 32}}
MEGA = SHAPE | {"mixer.key_size": 32}
ROWS |= {"hyena": SHAPE, "mega": MEGA, "tcnca": MEGA | {"mixer.levels": 5}, "longvq": MEGA | {"mixer.chunk": 16}}
ROWS |= {"essm": SIZES | {"mixer.state_size": 64, "mixer.heads": 4}}
ROWS |= dict.fromkeys(("transformer", "linear-transformer", "ponet", "transnormer", "transnormer-t1"), SHAPE)
ROWS |= {"mamba": SIZES | {"mixer.state_size": 8}, "mamba2": SIZES | {"mixer.head_dim": 32}}
ROWS |= {"b2s6": SIZES | {"mixer.state_size": 16}}
RECIPES = table("digits", ROWS)


def get_config(arg: str = "s5") -> ConfigDict:
    return choose(RECIPES, arg)
