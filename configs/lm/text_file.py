"""Language modelling on any text file, byte by byte or character by character.

    python scripts/train.py --config=configs/lm/text_file.py:MODEL --config.task.path=book.txt --workdir=runs/book
    python scripts/generate.py --workdir=runs/book --prompt="It was"

`s5` is a causal S5. `hybrid` has attention over the last 256 tokens in every third block. Each batch starts from the
state at the end of the previous batch; with --config.train.carry_state=false every sequence starts from an empty state.
With --config.task.tokens=characters tokens are characters instead of bytes. --config.task.name=enwik8 (text8,
wikitext103) reads a published text.

The sizes are our own, chosen for minutes on two CPU cores. `h3`, `h3-hybrid` and `hyena` have the blocks of the
published language models, with an MLP of 4 times the width, and no other of their values. Published on WikiText-103:
an H3 hybrid of 12 blocks and 768 features with attention in blocks 1 and 8, counted from 0. Here the second of each
three blocks is attention. `mega` is the published model of enwik8 at a scale of our own (there: 12 blocks, 512
features, keys of 128, chunks of 2048 in training and 4096 in the test, truncation 8192, lr 0.005, dropout 0.1, 400,000
steps on 8 GPUs); with softmax, rotary positions, layer norm and weight decay 0.1, as there.
"""

from ml_collections import ConfigDict

from configs.common import DEBUG, choose

COMMON = DEBUG | {
    "task.name": "text_file",
    "model.depth": 3,
    "model.d_model": 192,
    "model.encoder": "embedding",
    "model.norm": "layer",
    "model.mlp": 2,
    "optim.clip_norm": 1.0,
    "train.batch_size": 8,
    "train.epochs": 1,
    "train.warmup_epochs": 0.05,
    "train.carry_state": True,
    "debug:task.limit": 0,
    "debug:train.steps": 20,
    "debug:train.warmup_epochs": 0.01,
}
S5 = COMMON | {
    "model.pattern": ("s5",),
    "mixers.s5.state_size": 192,
    "mixers.s5.blocks": 6,
    "mixers.s5.C_init": "lecun_normal",
    "debug:mixers.s5.state_size": 8,
    "debug:mixers.s5.blocks": 1,
}
ATTENTION = {"mixers.attention.window": 256, "debug:model.depth": 3}
LANGUAGE = COMMON | {"model.activation": "none", "model.mlp": 4, "model.norm_epsilon": 1e-5}
H3 = LANGUAGE | {"model.pattern": ("h3",), "debug:mixers.h3.state_size": 8}
HYENA = LANGUAGE | {
    "model.pattern": ("hyena",),
    "mixers.hyena.embedding": 5,
    "mixers.hyena.frequency": 10.0,
    "optim.rules": (("@positions", {"lr": 1e-5, "weight_decay": 0.0}),),
    "debug:mixers.hyena.filter_width": 8,
}
MEGA = COMMON | {
    "model.pattern": ("mega",),
    "model.depth": 4,
    "model.d_model": 128,
    "model.activation": "none",
    "model.norm_epsilon": 1e-5,
    "model.mlp_activation": "silu",
    "mixers.mega.key_size": 32,
    "mixers.mega.chunk": 128,
    "mixers.mega.positions": "rotary",
    "optim.grouping": "plain",
    "optim.b2": 0.98,
    "optim.weight_decay": 0.1,
    "debug:mixers.mega.key_size": 8,
}

RECIPES = {
    "s5": S5,
    "hybrid": S5 | ATTENTION | {"model.pattern": ("s5", "s5", "attention")},
    "h3": H3,
    "h3-hybrid": H3 | ATTENTION | {"model.pattern": ("h3", "attention", "h3")},
    "hyena": HYENA,
    "mega": MEGA,
}


def get_config(arg: str = "s5") -> ConfigDict:
    return choose(RECIPES, arg)
