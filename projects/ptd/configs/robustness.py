"""Digits read pixel by pixel, for models that are to be disturbed afterwards (arXiv 2310.01698, section 5).

    python scripts/train.py --config=projects/ptd/configs/robustness.py:s4-ptd --workdir=runs/robustness/s4-ptd-0
    python projects/ptd/robustness.py --workdirs runs/robustness/* --out=runs

After the colon stands a model, one of s5, s5-ptd, s4d-legs, s4-ptd, s4-legs, ..., or a model with "-frozen" behind it
for the paper's protocol: of an SSM only C is trained. A, B and step sizes keep their initial values, D is zero, and
there is no residual connection. Half a minute to a minute each on two CPU cores.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "s4d-legs") -> ConfigDict:
    """The recipe for a model, one of `common.MODELS`, with or without "-frozen" behind it."""
    model = arg.removesuffix("-frozen")
    rows: dict[str, common.Row] = {name: {} for name in common.MODELS} | {"dss": {"mixer.dss_length": 64}}
    config = common.choose(common.table("digits", rows), model)
    (ssm,) = config.mixers.values()
    ssm.state_size = 32  # the last spike of S4D-LegS is at 325.4 rad/time
    ssm.bidirectional = False
    if model in ("s4d-legs", "s4-legs"):
        ssm.B_clip = 0.0  # as in the paper's baseline; 2, as in published S4, would cut that spike down
    config.model.depth = 4
    config.model.d_model = 64
    config.model.norm = "layer"
    config.model.prenorm = False
    config.model.dropout = 0.1
    config.train.batch_size = 32
    config.train.epochs = 20
    config.train.eval_every_steps = 195  # 5 epochs
    if arg != model:
        config.model.residual = False
        ssm.D_init = "zero"
        config.optim.grouping = "only_C"
    return config
