"""Sequential digits: 1,797 real handwritten digits of 8 x 8 pixels, read pixel by pixel (L = 64).

    python scripts/train.py --config=configs/digits.py:s5 --workdir=runs/digits

MODEL after the colon is one of s5, s5-ptd, s4d-lin, s4d-inv, s4d-legs, s4d-real, dss, s4-ptd, s4-legs, s4-fout.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "s5") -> ConfigDict:
    """The recipe for a model, one of `common.MODELS`."""
    config = common.get_config("digits", arg, length=64)
    ssm = common.mixer(config)
    ssm.state_size = 32
    config.model.depth = 4
    config.model.d_model = 64
    config.model.dropout = 0.1
    config.train.batch_size = 32
    config.train.eval_every_steps = 195  # 5 epochs
    config.log.every_steps = 20
    return config
