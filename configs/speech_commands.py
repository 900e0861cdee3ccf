"""Speech Commands: which of 35 words, or of ten, is spoken, raw audio (one second at 16 kHz, L = 16,000).

    python scripts/prepare_data.py speech_commands --data_dir=data
    python scripts/train.py --config=configs/speech_commands.py:s5 --workdir=runs/speech_commands

After the colon: a model, and any of `sc10`, `debug` (the full length, but seconds on a CPU) and `published` (S5's
published schedule), with commas between. `sc10` is the task of that name, the ten words, for which the numbers are
deduced: they are those of 35.

Published test accuracy with 35 words, in %, and in brackets at 8 kHz without training there (the paper on S4D-DFouT,
table 2): s5 96.53 (94.53), s4d-legs 95.83 (91.08), s4d-inv 96.18 (91.80), s4d-lin 96.25 (91.58), s4-legs 96.08 (91.32).
`s5` has 283,523 parameters.

Numbers: S5's bin/run_experiments; for S4D and S4 sc/s4-sc of state-spaces/s4, whose cosine of 200,000 steps ends after
37.7 of 40 epochs if there are 84,843 recordings to train with, which is not verified. Nothing is published for S5-PTD
and S4-PTD: deduced are the former from S5, the latter from S4D, with one (A, B) for all features as in all published
S4-PTD.
"""

from ml_collections import ConfigDict

from configs import argument, common


def get_config(arg: str = "s5") -> ConfigDict:
    """The recipe for a model, one of `common.MODELS`, and flags of `argument.FLAGS`, or `sc10`."""
    model, flags = argument.parse(arg, (*argument.FLAGS, "sc10"))
    task = "sc10" if "sc10" in flags else "speech_commands"
    config = common.get_config(task, model, length=16000)
    ssm = common.mixer(config)
    config.model.depth = 6
    config.train.epochs = 40
    config.train.batch_size = 16
    if model.startswith("s5"):
        config.seed = 4062966
        ssm.state_size = 128
        ssm.blocks = 16
        ssm.C_init = "lecun_normal"
        config.model.d_model = 96
        config.model.activation = "half_glu1"
        config.model.dropout = 0.1
        config.optim.lr = 0.008
        config.optim.ssm_lr = 0.002
        config.optim.weight_decay = 0.04
        config.optim.grouping = "noBCdecay"
        config.train.warmup_epochs = 1.0
    else:
        config.seed = 2222
        ssm.state_size = 64
        ssm.n_ssm = 1 if model == "s4-ptd" else 2
        config.model.d_model = 128
        config.optim.lr = 0.01
        config.optim.ssm_lr = 0.001
        config.optim.weight_decay = 0.05
        config.train.warmup_epochs = common.epochs_of(1_000, 84_843, 16)
        config.train.schedule_epochs = common.epochs_of(200_000, 84_843, 16)
    return argument.apply_flags(config, flags)
