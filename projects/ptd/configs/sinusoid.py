"""Amplitude and frequency of a sinusoid, beyond the frequencies of training (after arXiv 2310.01698, section 3.4).

    python scripts/train.py --config=projects/ptd/configs/sinusoid.py:s4d-legs --workdir=runs/sinusoid/s4d-legs
    python scripts/train.py --config=projects/ptd/configs/sinusoid.py:s4-ptd --workdir=runs/sinusoid/s4-ptd
    python projects/ptd/sinusoid.py --workdirs runs/sinusoid/* --out=runs/sinusoid.png

Some 50 seconds each on two CPU cores. Both learn the frequencies of training, 0 to 80: the mean error for an amplitude
of 1 is 0.02 with `s4-ptd`, 0.03 to 0.045 with `s4d-legs`. Past 81, where the last spike of its transfer function is,
`s4d-legs` predicts negative amplitudes, down to -0.2 to -0.45; `s4-ptd`, which has no spike, predicts 0.88 or more.
Neither extrapolates the frequency: near 100 `s4-ptd` predicts 85 to 87, `s4d-legs` some 60. With
--config.model.depth=2 the amplitudes are 0.3 to 0.5 and 0.9, and `s4-ptd` predicts a frequency of 90.

MODEL after the colon is one of s5, s5-ptd, s4d-lin, s4d-inv, s4d-legs, s4d-real, dss, s4-ptd, s4-legs, s4-fout.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "s4-ptd") -> ConfigDict:
    """The recipe for a model, one of `common.MODELS`."""
    rows: dict[str, common.Row] = {name: {} for name in common.MODELS} | {"dss": {"mixer.dss_length": 256}}
    config = common.choose(common.table("projects.ptd.sinusoid_task", rows), arg)
    (ssm,) = config.mixers.values()
    ssm.state_size = 16  # the fastest mode of `s4d-legs` is then at 80.97
    ssm.dt_min = ssm.dt_max = 0.02  # the data's sampling interval
    ssm.bidirectional = False
    ssm.D_init = "zero"  # and kept there, by only_C
    if arg.startswith("s4"):
        ssm.B_clip = 0.0  # none: it would cut the spike down to a fifth
    config.model.depth = 1
    config.model.d_model = 32
    config.model.residual = False  # all information passes through the SSMs
    config.optim.lr = 0.01
    config.optim.grouping = "only_C"  # A, B and step sizes stay as they start
    config.train.batch_size = 64
    config.train.epochs = 20
    config.train.eval_every_steps = 128  # 2 epochs
    config.log.every_steps = 64
    return config
