"""What recipes are composed of: a task, a model, and what their published code has in common.

A recipe calls `get_config(task, model, length)` and sets what differs. For flags besides a model see `argument.py`.
"""

from ml_collections import ConfigDict

MODELS = ("s5", "s5-ptd", "s4d-lin", "s4d-inv", "s4d-legs", "s4d-real", "dss", "s4-ptd", "s4-legs", "s4-fout")
"""The models that any recipe takes: --config=FILE:MODEL."""


def get_config(task: str, model: str, length: int) -> ConfigDict:
    """What a model on a task has besides its sizes and rates; fields that are not set here have their defaults.

    Args:
      task: a file of s5jax/data/tasks.
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
