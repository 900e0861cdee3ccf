"""ListOps (Long Range Arena): the value, 0 to 9, of nested MIN, MAX, MED and SM (L = 2048, token ids).

    python scripts/prepare_data.py listops --data_dir=data
    python scripts/train.py --config=configs/lra/listops.py:s5 --workdir=runs/listops

After the colon: a model, and any of `debug` (seconds on a CPU) and `published` (S5's published schedule, padding in
the scan and the norms), with commas between.

Published test accuracy, in %: s5 62.15 (arXiv 2208.04933, as two later papers quote it); s4d-legs 60.47,
s4d-lin 60.52, s4-legs 59.60 (the table in annotated-s4); s4d-inv 60.18 (as the paper on S4D-DFouT quotes it).
`s5` has 188,490 parameters.

Numbers: S5's bin/run_experiments; for S4D and S4 the "v3" configs of state-spaces/s4; for S4-PTD and S5-PTD
AnnanYu/Approximate_Diagonal. Published S5-PTD keeps all modes, and its blocks of two states are unperturbed (real
eigenvalues, -1 and -2); here halves of conjugate pairs are kept, so that the state has S5's size, and blocks of two are
perturbed to make a pair.
"""

from ml_collections import ConfigDict

from configs import argument, common


def get_config(arg: str = "s5") -> ConfigDict:
    """The recipe for a model, one of `common.MODELS`, and flags of `argument.FLAGS`."""
    model, flags = argument.parse(arg)
    config = common.get_config("listops", model, length=2048)
    ssm = common.mixer(config)
    if model.startswith("s5"):
        config.seed = 6554595
        ssm.state_size = 16
        ssm.blocks = 8
        ssm.C_init = "lecun_normal"
        config.model.encoder = "one_hot"
        config.model.depth = 8
        config.model.d_model = 128
        config.model.activation = "half_glu2"
        config.model.remat = "full"  # its products are small: on a CPU faster than what keeping them takes
        config.model.dropout = 0.0
        config.optim.lr = 0.003
        config.optim.ssm_lr = 0.001
        config.optim.weight_decay = 0.04
        config.optim.grouping = "BfastandCdecay"
        config.train.epochs = 40
        config.train.warmup_epochs = 1.0
        config.train.batch_size = 50
        if model == "s5-ptd":
            config.optim.weight_decay = 0.05
            config.train.epochs = 35
    elif model == "s4-ptd":
        config.seed = 2222
        ssm.state_size = 64
        ssm.n_ssm = 1
        ssm.dt_max = 1.0
        config.model.encoder = "embedding"
        config.model.depth = 8
        config.model.d_model = 256
        config.model.prenorm = False
        config.optim.lr = 0.002
        config.optim.ssm_lr = 0.0004
        config.optim.weight_decay = 0.05
        config.train.epochs = 80
        config.train.warmup_epochs = common.epochs_of(12_000, 96_000, 50)
        config.train.schedule_epochs = common.epochs_of(1_200_000, 96_000, 50)
        config.train.batch_size = 50
    else:
        config.seed = 2222
        ssm.state_size = 64
        config.model.encoder = "embedding"
        config.model.depth = 8
        config.model.d_model = 128
        config.model.prenorm = False
        config.optim.lr = 0.01
        config.optim.ssm_lr = 0.001
        config.optim.weight_decay = 0.05
        config.optim.dt_global = True
        config.train.epochs = 40
        config.train.warmup_epochs = common.epochs_of(1_000, 96_000, 50)
        config.train.schedule_epochs = common.epochs_of(80_000, 96_000, 50)
        config.train.batch_size = 50
    return argument.apply_flags(config, flags)
