"""What a config says: frozen dataclasses, which are the schema of config files and of the command line.

A field that a config leaves out has the default given here. `resolve.py` makes a `Config` of a file.
"""

import dataclasses
import json
from typing import Any, Literal

from s5jax.models import options as models

__all__ = ["Config", "Log", "Optim", "Section", "TaskConfig", "Train", "UserError", "differences"]


class UserError(Exception):
    """A mistake that one or two lines explain: shown without a traceback."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Section:
    """A mixer, an evaluator or the objective: a module of the package, or with dots any, and its `Options`."""

    module: str
    options: Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskConfig:
    """The data set `s5jax/data/tasks/<name>.py`, or with dots any module, with its `Options` if it has any."""

    name: str
    options: Any = None
    data_dir: str = "data"
    """Where `scripts/prepare_data.py` has put it, in a folder `prepared`; of no meaning for data that are built in."""
    limit: int = 0
    """Examples of each split that are used, always the same random ones; 0: all."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optim:
    """One optimizer for all parameters, whose rates and decays differ by groups."""

    name: str = "adamw"
    """An optimizer of optax: adamw, adam, lion, sgd, ..."""
    lr: float = 0.004
    ssm_lr: float = 0.001
    """Base rate of the mixers' dynamics; `lr` is that of all other parameters."""
    weight_decay: float = 0.05
    """Decoupled, as a multiple of the rate; L2 regularisation where the optimizer knows no decay."""
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    arguments: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Further arguments of the optimizer: {'momentum': 0.9}."""
    grouping: Literal["standard", "BandCdecay", "BfastandCdecay", "noBCdecay", "only_C", "plain"] = "standard"
    """Which parameters have which rate and decay: see `optimizer.GROUPINGS`."""
    rules: tuple[tuple[str, dict[str, Any]], ...] = ()
    """Rules in front of those of the grouping: (pattern, {'lr': 0.001, 'weight_decay': 0.0, 'frozen': False})."""
    dt_global: bool = False
    """Train log_step like any parameter outside the dynamics: at lr, decayed."""
    schedule: Literal["warmup_cosine", "s5_published", "constant"] = "warmup_cosine"
    lr_min: float = 0.0
    """Rate that the cosine of the schedule ends at: see `optimizer.rate_at`."""
    clip_norm: float = 0.0
    """Largest global norm of the gradient; 0: unbounded."""
    micro_batches: int = 1
    """Parts that a batch is read in, one after the other, to save memory; the update is that of the whole batch."""
    average: float = 0.0
    """Share that the average of the weights, which is evaluated then, keeps at each step; 0: no average."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train:
    epochs: int = 40
    warmup_epochs: float = 1.0
    batch_size: int = 50
    """Examples a step, over all devices."""
    patience: int = 0
    """Evaluations without a better one before training stops, by the task's judge and, of equals, loss; 0: never."""
    eval_every_steps: int = 0
    """Steps between evaluations on the validation split; 0: one each epoch."""
    checkpoint_every_steps: int = 0
    """Steps between checkpoints besides those at evaluations; 0: no others."""
    schedule_epochs: float = 0.0
    """Epochs that the schedule of the rates spans, warm-up included; 0: all. For what follows see `rate_at`."""
    buckets: int = 0
    """Lengths that padded batches are cut to, so that short sequences cost less; 0: all have the full length."""
    resident_gib: float = 8.0
    """GiB of stored inputs up to which a split stays on every device; a larger one is streamed from disk."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Log:
    every_steps: int = 50
    """Steps between two lines of training metrics, which are means over them."""
    wandb: Literal["off", "offline", "online"] = "off"
    """Weights & Biases; offline runs lie in the workdir for `wandb sync`."""
    wandb_project: str = "s5jax"
    tensorboard: bool = False
    """Write event files to <workdir>/tensorboard."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """A whole experiment."""

    task: TaskConfig
    model: models.Options = models.Options()
    mixers: dict[str, Section] = dataclasses.field(default_factory=dict)
    """For each name in model.pattern the options of that mixer, and its `module` where that is not the name."""
    objective: Section | None = None
    """Instead of the task's objective, or with other options: `module` and the fields of its `Options`."""
    optim: Optim = Optim()
    train: Train = Train()
    evaluators: dict[str, Section] = dataclasses.field(default_factory=dict)
    """What evaluations compute besides the objective: by name the options of each, and its `module` likewise."""
    log: Log = Log()
    seed: int = 0
    """Of initialisation, order of examples, and dropout."""
    num_devices: int = 0
    """Devices to spread a batch over; 0: all there are."""

    @property
    def foreign_modules(self) -> set[str]:
        """Those that the config names which are not of this package: their names have dots."""
        sections = [*self.mixers.values(), *self.evaluators.values(), *([self.objective] if self.objective else [])]
        return {name for name in (self.task.name, *(section.module for section in sections)) if "." in name}

    def to_dict(self) -> dict[str, Any]:
        """Nested plain values; `resolve` takes them back."""
        values = dataclasses.asdict(self)
        values["task"] |= values["task"].pop("options") or {}
        for sections in (values["mixers"], values["evaluators"], values):
            for name, section in sections.items():
                if isinstance(section, dict) and section.keys() == {"module", "options"}:
                    sections[name] = {"module": section["module"], **section["options"]}
        return values


def differences(old: Any, new: Any) -> str:
    """The fields in which two configs differ, as `to_dict` gives them, in words; "" where there are none.

    Where the data lie, and whether on the device, makes no difference.
    """

    def compare(old: Any, new: Any, name: str) -> list[str]:
        if isinstance(old, dict) and isinstance(new, dict):
            fields = ((old.get(key), new.get(key), f"{name}.{key}") for key in sorted(old.keys() | new.keys()))
            return [line for field in fields for line in compare(*field)]
        if old == new or name in ("config.task.data_dir", "config.train.resident_gib"):
            return []
        return [f"\n  {name}: {old!r} there, {new!r} now"]

    found = compare(json.loads(json.dumps(old)), json.loads(json.dumps(new)), "config")
    return "make these fields agree:" + "".join(found) if found else ""
