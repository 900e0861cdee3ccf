"""Speech Commands: classify one of 35 words, or of ten, from raw audio (one second at 16 kHz, L = 16,000).

    python scripts/prepare_data.py speech_commands --data_dir=data
    python scripts/train.py --config=configs/speech_commands.py:MODEL --workdir=runs/speech_commands

The flag `sc10` selects the ten-word task. Its hyperparameters are those of the 35-word task, but for `dss-softmax`.

Published test accuracy with 35 words, in %, and in brackets at 8 kHz without training at that rate (the paper on
S4D-DFouT, table 2): s5 96.53 (94.53), s4d-legs 95.83 (91.08), s4d-inv 96.18 (91.80), s4d-lin 96.25 (91.58), s4-legs
96.08 (91.32). Here: not run yet. `s5` has 283,523 parameters.

Sources: S5 has the values of its bin/run_experiments, S4D and S4 those of sc/s4-sc in state-spaces/s4. Their cosine of
200,000 steps ends after 37.7 of 40 epochs if there are 84,843 training recordings, which is not verified. Nothing is
published for S5-PTD and S4-PTD. S5-PTD is deduced from S5, and S4-PTD from S4D, with one (A, B) for all features as in
all published S4-PTD.

Published for the other rows: dss-softmax has the values for ten words, and 97.7 there (README of ag1988/dss); rtf, essm
and liquid: not known. docs/mixers.md names their sources, and what differs from the published runs.
"""

from ml_collections import ConfigDict

from configs.common import STEP_SIZES, Row, choose, table

COMMON = {"train.batch_size": 16, "sc10:task.name": "sc10"}


def cosine(warmup: int, steps: int, batch_size: int) -> Row:
    """A batch size and published numbers of steps. With `sc10` they are the same parts of an epoch."""
    epoch = 84_843 // batch_size
    return COMMON | {
        "train.batch_size": batch_size,
        "train.warmup_steps": warmup,
        "train.schedule_steps": steps,
        "sc10:train.warmup_epochs": warmup / epoch,
        "sc10:train.schedule_epochs": steps / epoch,
    }


S5 = COMMON | {
    "seed": 4062966,
    "mixer.state_size": 128,
    "mixer.blocks": 16,
    "model.d_model": 96,
    "model.dropout": 0.1,
    "optim.lr": 0.008,
    "optim.ssm_lr": 0.002,
    "optim.weight_decay": 0.04,
    "optim.grouping": "noBCdecay",
    "debug:mixer.blocks": 4,
}
S4 = cosine(1_000, 200_000, 16) | {"seed": 2222, "mixer.n_ssm": 2, "optim.lr": 0.01}
RTF = cosine(1_000, 200_000, 16) | {
    "seed": 2222,
    "mixer.state_size": 64,
    "mixer.num_a": 2,
    "mixer.trunc_len": 16000,
    "optim.lr": 0.01,
}
ESSM = cosine(1_000, 270_000, 16) | {
    "seed": 2222,
    "mixer.state_size": 128,
    "mixer.heads": 32,
    "model.prenorm": False,
    "model.dropout": 0.1,
    "optim.lr": 0.008,
    "train.epochs": 100,
}
LIQUID = cosine(1_000, 200_000, 10) | {
    "seed": 2222,
    "mixer.state_size": 6,
    "mixer.dt_min": 0.002,
    "mixer.dt_max": 0.2,
    "optim.lr": 0.008,
    "optim.rules": STEP_SIZES,
    "train.epochs": 50,
}
DSS = COMMON | {
    "seed": 1112,
    "mixer.softmax_length": 16000,
    "model.dropout": 0.1,
    "optim.lr": 0.01,
    "optim.weight_decay": 0.0,
    "train.epochs": 200,
    "train.batch_size": 20,
}

RECIPES = table(
    "speech_commands",
    {
        "s5": S5,
        "s5-ptd": S5,
        "s4d-lin": S4,
        "s4d-inv": S4,
        "s4d-legs": S4,
        "s4d-real": S4,
        "dss": S4 | {"mixer.dss_length": 16000},
        "s4-ptd": S4 | {"mixer.n_ssm": 1},
        "s4-legs": S4,
        "s4-fout": S4,
        "rtf": RTF,
        "essm": ESSM,
        "liquid": LIQUID,
        "dss-softmax": DSS,
    },
)


def get_config(arg: str = "s5") -> ConfigDict:
    return choose(RECIPES, arg)
