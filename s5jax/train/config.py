"""The schema of config files and of the command line, as frozen dataclasses.

A field that a config leaves out has the default given here. `resolve.py` turns a config file into a `Config`.
"""

import contextlib
import dataclasses
import math
from collections.abc import Iterator
from typing import Any, Literal, get_args

from s5jax.models import options as models

Unit = Literal["steps", "epochs", "examples"]


class UserError(Exception):
    """A mistake that one or two lines explain: shown without a traceback."""


class Interrupted(Exception):
    """A signal, or the end of `train.minutes`, ended the run; its state is saved."""

    def __init__(self, signum: int, message: str):
        super().__init__(message)
        self.signum = signum


@contextlib.contextmanager
def explained(where: str) -> Iterator[None]:
    """Turns a ValueError into a UserError that begins with the field or section at fault."""
    try:
        yield
    except ValueError as error:
        raise UserError(f"{where}: {error}") from error


@dataclasses.dataclass(frozen=True)
class Duration:
    """A length of training, in steps, epochs or examples."""

    amount: int | float
    unit: Unit = "epochs"

    def __post_init__(self) -> None:
        if not math.isfinite(self.amount):
            raise ValueError(f"a duration must be a finite number, got {self.amount}")

    def key(self, name: str) -> str:
        """The field's name in a config, which ends in the unit (`warmup_steps`); for `duration` the unit alone."""
        return self.unit if name == "duration" else f"{name}_{self.unit}"

    def steps(self, steps_per_epoch: int, batch_size: int) -> int:
        """The nearest number of steps, at least 1 if the duration is not 0."""
        per_unit = {"steps": 1, "epochs": steps_per_epoch, "examples": 1 / batch_size}[self.unit]
        return max(1, round(self.amount * per_unit)) if self.amount else 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Section:
    """A mixer, an evaluator or the objective: a module of the package or, with dots in its name, any module."""

    module: str
    options: Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskConfig:
    """The data set."""

    name: str
    """The task: a module of the package or, with dots, any module. Its `Options` are fields of this section, too."""
    options: Any = None
    data_dir: str = "data"
    """Directory in which `scripts/prepare_data.py` wrote the folder `prepared`; unused by built-in data."""
    limit: int = 0
    """Number of examples of each split to use, always the same random ones; 0: all."""

    def __post_init__(self) -> None:
        models.check_choices(self)
        models.check_least(self, 0, "limit")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optim:
    """One optimizer; learning rate and weight decay depend on a parameter's group."""

    name: str = "adamw"
    """An optimizer of optax: adamw, adam, lion, sgd, ..."""
    lr: float = 0.004
    """Highest learning rate of all parameters outside the mixers' dynamics."""
    ssm_lr: float = 0.001
    """Highest learning rate of the mixers' dynamics."""
    weight_decay: float = 0.05
    """Decoupled weight decay, scaled by the learning rate; for optimizers without it, L2 regularisation."""
    b1: float | None = None
    """Decay of the running mean of the gradient. None: optax's default, 0.9 for adam and adamw."""
    b2: float | None = None
    """Decay of the running mean of the squared gradient. None: optax's default, 0.999 for adam and adamw."""
    eps: float | None = None
    """Added to the root of the running mean of the squared gradient. None: optax's default, 1e-8 for adam and adamw."""
    arguments: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Further arguments of the optimizer: {'momentum': 0.9}."""
    grouping: Literal["standard", "BandCdecay", "BfastandCdecay", "noBCdecay", "only_C", "plain"] = "standard"
    """Which parameters have which learning rate and weight decay: see `optimizer.GROUPINGS`."""
    rules: tuple[tuple[str, dict[str, Any]], ...] = ()
    """Rules before those of the grouping: (pattern, {'lr': 0.001, 'weight_decay': 0.0, 'frozen': False})."""
    dt_global: bool = False
    """Train log_step like any parameter outside the dynamics: at lr, with weight decay."""
    schedule: Literal["warmup_cosine", "inverse_sqrt", "s5_published", "constant"] = "warmup_cosine"
    """How the learning rates change: see `optimizer.rate_at`."""
    lr_min: float = 0.0
    """Learning rate at the end of the cosine."""
    clip_norm: float = 0.0
    """Largest global norm of the gradient; 0: no clipping."""
    micro_batches: int = 1
    """Parts of a batch whose gradients are computed one after the other and accumulated, to save memory. The update is
    that of the whole batch, except for batch norm, whose statistics are each part's, and the draws of dropout."""
    average: float = 0.0
    """Decay of the running mean of the weights, which is evaluated instead of them; 0: no mean."""

    def __post_init__(self) -> None:
        models.check_choices(self)
        models.check_least(self, 0, "lr", "ssm_lr", "weight_decay", "lr_min", "clip_norm")
        models.check_least(self, 1, "micro_batches")
        models.check_share(self, "average", *(name for name in ("b1", "b2") if getattr(self, name) is not None))
        models.check_least(self, 0, *(["eps"] if self.eps is not None else []))
        if self.grouping == "only_C" and self.dt_global:
            raise ValueError("dt_global trains step sizes, which grouping only_C does not: choose one")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train:
    """Length of training, batches, evaluations and checkpoints. Each duration can be given in any unit."""

    duration: Duration = Duration(40.0)
    """Length of training, in a config `epochs`, `steps` or `examples`."""
    warmup: Duration = Duration(1.0)
    """Linear rise of the learning rates at the start."""
    schedule: Duration = Duration(0.0)
    """Length of the learning rate schedule, warm-up included; 0: all of training. `optimizer.rate_at` says what comes
    after it."""
    batch_size: int = 50
    """Examples in a step, over all devices."""
    patience: int = 0
    """Stop after this many evaluations without improvement of the task's metric (for ties: the loss); 0: never."""
    eval_every: Duration = Duration(1.0)
    """Time between evaluations on the validation split."""
    checkpoint_every: Duration = Duration(0.0)
    """Time between checkpoints besides those at evaluations; 0: no others."""
    buckets: int = 0
    """Largest number of lengths that padded batches are cut to, so that short sequences cost less; 0: no cutting."""
    carry_state: bool = False
    """Start each batch from the state at the end of the one before, through which no gradient flows, and each epoch
    from a new state. Evaluation does the same. Only for tasks whose sequences are consecutive pieces of a text."""
    minutes: float = 0.0
    """Time limit, from the program's start: the run saves its state and ends with exit status 0, and the same command
    goes on. It stops early enough for its longest evaluation so far, plus 5 % of the limit (at most 30 s). 0: none."""
    matmul_precision: Literal["default", "high", "highest"] = "default"
    """Precision of matrix products in float32, as in `jax.default_matmul_precision`: on a CPU all three are float32; on
    a GPU `default` and `high` are TF32, and `highest` float32; on a TPU they take one, three or six passes in
    bfloat16. `default` leaves what jax itself is set to."""
    resident_gib: float = 8.0
    """Splits whose inputs take at most this many GiB are kept on every device; larger ones are streamed from disk."""

    def __post_init__(self) -> None:
        models.check_choices(self)
        models.check_least(self, 1, "batch_size")
        models.check_least(self, 0, "patience", "buckets", "minutes", "resident_gib")
        for name, value in vars(self).items():
            positive = name in ("duration", "eval_every")
            if isinstance(value, Duration) and (value.amount < 0 or (positive and not value.amount)):
                least = "positive" if positive else "at least 0"
                raise ValueError(f"{value.key(name)} must be {least}, got {value.amount}")


DURATIONS: dict[str, tuple[str, Unit]] = {
    Duration(0, unit).key(field.name): (field.name, unit)
    for field in dataclasses.fields(Train)
    for unit in get_args(Unit)
    if field.type is Duration
}
"""The keys of durations in the config section `train`, with the name and the unit of each."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Log:
    """Where metrics go besides metrics.jsonl."""

    every_steps: int = 50
    """Steps between two lines of training metrics, which are means over these steps."""
    wandb: Literal["off", "offline", "online"] = "off"
    """Weights & Biases; offline runs lie in the workdir for `wandb sync`."""
    wandb_project: str = "s5jax"
    """The Weights & Biases project."""
    tensorboard: bool = False
    """Write event files to <workdir>/tensorboard."""

    def __post_init__(self) -> None:
        models.check_choices(self)
        models.check_least(self, 1, "every_steps")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """A whole experiment."""

    task: TaskConfig
    model: models.Options = models.Options()
    mixers: dict[str, Section] = dataclasses.field(default_factory=dict)
    """By name in model.pattern: the mixer's options, and its `module` if that differs from the name."""
    objective: Section | None = None
    """Replaces the task's objective or its options: `module` and the fields of its `Options`."""
    optim: Optim = Optim()
    train: Train = Train()
    evaluators: dict[str, Section] = dataclasses.field(default_factory=dict)
    """What evaluations compute besides the objective: by name, the options of each and its `module`."""
    log: Log = Log()
    seed: int = 0
    """Seed of initialisation, order of examples, and dropout."""
    num_devices: int = 0
    """Devices that share a batch; 0: all."""

    def __post_init__(self) -> None:
        models.check_choices(self)
        models.check_least(self, 0, "num_devices")
        models.check_between(self, 0, 2**32 - 1, "seed")

    @property
    def foreign_modules(self) -> set[str]:
        """The modules that the config names from outside the package: their names have dots."""
        sections = filter(None, [*self.mixers.values(), *self.evaluators.values(), self.objective])
        return {name for name in (self.task.name, *(section.module for section in sections)) if "." in name}

    def to_dict(self) -> dict[str, Any]:
        """Nested plain values; `resolve` turns them into a Config again."""
        values = dataclasses.asdict(self)
        values["task"] |= values["task"].pop("options") or {}
        for name, value in vars(self.train).items():
            if isinstance(value, Duration):
                del values["train"][name]
                values["train"][value.key(name)] = value.amount
        for sections in (values["mixers"], values["evaluators"], values):
            for section in sections.values():
                if isinstance(section, dict) and section.keys() == {"module", "options"}:
                    section |= section.pop("options") or {}
        return values
