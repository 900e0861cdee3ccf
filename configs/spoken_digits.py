"""Spoken digits: which of ten is spoken, raw audio (3,000 recordings of up to a second at 8 kHz, L = 8000).

    python scripts/prepare_data.py spoken_digits --data_dir=data
    python scripts/train.py --config=configs/spoken_digits.py:s5 --workdir=runs/spoken_digits

After the colon: a model, and any of `debug` (the full length, but seconds on a CPU) and `published` (S5's published
schedule, padding in the scan and the norms), with commas between.

Ours, after configs/speech_commands.py but narrow, and untuned; nothing is published. `s5` has 17,482 parameters.
"""

from ml_collections import ConfigDict

from configs import argument, common


def get_config(arg: str = "s5") -> ConfigDict:
    """The recipe for a model, one of `common.MODELS`, and flags of `argument.FLAGS`."""
    model, flags = argument.parse(arg)
    config = common.get_config("spoken_digits", model, length=8000)
    ssm = common.mixer(config)
    ssm.state_size = 32
    config.model.depth = 4
    config.model.d_model = 32
    config.model.dropout = 0.1
    config.optim.lr = 0.004
    config.optim.ssm_lr = 0.001
    config.optim.weight_decay = 0.04
    config.train.epochs = 20
    config.train.warmup_epochs = 1.0
    config.train.batch_size = 16
    if model.startswith("s5"):
        ssm.blocks = 4
        config.optim.grouping = "noBCdecay"
    return argument.apply_flags(config, flags)
