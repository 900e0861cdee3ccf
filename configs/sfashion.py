"""Sequential Fashion-MNIST: ten kinds of clothes, pixel by pixel (L = 784).

    python scripts/prepare_data.py sfashion --data_dir=data
    python scripts/train.py --config=configs/sfashion.py:s5 --workdir=runs/sfashion

After the colon: a model, and any of `debug` (seconds on a CPU) and `published` (S5's published schedule), with commas
between.

Ours, with the numbers of configs/smnist.py, untuned; nothing is published. `s5` has 138,634 parameters.
"""

from ml_collections import ConfigDict

from configs import argument, common, smnist


def get_config(arg: str = "s5") -> ConfigDict:
    """The recipe for a model, one of `common.MODELS`, and flags of `argument.FLAGS`."""
    model, flags = argument.parse(arg)
    config = common.get_config("sfashion", model, length=784)
    smnist.set_numbers(config, model)
    return argument.apply_flags(config, flags)
