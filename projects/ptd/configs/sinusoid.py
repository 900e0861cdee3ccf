"""Amplitude and frequency of a sinusoid, beyond the frequencies of training (after arXiv 2310.01698, section 3.4).

    python scripts/train.py --config=projects/ptd/configs/sinusoid.py:s4d-legs --workdir=runs/sinusoid/s4d-legs
    python scripts/train.py --config=projects/ptd/configs/sinusoid.py:s4-ptd --workdir=runs/sinusoid/s4-ptd
    python projects/ptd/sinusoid.py --workdirs runs/sinusoid/* --out=runs/sinusoid.png

Each run takes some 50 seconds on two CPU cores. `s4d-legs` and `s4-ptd` both learn the frequencies of training, 0 to
80: the mean error for an amplitude of 1 is 0.02 with `s4-ptd` and 0.03 to 0.045 with `s4d-legs`. The transfer function
of `s4d-legs` has its last spike at 81. Above it, `s4d-legs` predicts negative amplitudes, down to -0.2 to -0.45.
`s4-ptd`, which has no spike, predicts 0.88 or more. Neither extrapolates the frequency: near 100 `s4-ptd` predicts 85
to 87, and `s4d-legs` some 60. With --config.model.depth=2, `s4d-legs` predicts amplitudes of 0.3 to 0.5, and `s4-ptd`
predicts 0.9 and a frequency of 90.
"""

from ml_collections import ConfigDict

from configs.common import MODELS, choose, table

SIZES = {
    "mixer.state_size": 16,  # the fastest mode of `s4d-legs` is then at 80.97
    "mixer.dt_min": 0.02,  # the data's sampling interval
    "mixer.dt_max": 0.02,
    "mixer.bidirectional": False,
    "mixer.D_init": "zero",  # and kept there, by only_C
    "model.depth": 1,
    "model.d_model": 32,
    "model.residual": False,  # all information passes through the SSMs
    "optim.lr": 0.01,
    "optim.grouping": "only_C",  # A, B and step sizes stay as they start
    "train.batch_size": 64,
    "train.epochs": 20,
    "train.eval_every_steps": 128,  # 2 epochs
    "log.every_steps": 64,
}
S4 = SIZES | {"mixer.B_clip": 0.0}  # no bound: it would cut the spike down to a fifth

RECIPES = table(
    "projects.ptd.sinusoid_task",
    {model: S4 if model.startswith("s4") else SIZES for model in ("s4-ptd", *MODELS)}
    | {"dss": SIZES | {"mixer.dss_length": 256}},
)


def get_config(arg: str = "s4-ptd") -> ConfigDict:
    return choose(RECIPES, arg)
