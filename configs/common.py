"""What recipes are composed of: a task, a model, and all other fields with a start value and their unit.

A recipe calls `get_config(task, model, length)` and sets what differs. One that takes flags besides a model calls
`parse` before, and `apply_flags` at its end.
"""

import math
from collections.abc import Collection

from ml_collections import ConfigDict

MODELS = ("s5", "s5-ptd", "s4d-lin", "s4d-inv", "s4d-legs", "s4d-real", "dss", "s4-ptd", "s4-legs", "s4-fout")
"""The models that any recipe takes: --config=FILE:MODEL."""

FLAGS = ("debug", "published")
"""See `shrink` and `as_published`."""


def parse(arg: str, flags: Collection[str] = FLAGS) -> tuple[str, set[str]]:
    """The model and the flags in a recipe's argument.

    Args:
      arg: words with commas between them, in any order: at most one of MODELS (none: s5), and flags.
      flags: those that the recipe has.

    Raises:
      ValueError: a word is neither, or there are two models.
    """
    words = [word.strip() for word in arg.split(",")]
    models = dict.fromkeys(word for word in words if word in MODELS)
    for word in words:
        if word not in models and word not in flags:
            raise ValueError(
                f"{word!r} is neither a model nor a flag; the models are {', '.join(MODELS)};"
                f" the flags are {', '.join(flags)}"
            )
    if len(models) > 1:
        raise ValueError(f"one model at a time: {arg!r} names {', '.join(models)}")
    return next(iter(models), "s5"), set(words) - set(models)


def get_config(task: str, model: str, length: int) -> ConfigDict:
    """All fields but the sizes that belong to a task.

    Args:
      task: a file of s5jax/data.
      model: one of MODELS.
      length: of the task's sequences, in samples.

    Raises:
      ValueError: there is no such model.
    """
    config = ConfigDict()
    config.seed = 0
    config.num_devices = 0  # 0: all there are
    config.task = ConfigDict({"name": task})
    config.task.data_dir = "data"  # where scripts/prepare_data.py put it
    config.task.limit = 0  # examples of each split; 0: all there are
    name, options = get_mixer(model, length)
    config.mixers = ConfigDict({name: options})
    config.evaluators = ConfigDict()  # stride, eigenvalues: what is computed besides the objective

    s5 = model.startswith("s5")
    config.model = ConfigDict()
    config.model.pattern = (name,)  # mixers of the blocks, repeated over the depth
    config.model.depth = 6  # residual blocks
    config.model.d_model = 128  # features
    config.model.encoder = "dense"  # on values; one_hot or embedding on tokens
    config.model.activation = "half_glu1" if s5 else "full_glu"  # or half_glu2, gelu
    config.model.gelu = "tanh"  # or exact
    config.model.norm = "batch"  # or layer, none
    config.model.norm_epsilon = 0.0  # 0: 1e-5 for batch, 1e-6 for layer
    config.model.prenorm = True
    config.model.residual = True
    config.model.bn_momentum = 0.95 if s5 else 0.9  # share of the running statistics kept at each step
    config.model.mlp = 0  # expansion of the MLP behind each mixer; 0: none
    config.model.dropout = 0.0  # probability
    config.model.pooling = "mean"  # or last
    config.model.unroll = False  # compile each block on its own
    config.model.remat = "pointwise"  # what the gradient computes again to save memory: none, pointwise, full
    config.model.mask_padding = True  # False: as published, only pooling looks at lengths

    config.optim = ConfigDict()
    config.optim.name = "adamw"  # or another optimizer of optax
    config.optim.b1 = 0.9
    config.optim.b2 = 0.999
    config.optim.eps = 1e-8
    config.optim.arguments = ConfigDict()  # further ones of the optimizer
    config.optim.rules = ()  # (pattern, {"lr": 0.001, "weight_decay": 0.0}) in front of those of the grouping
    config.optim.micro_batches = 1  # parts that a batch is read in, to save memory
    config.optim.average = 0.0  # share that the average of the weights keeps at each step; 0: no average
    config.optim.lr = 0.004  # rate of all but the SSM's own parameters
    config.optim.ssm_lr = 0.001  # rate of the SSM's own: A, B and step sizes, P too where there is one; without decay
    config.optim.weight_decay = 0.05  # times the rate
    config.optim.grouping = "standard"  # or BandCdecay, BfastandCdecay, noBCdecay, only_C, plain
    config.optim.dt_global = False  # step sizes at lr, with decay
    config.optim.schedule = "warmup_cosine"  # or s5_published
    config.optim.lr_min = 0.0  # rate at the end
    config.optim.clip_norm = 0.0  # largest gradient norm; 0: unbounded

    config.train = ConfigDict()
    config.train.epochs = 40  # epochs
    config.train.warmup_epochs = 1.0  # epochs
    config.train.schedule_epochs = 0.0  # epochs that the schedule spans, warm-up included; 0: all of training
    config.train.batch_size = 50  # examples, over all devices
    config.train.patience = 0  # evaluations without improvement before stopping; 0: never stop early
    config.train.eval_every_steps = 0  # steps; 0: each epoch
    config.train.checkpoint_every_steps = 0  # steps, besides the checkpoint at each evaluation; 0: none
    config.train.buckets = 0  # lengths that padded batches are cut to, so that short sequences cost less; 0: none
    config.train.resident_gib = 8.0  # GiB of stored data up to which they stay on every device; more is streamed

    config.log = ConfigDict()
    config.log.every_steps = 50  # steps
    config.log.wandb = "off"  # or offline, online
    config.log.wandb_project = "s5jax"
    config.log.tensorboard = False
    return config


def epochs_of(steps: int, num_examples: int, batch_size: int) -> float:
    """How many epochs of whole batches a published number of steps is."""
    return steps / (num_examples // batch_size)


def apply_flags(config: ConfigDict, flags: Collection[str]) -> ConfigDict:
    """The config with what its flags ask for; a recipe's own flags have no effect here."""
    if "published" in flags:
        as_published(config)
    if "debug" in flags:
        shrink(config)
    return config


def as_published(config: ConfigDict) -> None:
    """Sets the quirks of the published loops, in place: the schedule of S5, and padding that enters everything."""
    if config.model.pattern == ("s5",):
        config.optim.schedule = "s5_published"
    config.model.mask_padding = False


def shrink(config: ConfigDict) -> None:
    """Makes a recipe one of seconds on a CPU, in place. Sequences keep their length."""
    config.task.limit = 64
    config.model.depth = 2
    config.model.d_model = 8
    options = mixer(config)
    options.state_size = 8
    if config.model.pattern == ("s5",):
        options.blocks = math.gcd(options.blocks, 4)  # of two states or more
    config.train.batch_size = 8
    config.train.epochs = 2
    config.train.warmup_epochs = min(config.train.warmup_epochs, 1.0)
    config.train.schedule_epochs = 0.0
    config.train.eval_every_steps = 0
    config.log.every_steps = 4


def mixer(config: ConfigDict) -> ConfigDict:
    """The options of the config's only mixer."""
    (name,) = config.model.pattern
    return config.mixers[name]


def get_mixer(model: str, length: int) -> tuple[str, ConfigDict]:
    """The mixer of a model, one of MODELS, and its options for sequences of a length in samples."""
    if model == "s5":
        return "s5", _s5("normal")
    if model == "s5-ptd":
        return "s5", _s5("ptd-conjugate")
    if model == "s4-ptd":
        return "s4d", _s4d("ptd-conjugate")
    if model == "dss":
        return "s4d", _dss(length)
    family, _, init = model.partition("-")
    if model in MODELS and family == "s4d":
        return "s4d", _s4d(init)
    if model in MODELS and family == "s4":
        return "s4", _s4(init)
    raise ValueError(f"no recipe for the model {model!r}; there are {', '.join(MODELS)}")


def _s5(init: str) -> ConfigDict:
    ssm = ConfigDict()
    ssm.state_size = 64  # states, before conjugate halves are dropped
    ssm.blocks = 1  # equal blocks of the initial A
    ssm.init = init  # of each block: normal, ptd-conjugate; ptd or random without conj_sym
    ssm.ptd_kappa = 0.0  # bound on the condition number of a perturbed block's eigenvectors; 0: 9 n / (n + 8)
    ssm.C_init = "lecun_normal"  # or trunc_standard_normal, complex_normal
    ssm.dt_min = 0.001  # initial step sizes, log-uniform between the two
    ssm.dt_max = 0.1
    ssm.bidirectional = True
    ssm.conj_sym = True  # store one of each conjugate pair of modes
    ssm.discretization = "zoh"  # or bilinear
    ssm.clip_eigs = False  # hold Re(Lambda) <= -1e-4
    ssm.scan_method = "auto"  # or sequential, chunked, associative
    return ssm


def _s4d(init: str) -> ConfigDict:
    ssm = ConfigDict()
    ssm.state_size = 64  # states of a feature, before conjugate halves are dropped
    ssm.init = init  # lin, inv, inv2, quad, real, legs, random, ptd-conjugate
    ssm.ptd_kappa = 0.0  # bound on the condition number of its eigenvectors, with ptd-conjugate; 0: 9 n / (n + 8)
    ssm.real_transform = "exp"  # of the decay rate; or relu, softplus, sigmoid, none
    ssm.B_trained = True
    ssm.n_ssm = 0  # copies of (A, B) that the features share; 0: one each
    ssm.dt_min = 0.001  # initial step sizes, log-uniform between the two
    ssm.dt_max = 0.1
    ssm.dt_per_state = False  # step sizes per state instead of per feature
    ssm.discretization = "zoh"  # or bilinear, dss
    ssm.bandlimit = 0.0  # share of the Nyquist frequency from which on modes are silenced; 0: none are
    ssm.bidirectional = True
    ssm.backward_skips_current = True  # as published
    ssm.mode = "convolution"  # or scan
    return ssm


def _dss(length: int) -> ConfigDict:
    """The diagonal of HiPPO's normal part, B = 1, each mode a softmax over time (arXiv 2203.14343, section 3)."""
    ssm = _s4d("legs")
    ssm.B_init = "constant"
    ssm.B_trained = False
    ssm.discretization = "dss"
    ssm.dss_length = length  # samples that a mode is normalised over
    return ssm


def _s4(init: str) -> ConfigDict:
    ssm = ConfigDict()
    ssm.state_size = 64  # states of a feature, before conjugate halves are dropped
    ssm.init = init  # legs, legt, fout, legs_fout
    ssm.rank = 1  # of the low-rank part; legt needs 2
    ssm.real_transform = "exp"  # of the decay rate; or relu, softplus, sigmoid, none
    ssm.n_ssm = 0  # copies of (A, B) that the features share; 0: one each
    ssm.dt_min = 0.001  # initial step sizes, log-uniform between the two
    ssm.dt_max = 0.1
    ssm.bidirectional = True
    ssm.backward_skips_current = True  # as published
    return ssm
