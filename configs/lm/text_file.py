"""Language modelling on any text file, byte by byte or character by character.

    python scripts/train.py --config=configs/lm/text_file.py:s5 --config.task.path=book.txt --workdir=runs/book
    python scripts/generate.py --workdir=runs/book --prompt="It was"

MODEL after the colon is s5 (causal S5) or hybrid (every third block is attention over the last 256 tokens). With
--config.task.tokens=characters tokens are characters instead of bytes. The state is carried from each batch to the next
through the text (--config.train.carry_state=false starts every sequence from nothing).
"""

from ml_collections import ConfigDict

MODELS = {"s5": ("s5",), "hybrid": ("s5", "s5", "attention")}


def get_config(arg: str = "s5") -> ConfigDict:
    """The recipe for a model, one of MODELS."""
    if arg not in MODELS:
        raise ValueError(f"no recipe for the model {arg!r}; there are {', '.join(MODELS)}")
    config = ConfigDict()
    config.task = ConfigDict({"name": "text_file", "context": 256})
    config.model = ConfigDict(
        {"pattern": MODELS[arg], "depth": 3, "d_model": 192, "encoder": "embedding", "norm": "layer", "mlp": 2}
    )
    config.mixers = ConfigDict({"s5": {"state_size": 192, "blocks": 6, "C_init": "lecun_normal"}})
    if arg == "hybrid":
        config.mixers.attention = ConfigDict({"window": 256})
    config.optim = ConfigDict({"lr": 0.004, "ssm_lr": 0.001, "weight_decay": 0.05, "clip_norm": 1.0})
    config.train = ConfigDict({"batch_size": 32, "epochs": 4, "warmup_epochs": 0.1, "carry_state": True})
    config.log = ConfigDict({"every_steps": 50})
    return config
