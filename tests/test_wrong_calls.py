"""Wrong calls from Python: each raises one of the documented errors, in a line or two that name what is wrong."""

import functools

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from flax import nnx
from small_models import build, values

from s5jax.data.task import DataError, Split, Task
from s5jax.mixers import attention, lru, s4, s4d, s5
from s5jax.models import options as models
from s5jax.models.model import Model
from s5jax.ssm import diagonal_scan, hippo, ptd
from s5jax.train import config
from s5jax.train.config import Duration, UserError
from s5jax.train.trained import load, load_language_model, load_run

NAN, INF, HUGE = float("nan"), float("inf"), 10**12
SIZES, SHARES = (0, -2, NAN, 2.5, "4", HUGE, None), (-0.1, 1, NAN, INF, "x")
STEPS = (0, -1, NAN, INF, 1e30, "x")

OPTIONS = {
    s5.Options: {
        "state_size": SIZES, "blocks": (0, -1, 3, NAN, "1"), "init": ("foo", 3, None), "ptd_kappa": (-1, 0.5, NAN, "x"),
        "C_init": ("foo",), "D_init": ("foo",), "dt_min": STEPS, "dt_max": STEPS, "discretization": ("foo", None),
        "scan_method": ("foo", "parallel"), "state": (4,),
    },
    s4d.Options: {
        "state_size": SIZES, "init": ("foo",), "discretization": ("foo",), "mode": ("foo",), "dt_min": STEPS,
        "n_ssm": (-1, NAN, HUGE, "x"), "scan_method": ("foo",), "B_init": ("foo",), "dss_length": (-1, HUGE, "x"),
        "size": (4,),
    },
    s4.Options: {
        "state_size": SIZES, "init": ("foo",), "rank": (0, -1, NAN, HUGE, "x"), "dt_min": STEPS, "n_ssm": (-1, "x"),
    },
    lru.Options: {
        "state_size": SIZES, "r_min": (-1, 1.1, NAN, "x"), "r_max": (-1, NAN, "x"), "max_phase": (-1, INF, "x"),
    },
    attention.Options: {"heads": (0, -1, NAN, HUGE, "x"), "window": (-1, NAN, HUGE, "x"), "positions": ("foo",)},
    config.Optim: {
        "lr": STEPS[1:4], "ssm_lr": (-1, NAN, "x"), "weight_decay": (-1, NAN, "x"), "b1": SHARES, "b2": SHARES,
        "eps": (-1, NAN, "x"), "grouping": ("foo",), "dt_global": (1, "no"), "schedule": ("foo",), "lr_min": (-1, "x"),
        "clip_norm": (-1, NAN, INF), "micro_batches": (0, 2.5, "x"), "average": SHARES,
    },
    config.Train: {
        "batch_size": (0, 2.5, "x"), "patience": (-1, 0.5), "buckets": (-1, "x"), "carry_state": (1, "x"),
        "resident_gib": (-1, NAN, "x"),
    },
    config.Log: {"every_steps": (0, 1.5), "wandb": ("foo", True), "tensorboard": (1, "x")},
    models.Options: {
        "depth": SIZES, "d_model": SIZES, "pattern": ((), "s5", (3,)), "encoder": ("foo",), "activation": ("foo",),
        "gelu": ("foo",), "norm": ("foo",), "norm_epsilon": (-1, NAN, "x"), "bn_momentum": SHARES,
        "mlp": (-1, NAN, "x"), "dropout": SHARES, "pooling": ("foo",), "remat": ("foo",), "deep": (4,),
    },
}  # fmt: skip
WRONG_OPTIONS = [
    (options, name, value)
    for options, fields in OPTIONS.items()
    for name, several in fields.items()
    for value in several
]


@pytest.fixture(autouse=True)
def as_users_have_it():
    """Without the checks of annotations that the tests add."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def one_line(error):
    lines = str(error.value).strip().splitlines()
    assert 1 <= len(lines) <= 2 and len(lines[0]) < 500, lines
    return lines[0]


@pytest.mark.parametrize(
    ("options", "name", "value"),
    WRONG_OPTIONS,
    ids=[f"{options.__module__.rpartition('.')[2]}-{name}-{value}" for options, name, value in WRONG_OPTIONS],
)
def test_an_option_that_cannot_be(options, name, value):
    with pytest.raises((ValueError, TypeError)) as error:
        options(**{name: value})
    assert name in one_line(error)


X, A, B = values(2, 6, 2), np.full(3, 0.5, np.float32), np.ones((2, 4, 3), np.float32)
LABELS = np.zeros(4, int)
INPUTS = np.zeros((4, 6, 2), np.float32)


def task(inputs=INPUTS, labels=LABELS, num_classes=2, channels=2, length=6, **more):
    of_split = {name: more.pop(name) for name in ("lengths", "mask", "reset", "rate", "weights") if name in more}
    return Task("mine", dict.fromkeys(("train", "val", "test"), Split(inputs, labels, **of_split)), length=length,
                num_classes=num_classes, channels=channels, **more)  # fmt: skip


@functools.cache
def model(**options):
    return build("s5", depth=1, norm="layer", **options)


def model_of(**given):
    return Model(**{"options": models.Options(), "mixer_options": {"s5": ("s5", s5.Options())}, "input_size": 2,
                    "outputs": 3, "rngs": nnx.Rngs(0), **given})  # fmt: skip


def of_mixer(mixer, **given):
    options = mixer.Options()
    return mixer.apply(mixer.init(jax.random.key(0), 4, options), jnp.zeros((2, 6, 4)), options, **given)


CALLS = {
    "scan: no steps": lambda: diagonal_scan.diagonal_scan(A, B[:, :0]),
    "scan: method": lambda: diagonal_scan.diagonal_scan(A, B, method="fast"),
    "scan: dtype": lambda: diagonal_scan.diagonal_scan(A.astype(np.complex64), B),
    "scan: forward mode": lambda: jax.jvp(lambda b: diagonal_scan.diagonal_scan(jnp.asarray(A), b)[0], (B,), (B,)),
    "model: a shape": lambda: model()(X[0]),
    "model: channels": lambda: model()(X[..., :1]),
    "model: no samples": lambda: model()(X[:, :0]),
    "model: a string": lambda: model()("x"),
    "model: lengths above L": lambda: model()(X, [7, 6]),
    "model: lengths of zero": lambda: model()(X, [0, 6]),
    "model: lengths, floats": lambda: model()(X, [1.0, 2.0]),
    "model: too many lengths": lambda: model()(X, [6, 6, 6]),
    "model: a mask of numbers": lambda: model()(X, mask=np.ones((2, 6))),
    "model: a mask of another shape": lambda: model()(X, mask=np.ones((2, 5), bool)),
    "model: a reset of another shape": lambda: model()(X, reset=np.ones((3, 6), bool)),
    "model: a negative rate": lambda: model()(X, rate=-1.0),
    "model: a rate that is NaN": lambda: model()(X, rate=np.nan),
    "model: an infinite rate": lambda: model()(X, rate=np.inf),
    "model: rates of another shape": lambda: model()(X, rate=np.ones(3)),
    "model: dropout without a key": lambda: model(dropout=0.5)(X, train=True),
    "model: ids above": lambda: model(encoder="one_hot", input_size=5)(np.full((2, 6), 5)),
    "model: ids below": lambda: model(encoder="embedding", input_size=5)(np.full((2, 6), -1)),
    "model: floats for ids": lambda: model(encoder="embedding", input_size=5)(np.zeros((2, 6))),
    "model: prefill of another batch": lambda: model().prefill(model().init_state(3), X),
    "model: step of a sequence": lambda: model().step(model().init_state(2), X),
    "model: step with a rate per step": lambda: model().discretize(np.ones((2, 6))),
    "model: a state of two directions": lambda: build("s5-two", depth=1).init_state(2),
    "model: a mixer of another name": lambda: model_of(mixer_options={"s6": ("s5", s5.Options())}),
    "model: a module that is not there": lambda: model_of(mixer_options={"s5": ("s6", s5.Options())}),
    "mixer: a state and two directions": lambda: s5.init_state(
        s5.init(jax.random.key(0), 4), s5.Options(bidirectional=True), 2
    ),
    "mixer: no samples": lambda: s5.apply(s5.init(jax.random.key(0), 4), jnp.zeros((2, 0, 4))),
    "mixer: dss without a length": lambda: s4d.Options(discretization="dss"),
    "mixer: odd state with conj_sym": lambda: s5.Options(state_size=3),
    "mixer: blocks that do not divide": lambda: s5.Options(state_size=8, blocks=3),
    "mixer: dt_min above dt_max": lambda: s5.Options(dt_min=1.0, dt_max=0.1),
    "mixer: radii in the wrong order": lambda: lru.Options(r_min=0.9, r_max=0.1),
    "mixer: heads that do not divide": lambda: attention.init(jax.random.key(0), 5, attention.Options(heads=2)),
    "task: classes and targets": lambda: task(targets=1),
    "task: neither": lambda: task(num_classes=0),
    "task: labels above": lambda: task(labels=LABELS + 2),
    "task: labels below": lambda: task(labels=LABELS - 1),
    "task: labels, floats": lambda: task(labels=LABELS * 1.0),
    "task: labels of another number": lambda: task(labels=LABELS[:3]),
    "task: inputs of another length": lambda: task(length=7),
    "task: inputs of other channels": lambda: task(channels=3),
    "task: NaN": lambda: task(inputs=INPUTS * np.nan),
    "task: infinity": lambda: task(inputs=INPUTS + np.inf),
    "task: tokens that are floats": lambda: task(inputs=INPUTS[..., 0], num_tokens=3),
    "task: tokens above": lambda: task(inputs=np.full((4, 6), 3), num_tokens=3),
    "task: lengths of zero": lambda: task(lengths=LABELS),
    "task: lengths above": lambda: task(lengths=LABELS + 7),
    "task: a mask of numbers": lambda: task(mask=np.zeros((4, 6))),
    "task: a mask of another shape": lambda: task(mask=np.zeros((4, 5), bool)),
    "task: a reset of another shape": lambda: task(reset=np.zeros(4, bool)),
    "task: a sequence of which all is missing": lambda: task(mask=np.arange(4)[:, None] * np.ones(6, int) == 1),
    "task: a last sequence of which all is missing": lambda: task(
        mask=np.arange(6) * np.ones((4, 1), int) > 2, reset=np.arange(6) * np.ones((4, 1), int) == 3
    ),
    "task: rates that are NaN": lambda: task(rate=np.full((4, 6), np.nan)),
    "task: negative weights": lambda: task(weights=LABELS - 1.0),
    "task: no examples": lambda: task(inputs=INPUTS[:0], labels=LABELS[:0]),
    "task: a judge without a direction": lambda: task(judge=("loss",)),
    "task: tolerance in a classification": lambda: task(tolerance=0.1),
    "task: no test split": lambda: Task("mine", {"train": Split(INPUTS, LABELS)}, length=6, num_classes=2, channels=2),
    "ptd: kappa below one": lambda: ptd.perturb_then_diagonalize(hippo.legs(4)[0], kappa=0.5),
    "ptd: kappa of NaN": lambda: ptd.perturb_then_diagonalize(hippo.legs(4)[0], kappa=NAN),
    "ptd: not square": lambda: ptd.perturb_then_diagonalize(np.zeros((3, 4)), kappa=2.0),
    "ptd: NaN": lambda: ptd.perturb_then_diagonalize(np.full((4, 4), np.nan), kappa=2.0),
    "train: no duration": lambda: config.Train(duration=Duration(0)),
    "train: a duration of NaN": lambda: config.Train(duration=Duration(NAN)),
    "train: an infinite warm-up": lambda: config.Train(warmup=Duration(INF)),
    "train: a negative interval": lambda: config.Train(eval_every=Duration(-1)),
    "run: none": lambda: load_run("/none/such"),
    "run: with its data": lambda: load("/none/such"),
    "run: a language model": lambda: load_language_model("/none/such"),
}  # fmt: skip


@pytest.mark.parametrize("call", CALLS)
def test_a_wrong_call(call):
    with pytest.raises((ValueError, TypeError, ImportError, UserError, DataError)) as error:
        CALLS[call]()
    assert type(error.value).__module__ in ("builtins", "s5jax.train.config", "s5jax.data.task"), error.value
    one_line(error)


def test_there_are_enough():
    assert len(CALLS) + len(WRONG_OPTIONS) >= 200
