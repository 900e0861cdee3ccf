"""Sequential MNIST: handwritten digits, pixel by pixel (L = 784), in their order or permuted.

    python scripts/prepare_data.py smnist --data_dir=data
    python scripts/train.py --config=configs/smnist.py:s5 --workdir=runs/smnist
    python scripts/train.py --config=configs/smnist.py:s5,permuted --workdir=runs/psmnist

After the colon: a model, and any of `permuted`, `debug` (seconds on a CPU) and `published` (S5's published schedule),
with commas between. The permutation is the published one, the reversal of the bits of a pixel's number.

Published scores: none that we could verify. `s5` has 138,634 parameters, 200,970 for the permuted digits.

Numbers of S5: of a published script for sMNIST (the repository LAST), one direction, and the published code's defaults;
those for the permuted digits are not verified, and their one direction is deduced. For S4D and S4 nothing is published
in state-spaces/s4: deduced from its cifar/s4-cifar-ablation, for sequential CIFAR, with GLU and its step sizes
and rates of cifar/s4-cifar. Deduced too: S5-PTD from S5, and S4-PTD from S4D, with one (A, B) for all features.
"""

from ml_collections import ConfigDict

from configs import argument, common


def get_config(arg: str = "s5") -> ConfigDict:
    """The recipe for a model, one of `common.MODELS`, and flags of `argument.FLAGS`, or `permuted`."""
    model, flags = argument.parse(arg, (*argument.FLAGS, "permuted"))
    config = common.get_config("smnist", model, length=784)
    config.task.permuted = "permuted" in flags
    set_numbers(config, model, config.task.permuted)
    return argument.apply_flags(config, flags)


def set_numbers(config: ConfigDict, model: str, permuted: bool = False) -> None:
    """Sets sizes, rates and durations, in place."""
    ssm = common.mixer(config)
    config.model.depth = 4
    config.model.d_model = 128
    config.train.batch_size = 50
    config.train.warmup_epochs = 1.0
    config.optim.weight_decay = 0.01
    if model.startswith("s5"):
        config.seed = 1919
        ssm.state_size = 128
        ssm.blocks = 1
        ssm.C_init = "trunc_standard_normal"
        ssm.bidirectional = False
        config.model.d_model = 96
        config.model.activation = "half_glu1"
        config.model.dropout = 0.1
        config.optim.lr = 0.008
        config.optim.ssm_lr = 0.002
        config.train.epochs = 150
        if permuted:
            ssm.blocks = 2
            config.model.d_model = 128
            config.model.dropout = 0.15
            config.optim.lr = 0.004
            config.optim.ssm_lr = 0.001
    else:
        config.seed = 2222
        ssm.state_size = 64
        ssm.n_ssm = 1 if model == "s4-ptd" else 2
        config.model.norm = "layer"
        config.model.prenorm = False
        config.model.dropout = 0.1
        config.optim.lr = 0.01
        config.optim.ssm_lr = 0.001
        config.train.epochs = 100
