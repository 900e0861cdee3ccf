"""What the tables of recipes share: the published models, and the selection of a row.

A row is a dict of fields, with their names on the command line. `mixer` stands for the section of the model's only
mixer. A field with a flag in front, such as "published:model.mask_padding", applies only if the flag is given.
"""

from typing import Any

from ml_collections import ConfigDict

from s5jax.train.resolve import assign

Row = dict[str, Any]

DEBUG = {
    "debug:task.limit": 64,
    "debug:model.depth": 2,
    "debug:model.d_model": 8,
    "debug:train.batch_size": 8,
    "debug:train.epochs": 2,
    "debug:train.warmup_epochs": 1,
    "debug:train.schedule_epochs": 0,
    "debug:train.eval_every_epochs": 1,
    "debug:log.every_steps": 4,
}
"""Reduces any run to seconds on a CPU. Sequences keep their length. Rows whose mixer needs other values at d_model 8
add them with the flag `debug:`."""

_SSM = DEBUG | {"mixer.bidirectional": True, "published:model.mask_padding": False, "debug:mixer.state_size": 8}
S5 = _SSM | {"model.pattern": ("s5",), "mixer.C_init": "lecun_normal", "published:optim.schedule": "s5_published"}
S4 = _SSM | {"model.pattern": ("s4",), "model.activation": "full_glu", "model.bn_momentum": 0.9}
S4D = S4 | {"model.pattern": ("s4d",)}
DSS = {"mixer.B_init": "constant", "mixer.B_trained": False, "mixer.discretization": "dss"}  # arXiv 2203.14343
MODELS: dict[str, Row] = {
    "s5": S5,
    "s5-ptd": S5 | {"mixer.init": "ptd-conjugate"},
    "s4d-lin": S4D,
    "s4d-inv": S4D | {"mixer.init": "inv"},
    "s4d-legs": S4D | {"mixer.init": "legs"},
    "s4d-real": S4D | {"mixer.init": "real"},
    "dss": S4D | {"mixer.init": "legs"} | DSS,  # needs `mixer.dss_length`, the length of the task's sequences
    "s4-ptd": S4D | {"mixer.init": "ptd-conjugate"},
    "s4-legs": S4,
    "s4-fout": S4 | {"mixer.init": "fout"},
}

FAMILY = DEBUG | {
    "model.activation": "full_glu",
    "model.gelu": "exact",
    "model.norm_epsilon": 1e-5,
    "model.bn_momentum": 0.9,
    "published:model.mask_padding": False,
}
"""What the models of the family have in common: the block of S4, with PyTorch's GELU and batch norm."""
TWO = FAMILY | {"mixer.bidirectional": True}
"""The same for models that read in both directions."""
SMALL = {"debug:mixer.state_size": 8}
"""For mixers with a `state_size`: few states with the flag `debug`."""
HOPE = TWO | SMALL | {"model.pattern": ("hope",), "mixer.dt_transform": "softplus"}
FLAX = {"model.gelu": "tanh", "model.norm_epsilon": 0.0, "model.bn_momentum": 0.99}
"""minimal-LRU's norms and gelu, those of Flax."""
LONGCONV = {"model.pattern": ("longconv",), "mixer.channels": 2, "model.activation": "none"}
ESSM = {"model.pattern": ("essm",), "model.activation": "half_glu1", "debug:mixer.heads": 1}
GSS = {"model.pattern": ("gss",), "model.activation": "none", "model.norm": "layer"}
LANGUAGE = {"model.activation": "none", "model.norm": "layer", "model.mlp": 4}  # the block of a language model
HYENA = {"model.pattern": ("hyena",), "mixer.embedding": 5, "mixer.frequency": 10.0, "debug:mixer.filter_width": 8}
HYENA |= {"optim.rules": (("@positions", {"lr": 1e-5, "weight_decay": 0.0}),)}
FREQ_BIAS = (("@freq_bias", {"lr": 0.01, "weight_decay": 0.0}),)
S4D_FT = {
    "model.pattern": ("s4d_ft",),
    "mixer.state_size": 128,
    "mixer.B_init": "constant",
    "mixer.B_trained": False,
    "mixer.dt_transform": "softplus",
    "optim.rules": FREQ_BIAS,
}
MAMBA = FAMILY | SMALL | {"model.activation": "none", "model.norm": "rms"}
STABLE = {"mixer.B_init": "constant", "mixer.B_trained": False, "mixer.real_transform": "best"}  # arXiv 2311.14495
MEGA = DEBUG | {
    "model.pattern": ("mega",),
    "mixer.bidirectional": True,
    "model.activation": "none",
    "model.norm_epsilon": 1e-5,
    "model.bn_momentum": 0.9,
    "model.mlp": 2,
    "model.mlp_activation": "silu",
    "optim.grouping": "plain",
    "optim.b2": 0.98,
    "optim.clip_norm": 1.0,
    "chunk:mixer.chunk": 128,
    "debug:mixer.key_size": 8,
}
MODELS |= {
    "hope": HOPE,
    "hope-causal": HOPE | {"mixer.bidirectional": False},
    "lru": FAMILY | SMALL | FLAX | {"model.pattern": ("lru",), "published:optim.schedule": "s5_published"},
    "sgconv": TWO | {"model.pattern": ("sgconv",), "mixer.kernel_dim": 32, "debug:mixer.kernel_dim": 8},
    "longconv": TWO | LONGCONV,
    "rtf": TWO | SMALL | {"model.pattern": ("rtf",)},  # needs `mixer.trunc_len`, the length of the task's sequences
    "essm": TWO | SMALL | ESSM,
    "gss": FAMILY | SMALL | GSS,
    "h3": FAMILY | SMALL | LANGUAGE | {"model.pattern": ("h3",)},
    "hyena": FAMILY | LANGUAGE | HYENA,
    "liquid": FAMILY | SMALL | {"model.pattern": ("liquid",), "published:mixer.liquid_kernel": "published_pb"},
    "s4d-ft": TWO | SMALL | S4D_FT,
    "dss-exp": FAMILY | SMALL | {"model.pattern": ("dss",)},
    "dss-softmax": FAMILY | SMALL | {"model.pattern": ("dss",), "mixer.version": "softmax"},  # and `softmax_length`
    "mega": MEGA,
    "tcnca": MEGA | {"model.pattern": ("tcnca",)},
    "longvq": MEGA | {"model.pattern": ("longvq",)},
    "mamba": MAMBA | {"model.pattern": ("mamba",)},
    "mamba2": MAMBA | {"model.pattern": ("mamba2",), "debug:mixer.head_dim": 8},
    "b2s6": FAMILY | SMALL | {"model.pattern": ("b2s6",), "debug:mixer.blocks": 1},
    "stablessm": S4D | STABLE | {"model.gelu": "exact", "model.norm_epsilon": 1e-5},
}
"""The family around S4. Where a paper has no GLU (SGConv, DSS), these rows have one, as S4 has. docs/mixers.md names
the sources of the tasks' rows, and what differs from the published runs."""

_ENCODER = DEBUG | {"model.positions": "sinusoidal", "model.activation": "none", "model.norm": "layer", "model.mlp": 4}
_LRA_MIXER = {"mixer.causal": False, "mixer.bias": False}
PONET = {"model.pattern": ("ponet",), "model.positions": "learned", "model.gelu": "exact", "model.norm_epsilon": 1e-5}
TRANSNORMER = FAMILY | {
    "model.pattern": ("diag_attention", "diag_attention", "norm_attention", "norm_attention"),
    "model.positions": "sinusoidal",
    "model.activation": "none",
    "model.mlp": 4,
    "mixers.diag_attention.causal": False,
    "mixers.norm_attention.causal": False,
    "debug:model.pattern": ("diag_attention", "norm_attention"),
    "debug:mixers.diag_attention.heads": 2,
    "debug:mixers.norm_attention.heads": 2,
    "published:mixers.diag_attention.published_softmax": True,
}
TRANSNORMER_T1 = {name: value for name, value in TRANSNORMER.items() if not name.endswith("published_softmax")}
TRANSNORMER_T1 |= {"mixers.diag_attention.weights": "relu", "mixers.norm_attention.activation": "elu"}
MODELS |= {
    "transformer": _ENCODER | _LRA_MIXER | {"model.pattern": ("attention",), "mixer.positions": "none"},
    "linear-transformer": _ENCODER
    | _LRA_MIXER
    | {"model.pattern": ("linear_attention",), "published:model.mask_padding": False},
    "ponet": _ENCODER | PONET | {"model.mlp": 2},
    "transnormer": TRANSNORMER,
    "transnormer-t1": TRANSNORMER_T1,
}
"""Transformers. The first half of TransNormer's blocks has DiagAttention, the second NormAttention."""

STEP_SIZES = ((".*/seq/log_step", {"weight_decay": 0.0}),)
"""Step sizes at the global rate, without weight decay: published as `lr: dt: null`. (`optim.dt_global` decays them.)"""

HOPE_BLOCK = {
    "mixer.readout": "glu",
    "model.activation": "none",
    "model.encoder": "embedding",
    "optim.rules": STEP_SIZES,
    "published:optim.rules": ((".*/seq/h", {"frozen": True}), *STEP_SIZES),
}
"""The published implementation of HOPE for ListOps, Text and Retrieval."""
HOPE_LAYER = {
    "mixer.state_size": 128,
    "mixer.h_scale": 0.354,
    "mixer.dt_transform": "exp",
    "mixer.dt_per_direction": True,
}
"""The published implementation of HOPE for images: Image, Pathfinder and Path-X."""

LRU = {
    "seed": 1919,
    "mixer.state_size": 128,
    "model.depth": 4,
    "model.d_model": 256,
    "model.dropout": 0.1,
    "optim.lr": 0.001,
    "optim.ssm_lr": 0.0005,
    "optim.lr_min": 1e-7,
    "train.warmup_epochs": 0,
    "train.batch_size": 64,
}
"""The defaults of run_train.py in minimal-LRU, which all its tasks have in common, but for the number of epochs."""


MEGA_TEXT = {"mixer.truncation": 1024, "model.encoder": "embedding", "model.prenorm": False, "model.dropout": 0.1}
"""MEGA on ListOps, Text and Retrieval."""
MEGA_IMAGE = {"mixer.truncation": 1024, "mixer.attention": "laplace", "optim.lr": 0.01}
"""MEGA on images."""


def table(task: str, rows: dict[str, Row]) -> dict[str, Row]:
    """The recipes of a task: each row is added to the model of its name in MODELS."""
    return {model: {"task.name": task} | MODELS[model] | row for model, row in rows.items()}


def choose(recipes: dict[str, Row], arg: str) -> ConfigDict:
    """The config of a row. `arg`: at most one model (default: the first) and flags, separated by commas, any order."""
    words = [word.strip() for word in arg.split(",")]
    models = [model for model in recipes if model in words] or list(recipes)[:1]
    row = recipes[models[0]]
    # `debug` comes last, because it reduces sizes.
    flags = sorted({key.partition(":")[0] for key in row if ":" in key}, key=lambda flag: (flag == "debug", flag))
    for word in words:
        if word not in (*recipes, *flags):
            known = f"the models are {', '.join(recipes)}; the flags are {', '.join(flags)}"
            raise ValueError(f"{word!r} is neither a model nor a flag; {known}")
    if len(models) > 1:
        raise ValueError(f"one model at a time: {arg!r} names {', '.join(models)}")
    config = ConfigDict({section: {} for section in ("task", "model", "mixers", "optim", "train", "log")})
    for flag in ("", *(flag for flag in flags if flag in words)):
        for key, value in row.items():
            of, _, field = key.rpartition(":")
            section, _, name = field.partition(".")
            if of == flag:
                assign(config, f"mixers.{row['model.pattern'][0]}.{name}" if section == "mixer" else field, value)
    return config
