"""Language modelling on any text file, byte by byte or character by character.

    python scripts/train.py --config=configs/lm/text_file.py:MODEL --config.task.path=book.txt --workdir=runs/book
    python scripts/generate.py --workdir=runs/book --prompt="It was"

`s5` is a causal S5. `hybrid` has attention over the last 256 tokens in every third block. Each batch starts from the
state at the end of the previous batch; with --config.train.carry_state=false every sequence starts from an empty state.
With --config.task.tokens=characters tokens are characters instead of bytes. --config.task.name=enwik8 (text8,
wikitext103) reads a published text.

The sizes are our own, chosen for minutes on two CPU cores.
"""

from ml_collections import ConfigDict

from configs.common import DEBUG, choose

S5 = DEBUG | {
    "task.name": "text_file",
    "model.pattern": ("s5",),
    "model.depth": 3,
    "model.d_model": 192,
    "model.encoder": "embedding",
    "model.norm": "layer",
    "model.mlp": 2,
    "mixers.s5.state_size": 192,
    "mixers.s5.blocks": 6,
    "mixers.s5.C_init": "lecun_normal",
    "optim.clip_norm": 1.0,
    "train.batch_size": 8,
    "train.epochs": 1,
    "train.warmup_epochs": 0.05,
    "train.carry_state": True,
    "debug:task.limit": 0,
    "debug:train.steps": 20,
    "debug:train.warmup_epochs": 0.01,
    "debug:mixers.s5.state_size": 8,
    "debug:mixers.s5.blocks": 1,
}

RECIPES = {
    "s5": S5,
    "hybrid": S5 | {"model.pattern": ("s5", "s5", "attention"), "mixers.attention.window": 256, "debug:model.depth": 3},
}


def get_config(arg: str = "s5") -> ConfigDict:
    return choose(RECIPES, arg)
