"""Pathfinder (Long Range Arena): does a dashed path join two dots, pixel by pixel (32 x 32, L = 1024).

    python scripts/prepare_data.py pathfinder --data_dir=data
    python scripts/train.py --config=configs/lra/pathfinder.py:s5 --workdir=runs/pathfinder

After the colon: a model, and any of `debug` (seconds on a CPU) and `published` (S5's published schedule), with commas
between.

Published test accuracy, in %: s5 95.33 (arXiv 2208.04933, as two later papers quote it); s4d-legs 93.06,
s4d-lin 93.96, s4-legs 94.20 (the table in annotated-s4); s4d-inv 93.78 (as the paper on S4D-DFouT quotes it).
`s5` has 1,113,602 parameters.

Numbers: S5's bin/run_experiments; for S4D and S4 the "v3" configs of state-spaces/s4, which read the last step; for
S4-PTD and S5-PTD AnnanYu/Approximate_Diagonal. Published S5-PTD keeps all modes; here halves of conjugate pairs are
kept, so that the state has S5's size.
"""

from ml_collections import ConfigDict

from configs import argument, common


def get_config(arg: str = "s5") -> ConfigDict:
    """The recipe for a model, one of `common.MODELS`, and flags of `argument.FLAGS`."""
    model, flags = argument.parse(arg)
    config = common.get_config("pathfinder", model, length=1024)
    ssm = common.mixer(config)
    if model.startswith("s5"):
        config.seed = 8180844
        ssm.state_size = 256
        ssm.blocks = 8
        ssm.C_init = "trunc_standard_normal"
        config.model.depth = 6
        config.model.d_model = 192
        config.model.activation = "half_glu1"
        config.model.bn_momentum = 0.9
        config.model.dropout = 0.05
        config.optim.lr = 0.0045
        config.optim.ssm_lr = 0.0009
        config.optim.weight_decay = 0.03
        config.train.epochs = 200
        config.train.warmup_epochs = 1.0
        config.train.batch_size = 64
        if model == "s5-ptd":
            config.optim.weight_decay = 0.05
            config.train.epochs = 230
            config.train.warmup_epochs = 10.0
    else:
        ssm.state_size = 64
        config.model.depth = 6
        config.model.d_model = 256
        config.optim.lr = 0.004
        config.optim.ssm_lr = 0.001
        config.optim.weight_decay = 0.03
        config.train.batch_size = 64
        if model == "s4-ptd":
            config.seed = 3333
            ssm.n_ssm = 1
            config.train.epochs = 300
            config.train.warmup_epochs = common.epochs_of(150_000, 160_000, 64)
            config.train.schedule_epochs = common.epochs_of(800_000, 160_000, 64)
        else:
            config.seed = 2222
            config.model.pooling = "last"
            config.train.epochs = 200
            config.train.warmup_epochs = common.epochs_of(2_500, 160_000, 64)
    return argument.apply_flags(config, flags)
