"""Sequential digits: 1,797 real handwritten digits of 8 x 8 pixels, read pixel by pixel (L = 64).

    python scripts/train.py --config=configs/digits.py:s5 --workdir=runs/digits

Some 40 seconds on two CPU cores; test accuracy 0.986.
"""

from ml_collections import ConfigDict


def get_config(arg: str = "s5") -> ConfigDict:
    """The recipe for a model, one of: s5."""
    if arg != "s5":
        raise ValueError(f"no recipe for the model {arg!r}; there is s5")
    config = ConfigDict()
    config.seed = 0
    config.num_devices = 0  # 0: all there are
    config.task = ConfigDict({"name": "digits"})  # a file of s5jax/data

    config.ssm = ConfigDict()
    config.ssm.name = "s5"  # a file of s5jax/ssm
    config.ssm.state_size = 32  # states, before conjugate halves are dropped
    config.ssm.blocks = 1  # equal blocks of the initial A
    config.ssm.C_init = "lecun_normal"  # or trunc_standard_normal, complex_normal
    config.ssm.dt_min = 0.001  # initial step sizes, log-uniform between the two
    config.ssm.dt_max = 0.1
    config.ssm.bidirectional = True
    config.ssm.conj_sym = True  # store one of each conjugate pair of modes
    config.ssm.discretization = "zoh"  # or bilinear
    config.ssm.clip_eigs = False  # hold Re(Lambda) <= -1e-4
    config.ssm.scan_method = "sequential"  # or associative

    config.model = ConfigDict()
    config.model.depth = 4  # residual blocks
    config.model.d_model = 64  # features
    config.model.encoder = "dense"  # on values; one_hot or embedding on tokens
    config.model.activation = "half_glu1"  # or half_glu2, full_glu, gelu
    config.model.norm = "batch"  # or layer
    config.model.prenorm = True
    config.model.bn_momentum = 0.95  # share of the running statistics kept at each step
    config.model.dropout = 0.1  # probability
    config.model.pooling = "mean"  # or last
    config.model.mask_padding = True  # False: as published, only pooling looks at lengths

    config.optim = ConfigDict()
    config.optim.lr = 0.004  # rate of all but the SSM's own parameters
    config.optim.ssm_lr = 0.001  # rate of the SSM's own
    config.optim.weight_decay = 0.05  # times the rate
    config.optim.grouping = "standard"  # or BandCdecay, BfastandCdecay, noBCdecay, plain
    config.optim.dt_global = False  # step sizes at lr, with decay
    config.optim.schedule = "warmup_cosine"  # or s5_published
    config.optim.lr_min = 0.0  # rate at the end
    config.optim.clip_norm = 0.0  # largest gradient norm; 0: unbounded

    config.train = ConfigDict()
    config.train.epochs = 40  # epochs
    config.train.warmup_epochs = 1.0  # epochs
    config.train.batch_size = 32  # examples, over all devices
    config.train.patience = 0  # evaluations without improvement before stopping; 0: never stop early
    config.train.eval_every_steps = 195  # steps, here 5 epochs of half a second; 0: each epoch
    config.train.checkpoint_every_steps = 0  # steps, besides the checkpoint at each evaluation; 0: none

    config.log = ConfigDict()
    config.log.every_steps = 20  # steps
    config.log.wandb = "off"  # or offline, online
    config.log.wandb_project = "s5jax"
    config.log.tensorboard = False
    return config
