"""The training loop. All side effects are here; it reads from top to bottom like the recipe it is."""

import contextlib
import datetime
import itertools
import math
import pathlib
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from s5jax.data import batches
from s5jax.data.task import Task
from s5jax.evaluators import Context
from s5jax.evaluators.eigenvalues import report_unstable
from s5jax.objectives import Metrics
from s5jax.train import workdir as workdirs
from s5jax.train.build import Experiment, build, load_task, random_keys
from s5jax.train.checkpoint import Checkpoints
from s5jax.train.config import Config, UserError
from s5jax.train.log import Writer
from s5jax.train.program import Program
from s5jax.train.resolve import load_module

__all__ = ["Diverged", "Interrupted", "train"]


class Diverged(UserError):
    """The loss or its gradient is no longer a finite number."""


class Interrupted(Exception):
    """A signal ended the run; its state is saved."""

    def __init__(self, signum: int, message: str):
        super().__init__(message)
        self.signum = signum


def train(config: Config, workdir: pathlib.Path, started: float | None = None) -> dict[str, Any]:
    """Trains the config's model in `workdir`, or goes on training it; evaluates the best checkpoint on the test split.

    Every report is a function of the config and the step: a run that was killed and resumed gives, on the CPU bit for
    bit, what it would have given uninterrupted.

    Args:
      config: the experiment.
      workdir: the run's directory (see `workdir.py`), made if need be.
      started: `time.perf_counter()` at the program's start, for the report of how long the start took.

    Returns:
      What result.json holds: steps, and the objective's metrics on the validation and test splits.

    Raises:
      UserError: the workdir is another config's, or the config cannot be run.
      Diverged: loss or gradient are NaN or infinite; the checkpoints of before are kept.
      Interrupted: SIGTERM or SIGINT came; the state was saved.
    """
    started = time.perf_counter() if started is None else started
    with workdirs.claim(workdir, config):
        if (workdir / "result.json").exists():
            print(f"{workdir} is finished: nothing to do")
            return workdirs.read_json(workdir / "result.json")
        return _train(config, workdir, started)


def _train(config: Config, workdir: pathlib.Path, started: float) -> dict[str, Any]:
    print(f"loading {config.task.name}", flush=True)
    task = load_task(config)
    origin = workdirs.claim_data(workdir, config)
    experiment, state = build(config, task)
    program = Program(experiment)
    total_steps, steps_per_epoch = experiment.total_steps, experiment.steps_per_epoch
    eval_every = config.train.eval_every_steps or steps_per_epoch
    evaluators = {name: load_module("evaluators", section.module) for name, section in config.evaluators.items()}

    with contextlib.ExitStack() as stack:
        signals = stack.enter_context(_catch_signals())
        checkpoints = stack.enter_context(Checkpoints(workdir, config))
        restored = checkpoints.restore_latest(state)
        # What a checkpoint keeps besides the state: all that later reports and decisions depend on.
        progress: dict[str, Any] = {"best": None, "best_step": None, "stale": 0, "window": {}, "seconds": 0.0}
        if restored is not None:
            state, progress = restored
        step = int(state.step)
        state = program.place(state)
        window = _Window(progress["window"])
        writer = stack.enter_context(Writer(workdir, config, step, total_steps))

        workdirs.record(workdir, config)
        run = workdirs.describe_run(workdir, config, state.params, program.mesh.size)
        for warning in run.pop("warnings"):
            writer.say(f"warning: {warning}")
        writer.say(
            f"{workdir}: {'+'.join(config.model.pattern)} on {task.name}, {run['parameters']:,} parameters,"
            f" {run['device']}; {total_steps} steps of {config.train.batch_size} examples, {steps_per_epoch} an epoch"
            + (f"; resuming after step {step}" if step else "")
        )
        if origin is not None:
            writer.say(f"data: {origin}")

        def evaluate_further(step: int, *, evaluating: bool, starting: bool = False) -> dict[str, float]:
            """What the evaluators report that are due."""
            values = {}
            for name, module in evaluators.items():
                options = config.evaluators[name].options
                every = getattr(options, "every_steps", 0)
                due = getattr(module, "AT_START", False) if starting else _divides(every, step) if every else evaluating
                if due or (every and step == total_steps):
                    context = Context(config, task, workdir, step, program.evaluate)
                    values |= module.evaluate(context, state, options)
            return values

        if step == 0:
            evaluate_further(0, evaluating=False, starting=True)
        if step < total_steps:
            writer.say("compiling the training step")
        clock = _Clock(started, before=progress["seconds"])
        order = _order(experiment, program.feeder.bucket("train"), step)
        feeds = stack.enter_context(contextlib.closing(program.feeder.feeds("train", order)))
        while step < total_steps and not _out_of_patience(config, progress):
            state, metrics = program.step(state, next(feeds), step)
            step += 1
            window.add(step, metrics)
            writer.advance(1)
            if clock.is_first():
                window.read()
                writer.say(f"start, import to first step: {clock.seconds_to_first_step(step):.1f} s")

            if step % config.log.every_steps == 0:
                rate = float(experiment.rates(step - 1)[-1])
                report = {"epoch": step / steps_per_epoch, **window.take_means(), "train/lr": rate}
                speed = clock.lap(step)
                writer.write(step, report, {"steps_per_second": speed} if speed else {})
                if not writer.is_terminal:
                    writer.say(_training_line(step, total_steps, report, speed))

            evaluating = step % eval_every == 0 or step == total_steps
            if evaluating:
                window.read()
                with clock.paused():
                    values = {f"val/{name}": value for name, value in program.evaluate(state, "val").items()}
                _check_finite(step, values)
                _judge(progress, step, values, task)
                writer.say(_evaluation_line(step, steps_per_epoch, values, progress))
                warning = report_unstable(config, state.params)
                if warning is not None:
                    writer.say(f"warning: {warning}")
            # Before the checkpoint of the same step, from which a resumed run would go on without writing them.
            ending = step == total_steps or _out_of_patience(config, progress)
            with clock.paused():
                further = evaluate_further(step, evaluating=evaluating or ending)
            if evaluating or further:
                writer.write(step, {"epoch": step / steps_per_epoch, **(values if evaluating else {}), **further})

            stopping = bool(signals)  # asked once: one that comes from here on waits for the next step
            if evaluating or stopping or _divides(config.train.checkpoint_every_steps, step):
                window.read()
                with clock.paused():
                    checkpoints.save(state, {**progress, "window": window.sums, "seconds": clock.seconds()})
            if stopping and step < total_steps:
                checkpoints.wait()
                name = signal.Signals(signals[0]).name
                raise Interrupted(signals[0], f"{name}: saved after step {step}; the same command goes on from there")

        checkpoints.wait()
        if progress["best"] is None:  # its checkpoint was damaged
            values = {f"val/{name}": value for name, value in program.evaluate(state, "val").items()}
            _judge(progress, step, values, task)
        best = program.place(checkpoints.restore(progress["best_step"], state))
        result = {"steps": step, "best_step": progress["best_step"], **progress["best"]}
        result |= {f"test/{name}": value for name, value in program.evaluate(best, "test").items()}
        seconds = clock.seconds()
        workdirs.write_json(workdir / "run.json", {**run, "finished": workdirs.now(), "seconds": round(seconds, 1)})
        workdirs.write_json(workdir / "result.json", result)
        writer.summarize(result)
        judge = task.judge[0]
        writer.say(
            f"done in {seconds:.0f} s: {_in_words(result, 'test', judge)}"
            f" at the best validation {judge} ({result[f'val/{judge}']:.4f}, step {result['best_step']})"
        )
        return result


def _order(experiment: Experiment, bucket: np.ndarray | None, step: int) -> Iterator[np.ndarray]:
    """The examples of each batch from a step on: a function of the seed and the step."""
    size, batch_size = len(experiment.task.splits["train"]), experiment.config.train.batch_size
    key, per_epoch = random_keys(experiment.config.seed).order, experiment.steps_per_epoch
    for epoch in itertools.count(step // per_epoch):
        order = batches.epoch_order(key, epoch, size, batch_size, bucket)
        yield from order[step - epoch * per_epoch :] if epoch == step // per_epoch else order


class _Window:
    """Training metrics since the last report. They are read one step late, so that the device never waits for us."""

    def __init__(self, sums: dict[str, list[float]]):
        self.sums = sums
        self._unread: tuple[int, Metrics] | None = None

    def add(self, step: int, metrics: Metrics) -> None:
        """Metrics of a step."""
        self.read()
        self._unread = step, metrics

    def read(self) -> None:
        if self._unread is None:
            return
        (step, metrics), self._unread = self._unread, None
        for name, (value, weight) in jax.device_get(metrics).items():
            _check_finite(step, {f"train/{name}": float(value)})
            total = self.sums.setdefault(f"train/{name}", [0.0, 0.0])
            total[0] += float(value)
            total[1] += float(weight)

    def take_means(self) -> dict[str, float]:
        self.read()
        means = {name: total / weight if weight else 0.0 for name, (total, weight) in self.sums.items()}
        self.sums = {}
        return means


class _Clock:
    """Time of the run, and speed of its training steps, evaluations and checkpoints not counted."""

    def __init__(self, started: float, before: float):
        self._started, self._before = started, before
        self._begin = self._lap = time.perf_counter()
        self._lap_step: int | None = None

    def is_first(self) -> bool:
        return self._lap_step is None

    def seconds_to_first_step(self, step: int) -> float:
        """Also starts the first lap, so that compilation does not count as slowness."""
        self._lap, self._lap_step = time.perf_counter(), step
        return self._lap - self._started

    def seconds(self) -> float:
        return self._before + time.perf_counter() - self._begin

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        self._lap += time.perf_counter() - begin

    def lap(self, step: int) -> float:
        """Steps per second since the last lap; 0 if there were none."""
        assert self._lap_step is not None
        now = time.perf_counter()
        speed = (step - self._lap_step) / (now - self._lap)
        self._lap, self._lap_step = now, step
        return speed


@contextlib.contextmanager
def _catch_signals() -> Iterator[list[int]]:
    """Records SIGTERM and SIGINT so that the loop can save first; a second SIGINT interrupts at once."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # Python lets no other thread handle signals
        yield received
        return
    previous = {signum: signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGINT)}

    def note(signum: int, _: Any) -> None:
        received.append(signum)
        signal.signal(signal.SIGINT, previous[signal.SIGINT])

    for signum in previous:
        signal.signal(signum, note)
    try:
        yield received
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)


def _check_finite(step: int, values: dict[str, float]) -> None:
    for name, value in values.items():
        if not math.isfinite(value):
            raise Diverged(
                f"step {step}: {name} is {value}. Stopped; the checkpoints of before are kept."
                " A lower config.optim.lr or ssm_lr, or config.optim.clip_norm=1, may help, in a new workdir."
            )


def _judge(progress: dict[str, Any], step: int, values: dict[str, float], task: Task) -> None:
    """Keeps the best validation metrics by the task's judge, of equals those with less loss; counts the rest."""
    name, direction = task.judge
    if f"val/{name}" not in values:
        known = ", ".join(key.removeprefix("val/") for key in values)
        raise UserError(f"task {task.name} is judged by {name}, but its objective reports {known}")

    def rank(v: dict[str, float]) -> tuple[float, float]:
        return v[f"val/{name}"] * (1 if direction == "max" else -1), -v["val/loss"]

    if progress["best"] is None or rank(values) > rank(progress["best"]):
        progress.update(best=values, best_step=step, stale=0)
    else:
        progress["stale"] += 1


def _out_of_patience(config: Config, progress: dict[str, Any]) -> bool:
    return 0 < config.train.patience <= progress["stale"]


def _divides(interval: int, step: int) -> bool:
    return interval > 0 and step % interval == 0


def _training_line(step: int, total_steps: int, report: dict[str, float], speed: float) -> str:
    shown = {name: value for name, value in report.items() if name not in ("train/grad_norm", "train/lr")}
    line = f"step {step}/{total_steps}  epoch {report['epoch']:.2f}  {_in_words(shown, 'train', 'loss', '  ')}"
    if speed:
        left = datetime.timedelta(seconds=round((total_steps - step) / speed))
        line += f"  {speed:.1f} steps/s  {left} left"
    return line


def _evaluation_line(step: int, steps_per_epoch: int, values: dict[str, float], progress: dict[str, Any]) -> str:
    best = "  best so far" if progress["best_step"] == step else ""
    words = _in_words(values, "val", "loss", "  ")
    return f"epoch {step / steps_per_epoch:.2f}  step {step}  validation {words.removeprefix('val ')}{best}"


def _in_words(values: dict[str, Any], split: str, first: str, between: str = ", ") -> str:
    """Metrics of a split, one of them first: "test accuracy 0.9861, loss 0.0513"."""
    names = [name.removeprefix(f"{split}/") for name in values if name.startswith(f"{split}/")]
    words = between.join(f"{name} {values[f'{split}/{name}']:.4f}" for name in sorted(names, key=lambda n: n != first))
    return words if split == "train" else f"{split} {words}"
