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

FAMILY = DEBUG | {"model.activation": "full_glu", "model.bn_momentum": 0.9, "published:model.mask_padding": False}
TWO = FAMILY | {"mixer.bidirectional": True}
SMALL = {"debug:mixer.state_size": 8}
HOPE = TWO | SMALL | {"model.pattern": ("hope",), "mixer.dt_transform": "softplus"}
STABLE = S4D | {"mixer.B_init": "constant", "mixer.B_trained": False}  # arXiv 2311.14495
MODELS |= {
    "hope": HOPE,
    "hope-causal": HOPE | {"mixer.bidirectional": False},
    "lru": FAMILY | SMALL | {"model.pattern": ("lru",), "model.bn_momentum": 0.99},
    "sgconv": TWO | {"model.pattern": ("sgconv",), "mixer.kernel_dim": 32, "debug:mixer.kernel_dim": 8},
    "longconv": TWO | {"model.pattern": ("longconv",), "mixer.channels": 2, "model.activation": "none"},
    "rtf": TWO | SMALL | {"model.pattern": ("rtf",)},  # needs `mixer.trunc_len`, the length of the task's sequences
    "essm": TWO | SMALL | {"model.pattern": ("essm",), "model.activation": "half_glu1", "debug:mixer.heads": 1},
    "gss": FAMILY | SMALL | {"model.pattern": ("gss",), "model.activation": "none", "model.norm": "layer"},
    "liquid": FAMILY | SMALL | {"model.pattern": ("liquid",)},
    "s4d-ft": TWO | SMALL | {"model.pattern": ("s4d_ft",), "mixer.B_init": "constant", "mixer.B_trained": False},
    "dss-exp": FAMILY | SMALL | {"model.pattern": ("dss",)},
    "stablessm": STABLE | {"mixer.real_transform": "best"},
}
"""The family around S4. Where a paper has no GLU (SGConv, DSS), these rows have one, as S4 has."""


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
