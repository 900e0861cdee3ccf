"""What recipes are composed of: a task, a model, and what their published code has in common.

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
    """What a model on a task has besides its sizes and rates; fields that are not set here have their defaults.

    Args:
      task: a file of s5jax/data.
      model: one of MODELS.
      length: of the task's sequences, in samples.

    Raises:
      ValueError: there is no such model.
    """
    name, options = get_mixer(model, length)
    config = ConfigDict({"task": {"name": task}, "mixers": {name: options}})
    config.model = ConfigDict({"pattern": (name,)})
    if name != "s5":
        config.model.activation = "full_glu"
        config.model.bn_momentum = 0.9
    config.optim, config.train, config.log = ConfigDict(), ConfigDict(), ConfigDict()
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
        options.blocks = math.gcd(options.get("blocks", 1), 4)  # of two states or more
    config.train.batch_size = 8
    config.train.epochs = 2
    config.train.warmup_epochs = min(config.train.get("warmup_epochs", 1.0), 1.0)
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
    return ConfigDict({"init": init, "C_init": "lecun_normal", "bidirectional": True})


def _s4d(init: str) -> ConfigDict:
    return ConfigDict({"init": init, "bidirectional": True})


def _dss(length: int) -> ConfigDict:
    """The diagonal of HiPPO's normal part, B = 1, each mode a softmax over time (arXiv 2203.14343, section 3)."""
    dss = {"B_init": "constant", "B_trained": False, "discretization": "dss", "dss_length": length}
    return ConfigDict({**_s4d("legs"), **dss})


def _s4(init: str) -> ConfigDict:
    return ConfigDict({"init": init, "bidirectional": True})
