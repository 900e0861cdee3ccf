"""Image (Long Range Arena): CIFAR-10 in grey, pixel by pixel (L = 1024).

    python scripts/prepare_data.py image --data_dir=data
    python scripts/train.py --config=configs/lra/image.py:MODEL --workdir=runs/image

Published test accuracy, in %: s5 88.00 (arXiv 2208.04933, as two later papers quote it); s4d-legs 88.19,
s4d-lin 87.93, s4-legs 88.65 (the table in annotated-s4); s4d-inv 87.83 (as the paper on S4D-DFouT quotes it);
s5-ptd 87.92 (arXiv 2310.01698, by its reviews). Here: not run yet. `s5` has 5,133,706 parameters.

Sources: bin/run_experiments of S5, the "v3" configs of state-spaces/s4 for S4D and S4, and AnnanYu/Approximate_Diagonal
for S4-PTD (2,000 epochs!) and S5-PTD. The published S5-PTD stores all modes, and its B starts as HiPPO's. Here one mode
of each conjugate pair is stored, so that the state has the size of S5's, and B starts as in S5.

Published for the other rows: hope 88.68, s4d-ft 90.89, rtf 90.51, liquid 89.50 (as later papers quote them),
dss-softmax 85.7 (README of ag1988/dss), b2s6 88.81 (arXiv 2505.09022); longconv and essm: not known. docs/mixers.md
names their sources, and what differs from the published runs.

Transformers: transformer 42.44, linear-transformer 42.34 (README of google-research/long-range-arena, whose configs
these are); ponet, transnormer and transnormer-t1: not known.
`mega`: 90.44, with the flag `chunk` 85.80 (arXiv 2209.10655).
"""

from ml_collections import ConfigDict

from configs.common import HOPE_LAYER, MEGA_IMAGE, STEP_SIZES, choose, table
from configs.transformers import LRA_IMAGES, PONET_SIZES, TRANSNORMER_SIZES

S5 = {
    "seed": 16416,
    "mixer.state_size": 384,
    "mixer.blocks": 3,
    "mixer.clip_eigs": True,
    "model.d_model": 512,
    "model.dropout": 0.1,
    "optim.lr": 0.0045,
    "optim.weight_decay": 0.07,
    "optim.grouping": "BfastandCdecay",
    "train.epochs": 250,
    "debug:mixer.blocks": 1,
}
S4_ALL = {
    "seed": 2222,
    "model.norm": "layer",
    "model.prenorm": False,
    "model.dropout": 0.1,
    "optim.lr": 0.01,
}
S4 = S4_ALL | {
    "mixer.n_ssm": 2,
    "model.d_model": 512,
    "optim.dt_global": True,
    "train.epochs": 200,
    "train.warmup_steps": 900,
}
S4_PTD = S4_ALL | {
    "mixer.n_ssm": 1,
    "optim.weight_decay": 0.01,
    "train.epochs": 2000,
    "train.warmup_steps": 3_600,
    "train.schedule_steps": 1_760_000,
    "train.batch_size": 128,
}
HOPE = HOPE_LAYER | {
    "mixer.dt_max": 10.0,
    "model.norm": "layer",
    "model.prenorm": False,
    "model.dropout": 0.1,
    "optim.weight_decay": 0.01,
    "optim.rules": ((".*/seq/h", {"lr": 0.001, "weight_decay": 0.01}),),
    "train.epochs": 1500,
    "train.warmup_epochs": 10,
    "train.schedule_epochs": 200,
    "train.batch_size": 32,
}
LONGCONV = S4_ALL | {
    "mixer.lam": 0.003,
    "mixer.kernel_dropout": 0.2,
    "mixer.bidirectional": False,
    "model.d_model": 512,
    "train.epochs": 200,
    "train.warmup_steps": 1_000,
    "train.schedule_steps": 200_000,
}
RTF = {
    "seed": 2222,
    "mixer.state_size": 64,
    "mixer.num_a": 1,
    "mixer.trunc_len": 1024,
    "mixer.kernel_dropout": 0.1,
    "model.d_model": 512,
    "model.prenorm": False,
    "model.dropout": 0.1,
    "optim.lr": 0.006,
    "optim.rules": (("@dynamics", {"lr": 0.005, "weight_decay": 0.05}),),
    "train.epochs": 200,
    "train.warmup_steps": 18_000,
    "train.schedule_steps": 180_000,
}
ESSM = {
    "seed": 110,
    "mixer.state_size": 512,
    "mixer.heads": 64,
    "model.d_model": 256,
    "model.prenorm": False,
    "model.dropout": 0.1,
    "optim.lr": 0.005,
    "optim.weight_decay": 0.0,
    "optim.rules": ((".*/seq/[BC]", {"lr": 0.005, "weight_decay": 0.0}),),
    "train.epochs": 200,
    "train.warmup_steps": 1_000,
    "train.schedule_steps": 100_000,
    "train.batch_size": 100,
}
LIQUID = S4_ALL | {
    "mixer.state_size": 512,
    "mixer.dt_min": 0.002,
    "mixer.dt_max": 0.2,
    "mixer.bidirectional": True,
    "model.d_model": 512,
    "optim.weight_decay": 0.03,
    "optim.rules": STEP_SIZES,
    "train.epochs": 200,
    "train.warmup_steps": 1_000,
    "train.schedule_steps": 200_000,
}
S4D_FT = S4_ALL | {
    "mixer.imag_scale": 3.0,
    "model.d_model": 512,
    "optim.weight_decay": 0.01,
    "train.epochs": 1200,
    "train.warmup_steps": 18_000,
    "train.schedule_steps": 180_000,
}
DSS = {
    "seed": 0,
    "mixer.softmax_length": 1024,
    "model.d_model": 512,
    "model.prenorm": False,
    "model.dropout": 0.2,
    "optim.weight_decay": 0.01,
    "train.epochs": 200,
}
TRANSFORMER = LRA_IMAGES | {
    "mixer.heads": 8,
    "mixer.qkv_width": 64,
    "model.depth": 1,
    "model.mlp": 1,
    "model.positions": "learned",
    "model.dropout": 0.3,
    "optim.lr": 0.0005,
    "train.batch_size": 256,
}
PONET = PONET_SIZES | {
    "mixer.segment_length": 33,
    "train.steps": 35_000,
    "train.warmup_steps": 175,
    "train.batch_size": 256,
}
TRANSNORMER = TRANSNORMER_SIZES | {
    "model.pattern": ("diag_attention",) * 6 + ("norm_attention",) * 6,
    "mixers.diag_attention.heads": 4,
    "model.depth": 12,
    "model.mlp": 2,
    "model.dropout": 0.2,
    "optim.lr": 0.001,
    "train.epochs": 200,
    "train.warmup_steps": 175,
    "train.batch_size": 200,
}
MEGA = MEGA_IMAGE | {
    "mixer.key_size": 96,
    "model.depth": 8,
    "model.d_model": 160,
    "optim.weight_decay": 0.02,
    "train.steps": 180_000,
    "train.warmup_steps": 9_000,
}
B2S6 = {
    "model.d_model": 512,
    "model.norm": "layer",
    "model.prenorm": False,
    "optim.lr": 0.01,
    "train.epochs": 500,
    "train.batch_size": 48,
}

RECIPES = table(
    "image",
    {
        "s5": S5,
        "s5-ptd": S5 | {"seed": 16418, "optim.lr": 0.005},
        "s4d-lin": S4,
        "s4d-inv": S4,
        "s4d-legs": S4,
        "s4d-real": S4,
        "dss": S4 | {"mixer.dss_length": 1024},
        "s4-ptd": S4_PTD,
        "s4-legs": S4,
        "s4-fout": S4,
        "hope": HOPE,
        "longconv": LONGCONV,
        "rtf": RTF,
        "essm": ESSM,
        "liquid": LIQUID,
        "s4d-ft": S4D_FT,
        "dss-softmax": DSS,
        "transformer": TRANSFORMER,
        "linear-transformer": TRANSFORMER,
        "ponet": PONET,
        "transnormer": TRANSNORMER,
        "transnormer-t1": TRANSNORMER,
        "mega": MEGA,
        "b2s6": B2S6,
    },
)


def get_config(arg: str = "s5") -> ConfigDict:
    return choose(RECIPES, arg)
