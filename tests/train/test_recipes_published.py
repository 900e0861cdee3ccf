"""Recipes of the benchmark: their numbers against the published ones, and what may stand after the colon.

The tables here were written down from the published scripts, not from the recipes.
"""

import ast
import dataclasses
import pathlib
from typing import Any

import ml_collections
import pytest
import tiny

from s5jax import mixers
from s5jax.train import optimizer
from s5jax.train import resolve as configs
from s5jax.train.config import Duration, UserError

MODELS = ("s5", "s5-ptd", "s4d-legs", "s4d-inv", "s4d-lin", "s4-legs", "s4-ptd")
OTHERS = ("s4d-real", "dss", "s4-fout")
LRA = ("lra/listops", "lra/text", "lra/retrieval", "lra/image", "lra/pathfinder", "lra/pathx")
RECIPES = (*LRA, "scifar", "smnist", "sfashion", "speech_commands", "spoken_digits")
TOKENS = LRA[:3]
LENGTHS = (2048, 4096, 4000, 1024, 1024, 16384, 1024, 784, 784, 16000, 8000)


def load(recipe: str, arg: str) -> ml_collections.ConfigDict:
    return configs.load_config(f"{tiny.ROOT}/configs/{recipe}.py:{arg}")


def check(config: ml_collections.ConfigDict, expected: dict[str, Any]) -> None:
    values = configs.resolve(config).to_dict()
    (values["ssm"],) = values["mixers"].values()
    for field, value in expected.items():
        at: Any = values
        for name in field.split("."):
            at = at[name]
        assert at == value, field


def mixer(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The options of the only mixer."""
    (name,) = config.model.pattern
    assert set(config.mixers) == {name}
    return config.mixers[name]


def table(text: str) -> dict[str, dict[str, Any]]:
    """The fields of each recipe: a row for each field, a column for each recipe, whose names are the first row."""
    rows = [line.split() for line in text.strip().splitlines()]
    columns = zip(*(row[1:] for row in rows), strict=True)
    fields = [row[0] for row in rows[1:]]
    return {recipe: dict(zip(fields, map(_value, values), strict=True)) for recipe, *values in columns}


def _value(text: str) -> Any:
    return text if text.replace("_", "").isidentifier() and text not in ("True", "False") else ast.literal_eval(text)


S5 = table(
    """
    recipe              lra/listops    lra/text     lra/retrieval         lra/image      lra/pathfinder        lra/pathx      speech_commands
    seed                6554595        8825365      5464368               16416          8180844               6429262        4062966
    model.depth         8              6            6                     6              6                     6              6
    model.d_model       128            256          128                   512            192                   128            96
    model.activation    half_glu2      half_glu2    half_glu1             half_glu1      half_glu1             half_glu1      half_glu1
    model.dropout       0.0            0.1          0.0                   0.1            0.05                  0.0            0.1
    model.bn_momentum   0.95           0.95         0.95                  0.95           0.9                   0.9            0.95
    ssm.state_size      16             192          256                   384            256                   256            128
    ssm.blocks          8              12           16                    3              8                     16             16
    ssm.C_init          lecun_normal   lecun_normal trunc_standard_normal lecun_normal   trunc_standard_normal complex_normal lecun_normal
    ssm.dt_min          0.001          0.001        0.001                 0.001          0.001                 0.0001         0.001
    ssm.clip_eigs       False          False        False                 True           False                 False          False
    optim.lr            0.003          0.004        0.002                 0.0045         0.0045                0.0018         0.008
    optim.ssm_lr        0.001          0.001        0.001                 0.001          0.0009                0.0006         0.002
    optim.weight_decay  0.04           0.07         0.05                  0.07           0.03                  0.06           0.04
    optim.grouping      BfastandCdecay standard     standard              BfastandCdecay standard              BandCdecay     noBCdecay
    optim.dt_global     False          True         True                  False          False                 False          False
    train.batch_size    50             50           32                    50             64                    32             16
    train.epochs        40             35           20                    250            200                   75             40
    train.warmup_epochs 1.0            0.0          1.0                   1.0            1.0                   1.0            1.0
    """  # noqa: E501
)
S5_COMMON = {
    "model.norm": "batch",
    "model.prenorm": True,
    "model.pooling": "mean",
    "ssm.bidirectional": True,
    "ssm.conj_sym": True,
    "ssm.discretization": "zoh",
    "ssm.init": "normal",
    "ssm.dt_max": 0.1,
    "ssm.scan_method": "auto",
    "optim.lr_min": 0.0,
    "optim.schedule": "warmup_cosine",
    "train.schedule_epochs": 0.0,
}
S5_PTD = {  # what differs from S5
    "lra/listops": {"train.epochs": 35, "optim.weight_decay": 0.05},
    "lra/text": {"train.epochs": 40, "train.warmup_epochs": 5.0},
    "lra/retrieval": {},
    "lra/image": {"seed": 16418, "optim.lr": 0.005},
    "lra/pathfinder": {"train.epochs": 230, "train.warmup_epochs": 10.0, "optim.weight_decay": 0.05},
    "lra/pathx": {"train.epochs": 90, "ssm.clip_eigs": True},
    "speech_commands": {},
}

V3 = table(
    """
    recipe                lra/listops lra/text  lra/retrieval lra/image lra/pathfinder lra/pathx scifar speech_commands
    seed                  2222        2222      2222          2222      2222           2222      2222   2222
    model.depth           8           6         6             6         6              6         6      6
    model.d_model         128         256       256           512       256            256       512    128
    model.norm            batch       batch     batch         layer     batch          batch     layer  batch
    model.prenorm         False       True      True          False     True           True      False  True
    model.dropout         0.0         0.0       0.0           0.1       0.0            0.0       0.1    0.0
    model.pooling         mean        mean      mean          mean      last           mean      mean   mean
    ssm.state_size        64          64        64            64        64             64        64     64
    ssm.n_ssm             0           0         0             2         0              0         2      2
    ssm.dt_min            0.001       0.001     0.001         0.001     0.001          0.0001    0.001  0.001
    ssm.dt_max            0.1         0.1       0.1           0.1       0.1            0.1       0.1    0.1
    optim.lr              0.01        0.01      0.01          0.01      0.004          0.001     0.01   0.01
    optim.ssm_lr          0.001       0.001     0.001         0.001     0.001          0.0005    0.001  0.001
    optim.dt_global       True        True      True          True      False          False     False  False
    optim.weight_decay    0.05        0.05      0.05          0.05      0.03           0.05      0.05   0.05
    train.batch_size      50          16        64            50        64             16        50     16
    train.epochs          40          32        20            200       200            50        200    40
    """
)
S4_PTD = table(
    """
    recipe                lra/listops lra/text  lra/retrieval lra/image lra/pathfinder lra/pathx
    seed                  2222        3333      3333          2222      3333           3333
    model.depth           8           6         6             6         6              6
    model.d_model         256         256       128           128       256            128
    model.norm            batch       batch     batch         layer     batch          batch
    model.prenorm         False       True      True          False     True           True
    model.dropout         0.0         0.0       0.0           0.1       0.0            0.0
    model.pooling         mean        mean      mean          mean      mean           mean
    ssm.state_size        64          64        64            64        64             64
    ssm.n_ssm             1           1         1             1         1              1
    ssm.dt_min            0.001       0.001     0.001         0.001     0.001          0.0001
    ssm.dt_max            1.0         0.1       0.1           0.1       0.1            0.1
    optim.lr              0.002       0.01      0.004         0.01      0.004          0.001
    optim.ssm_lr          0.0004      0.001     0.001         0.001     0.001          0.001
    optim.dt_global       False       True      True          False     False          False
    optim.weight_decay    0.05        0.05      0.03          0.01      0.03           0.03
    train.batch_size      50          16        64            128       64             20
    train.epochs          80          80        40            2000      300            100
    """
)
STEPS = {  # of an epoch: the training examples of the published splits, in whole batches
    "lra/listops": {50: 1920},
    "lra/text": {16: 1562},
    "lra/retrieval": {64: 2298},
    "lra/image": {50: 900, 128: 351},
    "lra/pathfinder": {64: 2500},
    "lra/pathx": {16: 10000, 20: 8000},
    "scifar": {50: 900},
    "speech_commands": {16: 5302},
}
V3_STEPS = {  # warm-up and cosine
    "lra/listops": (1_000, 80_000),
    "lra/text": (1_000, 50_000),
    "lra/retrieval": (2_500, 50_000),
    "lra/image": (900, 180_000),
    "lra/pathfinder": (2_500, 500_000),
    "lra/pathx": (50_000, 500_000),
    "scifar": (900, 180_000),
    "speech_commands": (1_000, 200_000),
}
S4_PTD_STEPS = {
    "lra/listops": (12_000, 1_200_000),
    "lra/text": (5_000, 50_000),  # of 125,000: the cosine rises again
    "lra/retrieval": (5_000, 100_000),
    "lra/image": (3_600, 1_760_000),
    "lra/pathfinder": (150_000, 800_000),
    "lra/pathx": (200_000, 1_250_000),
}


@pytest.mark.parametrize("recipe", S5)
def test_s5_has_its_published_numbers(recipe):
    config = load(recipe, "s5")
    check(config, S5_COMMON | S5[recipe])
    check(config, {"model.encoder": "one_hot" if recipe in TOKENS else "dense"})


@pytest.mark.parametrize("recipe", S5_PTD)
def test_s5_ptd_differs_from_s5_where_published(recipe):
    conjugate = {"ssm.init": "ptd-conjugate"}  # of S5's size: published are all modes
    check(load(recipe, "s5-ptd"), S5_COMMON | S5[recipe] | S5_PTD[recipe] | conjugate)


@pytest.mark.parametrize("model", ["s4d-legs", "s4d-inv", "s4d-lin", "s4-legs"])
@pytest.mark.parametrize("recipe", V3)
def test_s4d_and_s4_have_their_published_numbers(recipe, model):
    check(load(recipe, model), V3[recipe] | {"ssm.init": model.partition("-")[2]})
    check_s4(recipe, model, V3_STEPS)


@pytest.mark.parametrize("recipe", S4_PTD)
def test_s4_ptd_has_its_published_numbers(recipe):
    check(load(recipe, "s4-ptd"), S4_PTD[recipe] | {"model.pattern": ("s4d",), "ssm.init": "ptd-conjugate"})
    check_s4(recipe, "s4-ptd", S4_PTD_STEPS)


def check_s4(recipe: str, model: str, steps: dict[str, tuple[int, int]]) -> None:
    given = load(recipe, model)
    check(given, {"model.activation": "full_glu", "model.bn_momentum": 0.9, "ssm.bidirectional": True})
    config = configs.resolve(given)
    assert config.optim.grouping == "standard"
    assert config.model.encoder == ("embedding" if recipe in TOKENS else "dense")
    train, an_epoch = config.train, STEPS[recipe][config.train.batch_size]
    durations = (train.duration, train.warmup, train.schedule)
    total, warmup, spans = (duration.steps(an_epoch, train.batch_size) for duration in durations)
    assert (warmup, spans or total) == steps[recipe]


def test_numbers_of_small_images():
    rates = {"optim.lr": 0.0045, "optim.ssm_lr": 0.001, "optim.weight_decay": 0.07}
    sizes = {"model.depth": 6, "model.d_model": 512, "ssm.state_size": 384, "ssm.blocks": 3}
    check(load("scifar", "s5"), S5_COMMON | rates | sizes | {"train.epochs": 250, "model.dropout": 0.1})
    common = {"model.depth": 4, "ssm.state_size": 128, "train.epochs": 150, "train.batch_size": 50}
    common |= {"optim.weight_decay": 0.01, "ssm.bidirectional": False, "ssm.C_init": "trunc_standard_normal"}
    ordered = {"model.d_model": 96, "ssm.blocks": 1, "model.dropout": 0.1, "optim.lr": 0.008, "optim.ssm_lr": 0.002}
    shuffled = {"model.d_model": 128, "ssm.blocks": 2, "model.dropout": 0.15, "optim.lr": 0.004, "optim.ssm_lr": 0.001}
    check(load("smnist", "s5"), S5_COMMON | common | ordered | {"task.permuted": False})
    check(load("smnist", "permuted,s5"), S5_COMMON | common | shuffled | {"task.permuted": True})
    check(load("sfashion", "s5"), S5_COMMON | common | ordered)
    small = {"model.depth": 4, "model.d_model": 128, "optim.weight_decay": 0.01, "train.epochs": 100}
    check(load("smnist", "s4d-lin"), small | {"optim.lr": 0.01, "train.batch_size": 50})


def test_ten_words():
    assert load("speech_commands", "s5").task.name == "speech_commands"
    ten = load("speech_commands", "sc10,s4-ptd")
    assert (ten.task.name, mixer(ten).n_ssm) == ("sc10", 1)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_is_of_its_task(recipe):
    assert load(recipe, "s5").task.name == pathlib.Path(recipe).name


def test_all_recipes_are_here():
    files = {str(path.relative_to(tiny.ROOT / "configs").with_suffix("")) for path in tiny.ROOT.glob("configs/**/*.py")}
    assert files - {"common", "transformers", "digits", "lm/text_file"} == set(RECIPES)


def test_dss_is_normalised_over_the_tasks_length():
    assert tuple(mixer(load(recipe, "dss")).dss_length for recipe in RECIPES) == LENGTHS


@pytest.mark.parametrize("model", [*MODELS, *OTHERS])
@pytest.mark.parametrize("recipe", RECIPES)
def test_debug_shrinks(recipe, model):
    config = load(recipe, f"debug,{model}")
    small = {"model.depth": 2, "model.d_model": 8, "ssm.state_size": 8, "task.limit": 64, "train.batch_size": 8}
    check(config, small | {"train.epochs": 2, "train.eval_every_epochs": 1, "log.every_steps": 4})
    train = configs.resolve(config).train
    assert (train.warmup, train.schedule) == (Duration(1.0), Duration(0.0))
    (name,) = config.model.pattern
    if name == "s5":
        assert mixer(config).get("blocks", 1) <= mixer(load(recipe, model)).get("blocks", 1)
    else:
        assert config.model.d_model % (mixer(config).get("n_ssm", 0) or 1) == 0
    mixers.find(name).Options(**mixer(config).to_dict())  # complains of blocks that do not fit


def test_published_quirks():
    for recipe in RECIPES:
        for model in MODELS:
            config, usual = (configs.resolve(load(recipe, arg)) for arg in (f"{model},published", model))
            assert not config.model.mask_padding and usual.model.mask_padding
            assert config.optim.schedule == ("s5_published" if model.startswith("s5") else "warmup_cosine")
            assert usual.optim.schedule == "warmup_cosine"
            if recipe == "lra/text":
                assert (config.task.options.val_split, usual.task.options.val_split) == (0.0, 0.1)
            quirks = {"model": usual.model, "optim": usual.optim, "task": usual.task}
            assert dataclasses.replace(config, **quirks) == usual
            assert dataclasses.replace(config.model, mask_padding=True) == usual.model
            assert dataclasses.replace(config.optim, schedule="warmup_cosine") == usual.optim


def test_words_after_the_colon():
    assert load("lra/listops", "published,debug") == load("lra/listops", "debug, s5 ,published")
    assert configs.load_config(f"{tiny.ROOT}/configs/smnist.py") == load("smnist", "s5")
    assert load("smnist", "permuted").model.pattern == ("s5",)


@pytest.mark.parametrize(
    ("recipe", "arg", "message"),
    [
        ("lra/text", "s4d-cos", r"'s4d-cos' is neither a model nor .*; the models are s5, .*s4-fout, .*; the flags"),
        ("lra/text", "s5,permuted", r"'permuted' is neither .*; the flags are published, debug$"),
        ("smnist", "s5,permute", r"'permute' is neither .*; the flags are permuted, published, debug$"),
        ("scifar", "s5,", r"'' is neither a model nor a flag"),
        ("scifar", "s5,debug,s4-ptd", r"one model at a time: 's5,debug,s4-ptd' names s5, s4-ptd"),
    ],
)
def test_mistakes_after_the_colon(recipe, arg, message):
    with pytest.raises(UserError, match=message):
        load(recipe, arg)


TRANSFORMERS = ("transformer", "linear-transformer", "ponet", "transnormer", "transnormer-t1")

# ---- The family around S4. Cells ("-") are not checked.

FAMILY = ("hope", "lru", "longconv", "rtf", "essm", "liquid", "s4d-ft", "dss-softmax", "mega", "b2s6")
OF_TASK = {  # all of FAMILY in the Long Range Arena, except LRU, which has ListOps and Text only
    **dict.fromkeys(LRA[:2], FAMILY),
    **{recipe: tuple(model for model in FAMILY if model != "lru") for recipe in LRA[2:]},
    "scifar": ("lru", "longconv", "essm", "liquid"),
    "smnist": ("essm",),
    "speech_commands": ("rtf", "essm", "liquid", "dss-softmax"),
}
ROWS = [(recipe, model) for recipe, models in OF_TASK.items() for model in models]
SHAPE = ("model.depth", "model.d_model", "model.norm", "model.prenorm", "model.dropout")
RATES = ("optim.lr", "optim.ssm_lr", "optim.weight_decay", "train.batch_size", "train.epochs")
OWN = {
    "hope": ("ssm.state_size", "ssm.dt_min", "ssm.dt_max", "ssm.readout", "ssm.dt_transform"),
    "lru": ("ssm.state_size", "optim.lr_min", "model.encoder"),
    "longconv": ("ssm.kernel_dropout", "ssm.lam", "ssm.bidirectional", "model.pooling", "optim.micro_batches"),
    "rtf": ("ssm.state_size", "ssm.num_a", "ssm.kernel_dropout", "ssm.trunc_len", "optim.grouping"),
    "essm": ("ssm.state_size", "ssm.heads", "ssm.conj_sym", "ssm.C_init", "model.activation"),
    "liquid": ("ssm.state_size", "ssm.dt_min", "ssm.dt_max", "ssm.bidirectional", "model.pooling"),
    "s4d-ft": ("ssm.state_size", "ssm.n_ssm", "ssm.imag_scale", "ssm.dt_min", "ssm.dt_transform"),
    "dss-softmax": ("ssm.softmax_length", "ssm.dt_min", "ssm.dt_max", "model.pooling"),
    "mega": ("ssm.key_size", "ssm.ema_size", "ssm.attention", "ssm.truncation", "ssm.chunk", "model.mlp"),
    "b2s6": ("ssm.blocks",),
}
NUMBERS = """
hope lra/listops           8 128 batch False 0.0   0.002 0.001 0.03 20 560     64 0.0001 1.0 glu softplus
hope lra/text              6 256 batch True 0.0    0.01 0.001 0.05 16 160      64 0.001 0.1 glu softplus
hope lra/retrieval         6 128 batch True 0.0    0.008 0.004 0.03 32 160     64 0.001 0.1 glu softplus
hope lra/image             6 128 layer False 0.1   0.004 0.001 0.01 32 1500    128 0.001 10.0 linear exp
hope lra/pathfinder        6 128 batch True 0.0    0.001 0.0005 0.01 8 250     128 0.0001 0.1 linear exp
hope lra/pathx             6 128 batch True 0.0    0.001 0.0005 0.03 16 50     128 0.001 1.0 linear exp
lru lra/listops            4 256 batch True 0.1    0.001 0.0005 0.05 64 40     128 1e-7 one_hot
lru lra/text               4 256 batch True 0.1    0.001 0.0005 0.05 64 35     128 1e-7 one_hot
lru scifar                 4 256 batch True 0.1    0.001 0.0005 0.05 64 180    128 1e-7 dense
longconv lra/listops       8 128 batch False 0.0   0.01 0.0005 0.05 50 40      0.2 0.002 False mean 1
longconv lra/text          6 256 batch True 0.0    0.01 0.001 0.05 16 32       0.2 0.003 False mean 1
longconv lra/retrieval     6 256 batch True 0.0    0.01 0.0001 0.05 64 20      0.1 0.004 False mean 2
longconv lra/image         6 512 layer False 0.1   0.01 0.001 0.05 50 200      0.2 0.003 False mean 1
longconv lra/pathfinder    6 256 batch True 0.0    0.004 0.001 0.03 64 200     0.3 0.001 True last 1
longconv lra/pathx         6 256 batch True 0.0    0.0005 0.0005 0.05 16 50    0.3 0.001 True mean 1
longconv scifar            6 512 layer False 0.1   0.01 0.001 0.05 50 300      0.2 0.001 False mean 1
rtf lra/listops            6 256 batch False 0.0   0.002 - 0.07 32 40          4 1 0.0 2048 plain
rtf lra/text               6 256 batch True 0.1    0.005 0.001 0.05 16 32      4 1 0.1 4096 standard
rtf lra/retrieval          6 256 batch True 0.0    0.002 0.00001 0.0 64 20     4 1 0.0 4000 standard
rtf lra/image              6 512 batch False 0.1   0.006 - 0.05 50 200         64 1 0.1 1024 standard
rtf lra/pathfinder         6 256 batch True 0.1    0.002 - 0.05 64 200         64 0 0.1 1024 plain
rtf lra/pathx              6 256 batch True 0.1    0.001 0.001 0.025 16 50     2048 0 0.0 16384 standard
rtf speech_commands        6 128 batch True 0.0    0.01 0.001 0.05 16 40       64 2 0.0 16000 standard
essm lra/listops           8 128 batch True 0.0    0.01 0.01 0.0 32 100        256 64 True hippo half_glu1
essm lra/text              6 128 batch True 0.1    0.004 0.001 0.07 16 120     128 128 False trunc_normal half_glu2
essm lra/retrieval         6 64 batch True 0.0     0.002 0.001 0.05 32 20      128 64 True trunc_normal half_glu1
essm lra/image             6 256 batch False 0.1   0.005 0.001 0.0 100 200     512 64 True trunc_normal half_glu1
essm lra/pathfinder        6 256 batch True 0.05   0.005 0.001 0.05 64 350     256 32 True trunc_normal half_glu1
essm lra/pathx             6 192 batch True 0.0    0.001 0.0005 0.0 8 100      256 8 True trunc_normal half_glu1
essm scifar                6 256 batch True 0.1    0.005 0.001 0.05 50 300     512 64 True trunc_normal half_glu1
essm smnist                4 128 batch True 0.1    0.008 0.002 0.01 50 60      128 64 True trunc_normal half_glu1
essm smnist,permuted       4 128 batch True 0.15   0.001 0.001 0.0 50 150      128 8 True trunc_normal full_glu
essm speech_commands       6 128 batch False 0.1   0.008 0.001 0.05 16 100     128 32 True trunc_normal half_glu1
liquid lra/listops         9 128 batch True 0.01   0.002 0.0009 0.03 12 40     6 0.002 0.2 False mean
liquid lra/text            4 128 batch True 0.1    0.003 0.0009 0.01 8 50      6 0.002 0.2 False mean
liquid lra/retrieval       6 256 batch True 0.2    0.005 0.001 0.05 16 20      64 0.001 0.1 False mean
liquid lra/image           6 512 layer False 0.1   0.01 0.001 0.03 50 200      512 0.002 0.2 True mean
liquid lra/pathfinder      6 256 batch True 0.0    0.004 0.001 0.03 4 200      64 0.001 0.1 False last
liquid lra/pathx           6 320 batch True 0.0    0.001 0.0005 0.05 8 60      64 0.0001 0.1 False mean
liquid scifar              6 512 layer False 0.1   0.01 0.001 0.05 50 200      64 0.001 0.1 True mean
liquid speech_commands     6 128 batch True 0.0    0.008 0.001 0.05 10 50      6 0.002 0.2 False mean
s4d-ft lra/listops         6 128 batch True 0.0    0.008 0.004 0.03 32 160     128 1 3.0 0.001 softplus
s4d-ft lra/text            6 256 batch True 0.0    0.01 0.001 0.05 32 200      128 1 5.0 0.001 softplus
s4d-ft lra/retrieval       6 128 batch True 0.0    0.004 0.001 0.03 64 40      128 1 3.0 0.001 softplus
s4d-ft lra/image           6 512 layer False 0.1   0.01 0.001 0.01 50 1200     128 0 3.0 0.001 softplus
s4d-ft lra/pathfinder      6 256 batch True 0.0    0.004 0.001 0.03 50 300     128 1 3.0 0.001 softplus
s4d-ft lra/pathx           6 128 batch True 0.0    0.001 0.001 0.03 20 150     128 0 5.0 0.0001 softplus
dss-softmax lra/listops    6 128 batch False 0.0   0.01 0.001 0.01 50 50       2048 0.001 0.1 mean
dss-softmax lra/text       4 128 batch True 0.0    0.01 0.001 0.0 50 40        4096 0.001 0.1 last
dss-softmax lra/retrieval  6 256 batch True 0.0    0.002 0.001 0.0 64 25       4000 0.001 0.1 mean
dss-softmax lra/image      6 512 batch False 0.2   0.004 0.001 0.01 50 200     1024 0.001 0.1 mean
dss-softmax lra/pathfinder 6 256 batch True 0.1    0.004 0.001 0.0 100 200     1024 0.001 0.1 last
dss-softmax lra/pathx      6 256 batch True 0.0    0.0005 0.001 0.0 16 35      16384 0.0001 0.01 mean
mega lra/listops           6 80 layer False 0.1    0.001 - 0.01 64 -            64 16 softmax 1024 0 2
mega lra/text              4 128 scale False 0.1   0.004 - 0.01 50 -            64 16 softmax 1024 0 2
mega lra/retrieval         6 128 scale False 0.1   0.003 - 0.04 64 -            64 16 softmax 1024 0 2
mega lra/image             8 160 batch True 0.0    0.01 - 0.02 50 -             96 16 laplace 1024 0 2
mega lra/pathfinder        6 128 batch True 0.0    0.01 - 0.01 128 -            64 16 laplace 1024 0 2
mega lra/pathx             4 64 batch True 0.0     0.01 - 0.01 128 -            32 16 laplace 4096 0 2
mega lra/text,chunk        4 128 scale False 0.1   0.004 - 0.01 50 -            64 16 softmax 1024 128 2
mega lra/pathx,chunk       4 64 batch True 0.0     0.01 - 0.01 128 -            32 16 laplace 4096 4096 2
dss-softmax speech_commands 6 128 batch True 0.1   0.01 0.001 0.0 20 200       16000 0.001 0.1 mean
b2s6 lra/listops           8 128 batch False -     0.008 - 0.03 32 120         8
b2s6 lra/text              6 256 batch True -      0.01 - 0.05 16 40           8
b2s6 lra/retrieval         6 128 batch True -      0.004 - 0.03 60 200         8
b2s6 lra/image             6 512 layer False -     0.01 - 0.05 48 500          8
b2s6 lra/pathfinder        6 256 batch True -      0.004 - 0.03 48 250         8
b2s6 lra/pathx             6 128 batch True -      0.001 - 0.03 24 120         8
"""


@pytest.mark.parametrize("line", NUMBERS.strip().splitlines())
def test_the_family_has_its_published_numbers(line):
    model, place, *values = line.split()
    recipe, *flags = place.split(",")
    fields = (*SHAPE, *RATES, *OWN[model])
    check(
        load(recipe, ",".join([model, *flags])),
        {field: _value(text) for field, text in zip(fields, values, strict=True) if text != "-"},
    )


def test_all_rows_of_the_family_are_here():
    lines = [line.split() for line in NUMBERS.strip().splitlines()]
    assert sorted((place, model) for model, place, *_ in lines if "," not in place) == sorted(ROWS)
    for recipe in RECIPES:
        rows = configs.load_file(f"{tiny.ROOT}/configs/{recipe}.py")["RECIPES"]
        transformers = TRANSFORMERS if recipe in LRA[:5] else ()
        assert set(rows) == {*MODELS, *OTHERS, *OF_TASK.get(recipe, ()), *transformers}


FAMILY_STEPS = {  # warm-up and cosine in steps, and the steps of an epoch of the published training split
    ("lra/listops", "hope"): (5_000, 800_000, 4_800),
    ("lra/listops", "longconv"): (10_000, 80_000, 1_920),
    ("lra/listops", "rtf"): (12_000, 120_000, 3_000),
    ("lra/listops", "liquid"): (1_000, 80_000, 8_000),
    ("lra/listops", "s4d-ft"): (5_000, 150_000, 3_000),
    ("lra/text", "hope"): (5_000, 50_000, 1_562),
    ("lra/text", "longconv"): (5_000, 50_000, 1_562),
    ("lra/text", "rtf"): (5_000, 50_000, 1_562),
    ("lra/text", "liquid"): (1_000, 50_000, 3_125),
    ("lra/text", "s4d-ft"): (2_000, 20_000, 781),
    ("lra/retrieval", "hope"): (5_000, 100_000, 4_596),
    ("lra/retrieval", "longconv"): (2_500, 50_000, 2_298),
    ("lra/retrieval", "rtf"): (5_704, 57_040, 2_298),
    ("lra/retrieval", "essm"): (1_000, 50_000, 4_596),
    ("lra/retrieval", "liquid"): (2_500, 50_000, 9_192),
    ("lra/retrieval", "s4d-ft"): (5_000, 100_000, 2_298),
    ("lra/image", "hope"): (14_060, 281_200, 1_406),  # 10 and 200 epochs
    ("lra/image", "longconv"): (1_000, 200_000, 900),
    ("lra/image", "rtf"): (18_000, 180_000, 900),
    ("lra/image", "essm"): (1_000, 100_000, 450),
    ("lra/image", "liquid"): (1_000, 200_000, 900),
    ("lra/image", "s4d-ft"): (18_000, 180_000, 900),
    ("lra/pathfinder", "hope"): (400_000, 5_000_000, 20_000),  # 20 and 250 epochs
    ("lra/pathfinder", "longconv"): (2_500, 500_000, 2_500),
    ("lra/pathfinder", "rtf"): (50_000, 500_000, 2_500),
    ("lra/pathfinder", "essm"): (5_000, 250_000, 2_500),
    ("lra/pathfinder", "liquid"): (2_500, 500_000, 40_000),
    ("lra/pathfinder", "s4d-ft"): (150_000, 800_000, 3_200),
    ("lra/pathx", "hope"): (200_000, 500_000, 10_000),  # 20 and 50 epochs
    ("lra/pathx", "longconv"): (10_000, 500_000, 10_000),
    ("lra/pathx", "rtf"): (50_000, 500_000, 10_000),
    ("lra/pathx", "essm"): (10_000, 1_000_000, 20_000),
    ("lra/pathx", "liquid"): (10_000, 500_000, 20_000),
    ("lra/pathx", "s4d-ft"): (200_000, 1_250_000, 8_000),
    ("lra/listops", "mega"): (3_000, 90_000, 1_500),
    ("lra/text", "mega"): (10_000, 25_000, 500),
    ("lra/retrieval", "mega"): (10_000, 91_960, 2_298),
    ("lra/image", "mega"): (9_000, 180_000, 900),
    ("lra/pathfinder", "mega"): (50_000, 250_000, 1_250),
    ("lra/pathx", "mega"): (25_000, 125_000, 1_250),
    ("scifar", "longconv"): (1_000, 300_000, 900),
    ("scifar", "liquid"): (1_000, 200_000, 900),
    ("smnist", "essm"): (200, 35_000, 1_080),
    ("smnist", "essm,permuted"): (1_000, 81_000, 1_080),
    ("speech_commands", "rtf"): (1_000, 200_000, 5_302),
    ("speech_commands", "essm"): (1_000, 270_000, 5_302),
    ("speech_commands", "liquid"): (1_000, 200_000, 8_484),
}


@pytest.mark.parametrize(("recipe", "arg"), FAMILY_STEPS)
def test_warmup_and_cosine_of_the_family(recipe, arg):
    train = configs.resolve(load(recipe, arg)).train
    warmup, cosine, an_epoch = FAMILY_STEPS[recipe, arg]
    assert train.warmup.steps(an_epoch, train.batch_size) == warmup
    assert (train.schedule if train.schedule.amount else train.duration).steps(an_epoch, train.batch_size) == cosine


GROUPS = {  # learning rate and weight decay of single parameters, None: frozen
    ("lra/listops", "hope"): {"h": (0.001, 0.0), "log_step": None, "D": (0.002, 0.03)},
    ("lra/listops", "hope,published"): {"h": None, "log_step": None},
    ("lra/text", "hope"): {"h": (0.001, 0.0), "log_step": (0.01, 0.0)},
    ("lra/text", "hope,published"): {"h": None, "log_step": (0.01, 0.0)},
    ("lra/retrieval", "hope"): {"h": (0.004, 0.0), "log_step": (0.008, 0.0)},
    ("lra/retrieval", "hope,published"): {"h": None, "log_step": (0.008, 0.0)},
    ("lra/image", "hope"): {"h": (0.001, 0.01), "log_step": (0.001, 0.0)},
    ("lra/pathfinder", "hope"): {"h": (0.0005, 0.0), "log_step": (0.001, 0.0)},
    ("lra/pathx", "hope"): {"h": (0.0005, 0.0), "log_step": None},
    ("lra/listops", "rtf"): {"ab": (0.002, 0.07), "h_0": (0.002, 0.07)},
    ("lra/image", "rtf"): {"ab": (0.005, 0.05), "h_0": (0.005, 0.05)},
    ("lra/pathx", "rtf"): {"ab": (0.001, 0.0), "h_0": (0.001, 0.0)},
    ("lra/text", "essm"): {"B": (0.001, 0.0), "C": (0.004, 0.0), "D": (0.001, 0.0)},
    ("lra/retrieval", "essm"): {"B": (0.001, 0.0), "C": (0.002, 0.0)},
    ("lra/image", "essm"): {"B": (0.005, 0.0), "C": (0.005, 0.0), "Lambda": (0.001, 0.0)},
    ("lra/pathfinder", "essm"): {"B": (0.001, 0.0), "C": (0.005, 0.0)},
    ("lra/pathx", "essm"): {"B": (0.0005, 0.0), "C": (0.001, 0.0)},
    ("smnist", "essm"): {"B": (0.008, 0.0), "C": (0.008, 0.0), "log_step": (0.002, 0.0)},
    ("smnist", "essm,permuted"): {"B": (0.001, 0.0), "C": (0.004, 0.0)},
    ("speech_commands", "essm"): {"B": (0.001, 0.0), "C": (0.001, 0.0)},
    ("lra/listops", "liquid"): {"A_imag": (0.0009, 0.0), "log_step": (0.002, 0.0), "C": (0.002, 0.03)},
    ("lra/pathfinder", "liquid"): {"A_imag": (0.001, 0.0), "log_step": (0.001, 0.0)},
    ("lra/text", "s4d-ft"): {"s": (0.01, 0.0), "A_real": (0.001, 0.0), "log_step": (0.01, 0.0)},
    ("lra/image", "s4d-ft"): {"s": (0.01, 0.0), "A_real": (0.001, 0.0), "log_step": (0.001, 0.0)},
    ("lra/text", "dss-softmax"): {"W": (0.001, 0.0), "log_step": (0.02, 0.0), "D": (0.01, 0.0)},
    ("lra/image", "dss-softmax"): {"W": (0.001, 0.0), "log_step": (0.001, 0.0), "D": (0.004, 0.01)},
    ("lra/pathx", "dss-softmax"): {"Lambda": (0.001, 0.0), "log_step": (0.0001, 0.0)},
    ("lra/listops", "longconv"): {"kernel": (0.0005, 0.0), "D": (0.01, 0.05)},
    ("lra/text", "mega"): {"delta": (0.004, 0.01), "v_kernel": (0.004, 0.01), "bias": (0.004, 0.01)},
    ("lra/text", "lru"): {"gamma_log": (0.0005, 0.0), "C_re": (0.001, 0.05)},
}


@pytest.mark.parametrize(("recipe", "arg"), GROUPS)
def test_rates_and_decays_of_the_familys_parameters(recipe, arg):
    config = configs.resolve(load(recipe, arg))
    names = {"encoder": {"layers": [{"seq": dict.fromkeys(GROUPS[recipe, arg], 0.0)}]}}
    groups = optimizer.groups_of(config.optim)
    given = {"model": dataclasses.replace(config.model, depth=1), "optim": config.optim}
    labels = optimizer.group_labels(dataclasses.replace(config, **given), names)["encoder"]["layers"][0]["seq"]
    for name, expected in GROUPS[recipe, arg].items():
        group = groups[labels[name]]
        assert (None if group.frozen else (group.lr, group.weight_decay)) == expected, name


@pytest.mark.parametrize("recipe", [recipe for recipe, model in ROWS if model == "mega"])
def test_flags_of_mega(recipe):
    small, usual = load(recipe, "debug,chunk,mega"), configs.resolve(load(recipe, "mega"))
    check(small, {"model.depth": 2, "model.d_model": 8, "train.batch_size": 8, "ssm.key_size": 8})
    check(small, {"ssm.chunk": 4096 if recipe == "lra/pathx" else 128})
    assert (usual.model.mlp_activation, usual.model.norm_epsilon, usual.model.bn_momentum) == ("silu", 1e-5, 0.9)


@pytest.mark.parametrize(("recipe", "model"), [row for row in ROWS if row[1] != "mega"])
def test_flags_of_the_family(recipe, model):
    mega = model == "mega"  # has no flag `published`, and no gelu
    small, usual = load(recipe, f"debug,{model}" + ",published" * (not mega)), configs.resolve(load(recipe, model))
    check(small, {"model.depth": 2, "model.d_model": 8, "train.batch_size": 8, "optim.micro_batches": 1})
    own = {"longconv": {}, "mega": {"ssm.key_size": 8}}.get(model, {"ssm.state_size": 8})
    check(small, {"model.mask_padding": mega} | own)
    train = configs.resolve(small).train
    assert (train.duration, train.warmup, train.schedule) == (Duration(2.0), Duration(1.0), Duration(0.0))
    # Those of Flax and of PyTorch.
    norms = ("tanh", 0.0, 0.99) if model == "lru" else ("tanh" if mega else "exact", 1e-5, 0.9)
    assert (usual.model.gelu, usual.model.norm_epsilon, usual.model.bn_momentum) == norms
    assert usual.model.mask_padding


# ---- Transformers. Durations in steps: warm-up, the schedule, and all of training.

TRANSFORMER_SHAPE = ("model.depth", "model.d_model", "model.mlp", "model.dropout", "model.positions")
TRANSFORMER_RATES = ("optim.lr", "optim.weight_decay", "train.batch_size")
TRANSFORMER_NUMBERS = """
transformer lra/listops            4 512 2 0.1 sinusoidal   0.0015811388 0.1 32   1000 5000 5000      8 0
transformer lra/text               4 256 4 0.1 sinusoidal   0.0005590170 0.1 32   8000 20000 20000    4 0
transformer lra/retrieval          4 128 4 0.1 sinusoidal   0.0003493157 0.1 32   4999 5000 5000      4 0
transformer lra/image              1 128 1 0.3 learned      0.0005 0.0 256        175 35000 35000     8 64
transformer lra/pathfinder         4 32 1 0.2 sinusoidal    0.001 0.0 512         312 62400 62400     4 16
linear-transformer lra/listops     4 512 2 0.1 sinusoidal   0.0015811388 0.1 32   1000 5000 5000      8 0
linear-transformer lra/text        4 256 4 0.1 sinusoidal   0.0005590170 0.1 32   8000 20000 20000    4 0
linear-transformer lra/retrieval   4 128 4 0.1 sinusoidal   0.0003493157 0.1 32   4999 5000 5000      4 0
linear-transformer lra/image       1 128 1 0.3 learned      0.0005 0.0 256        175 35000 35000     8 64
linear-transformer lra/pathfinder  1 128 1 0.2 sinusoidal   0.001 0.0 512         312 62400 62400     2 64
ponet lra/listops                  2 64 2 0.1 learned       0.0001 0.0 32         1000 5000 5000      2 33
ponet lra/text                     2 64 2 0.1 learned       0.0001 0.0 32         8000 20000 20000    2 2
ponet lra/retrieval                2 64 2 0.1 learned       0.0001 0.0 32         800 30000 30000     2 65
ponet lra/image                    2 64 2 0.1 learned       0.0001 0.0 256        175 35000 35000     2 33
ponet lra/pathfinder               2 64 2 0.1 learned       0.0001 0.0 256        312 62400 62400     2 0
transnormer lra/listops            4 128 4 0.0 sinusoidal   0.0001 0.0 128        1000 50000 30000    8 64
transnormer lra/text               4 128 4 0.0 sinusoidal   0.001 0.0 64          80 50000 12480      8 64
transnormer lra/retrieval          4 128 4 0.0 sinusoidal   0.001 0.0 64          800 50000 45960     4 64
transnormer lra/image              12 128 2 0.2 sinusoidal  0.001 0.0 200         175 50000 45000     4 64
transnormer lra/pathfinder         4 128 1 0.0 sinusoidal   0.0005 0.0 128        312 50000 250000    8 64
"""
AN_EPOCH = {"lra/listops": 96_000, "lra/text": 25_000, "lra/retrieval": 147_086, "lra/image": 45_000}
AN_EPOCH["lra/pathfinder"] = 160_000
"""Training examples of the published splits."""
FIRST = {"transformer": "attention", "linear-transformer": "linear_attention", "ponet": "ponet"}
INSIDE = {**dict.fromkeys(("attention", "linear_attention"), "qkv_width"), "ponet": "segment_length"}


@pytest.mark.parametrize("line", TRANSFORMER_NUMBERS.strip().splitlines())
def test_transformers_have_their_published_numbers(line):
    model, recipe, *texts = line.split()
    values = [_value(text) for text in texts]
    names = [model] if model != "transnormer" else [model, "transnormer-t1"]
    for config in (configs.resolve(load(recipe, name)) for name in names):
        fields = dict(zip((*TRANSFORMER_SHAPE, *TRANSFORMER_RATES), values, strict=False))
        for field, value in fields.items():
            section, name = field.split(".")
            given = getattr(getattr(config, section), name)
            assert given == (pytest.approx(value) if isinstance(value, float) else value), field
        train, (warmup, spans, total, heads, inside) = config.train, values[len(fields) :]
        durations = (train.warmup, train.schedule if train.schedule.amount else train.duration, train.duration)
        an_epoch = AN_EPOCH[recipe] // train.batch_size
        assert [d.steps(an_epoch, train.batch_size) for d in durations] == [warmup, spans, total]
        first = FIRST.get(model, "diag_attention")
        assert config.model.pattern[0] == first
        options = config.mixers[first].options
        assert (options.heads, getattr(options, INSIDE.get(first, "block"))) == (heads, inside)
        assert config.model.norm == ("layer" if first in FIRST.values() else "batch")
        assert config.model.encoder == ("embedding" if recipe in TOKENS else "dense")
        if "transformer" in model:
            assert (config.optim.b2, config.optim.eps, config.seed) == (0.98, 1e-9, 0)
            assert config.optim.schedule == ("inverse_sqrt" if recipe in TOKENS else "warmup_cosine")
            assert not (options.causal or options.bias)


def test_transnormers_halves_and_kinds():
    for recipe in LRA[:5]:
        for model, weights, activation in (("transnormer", "softmax", "1+elu"), ("transnormer-t1", "relu", "elu")):
            config = configs.resolve(load(recipe, model))
            half = config.model.depth // 2
            assert config.model.pattern == ("diag_attention",) * half + ("norm_attention",) * half
            diag, norm = (config.mixers[name].options for name in ("diag_attention", "norm_attention"))
            assert (diag.weights, norm.activation, norm.heads) == (weights, activation, 8)
            assert not (diag.causal or norm.causal or diag.published_softmax)
            small = configs.resolve(load(recipe, f"debug,published,{model}"))
            assert small.model.depth == 2 and len(small.model.pattern) == 2
            published = small.mixers["diag_attention"].options.published_softmax
            assert published == (model == "transnormer") and not small.model.mask_padding
