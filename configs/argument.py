"""What stands after the colon of --config=FILE:ARG, where a recipe takes flags besides a model.

A recipe calls `parse` first, and `apply_flags` at its end.
"""

import math
from collections.abc import Collection

from ml_collections import ConfigDict

from configs.common import MODELS, mixer

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
