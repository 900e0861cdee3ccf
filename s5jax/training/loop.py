"""The training loop. All side effects are here; it reads from top to bottom like the recipe it is."""

import contextlib
import datetime
import math
import pathlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from s5jax.data import batches
from s5jax.training import optimizer as optimizers
from s5jax.training import state as states
from s5jax.training import workdir as workdirs
from s5jax.training.checkpoint import Checkpoints
from s5jax.training.config import Config, UserError, load_task
from s5jax.training.metrics import Writer
from s5jax.training.program import Program

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
      What result.json holds: steps, accuracy and loss on the validation and test splits.

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
    if config.log.eigenvalues_every_steps:
        states.require(config, "Lambda")
    task = load_task(config)
    origin = workdirs.claim_data(workdir, config)
    experiment, state = states.build(config, task)
    program = Program(config, task, experiment)
    total_steps, steps_per_epoch = experiment.total_steps, experiment.steps_per_epoch
    keys = states.random_keys(config.seed)
    eval_every = config.train.eval_every_steps or steps_per_epoch
    learning_rate = jax.jit(
        optimizers.make_schedule(config.optim, config.optim.lr, experiment.warmup_steps, experiment.schedule_steps)
    )

    with contextlib.ExitStack() as stack:
        signals = stack.enter_context(_catch_signals())
        checkpoints = stack.enter_context(Checkpoints(workdir))
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
        run = _describe_run(workdir, state, program)
        writer.say(
            f"{workdir}: {config.ssm.name} on {task.name}, {run['parameters']:,} parameters, {run['device']};"
            f" {total_steps} steps of {config.train.batch_size} examples, {steps_per_epoch} an epoch"
            + (f"; resuming after step {step}" if step else "")
        )
        if origin is not None:
            writer.say(f"data: {origin}")
        if config.log.eigenvalues_every_steps and step == 0:
            workdirs.write_eigenvalues(workdir, config, step, state.params)

        def epoch_order(epoch: int) -> np.ndarray:
            size = len(task.splits["train"])
            return batches.epoch_order(keys.order, epoch, size, config.train.batch_size, program.bucket("train"))

        clock = _Clock(started, before=progress["seconds"])
        calls = _calls(config, step, total_steps, steps_per_epoch, eval_every, epoch_order)
        feeds = stack.enter_context(contextlib.closing(program.feeds("train", calls)))
        while step < total_steps and not _out_of_patience(config, progress):
            feed = next(feeds)
            state, metrics = program.train_steps(state, feed)
            step += feed.steps
            window.add(step, metrics)
            writer.advance(feed.steps)
            if clock.is_first():
                window.read()
                writer.say(f"start, import to first step: {clock.seconds_to_first_step(step):.1f} s")

            if step % config.log.every_steps == 0:
                rate = float(learning_rate(step - 1))
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
                _judge(progress, step, values)
                writer.write(step, {"epoch": step / steps_per_epoch, **values})
                writer.say(_evaluation_line(step, steps_per_epoch, values, progress))
                warning = states.report_unstable(config, state.params)
                if warning is not None:
                    writer.say(f"warning: {warning}")

            # Before the checkpoint of the same step, from which a resumed run would go on without writing them.
            ending = step == total_steps or _out_of_patience(config, progress)
            every = config.log.eigenvalues_every_steps
            if _divides(every, step) or (every and ending):
                window.read()  # raises where this step diverged
                with clock.paused():
                    workdirs.write_eigenvalues(workdir, config, step, state.params)

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
            _judge(progress, step, {f"val/{name}": value for name, value in program.evaluate(state, "val").items()})
        best = program.place(checkpoints.restore(progress["best_step"], state))
        result = {"steps": step, "best_step": progress["best_step"], **progress["best"]}
        result |= {f"test/{name}": value for name, value in program.evaluate(best, "test").items()}
        seconds = clock.seconds()
        workdirs.write_json(workdir / "run.json", {**run, "finished": _now(), "seconds": round(seconds, 1)})
        workdirs.write_json(workdir / "result.json", result)
        writer.summarize(result)
        writer.say(
            f"done in {seconds:.0f} s: test accuracy {result['test/accuracy']:.4f}, loss {result['test/loss']:.4f}"
            f" at the best validation accuracy ({result['val/accuracy']:.4f}, step {result['best_step']})"
        )
        return result


def _calls(
    config: Config,
    step: int,
    total_steps: int,
    steps_per_epoch: int,
    eval_every: int,
    epoch_order: Callable[[int], np.ndarray],
) -> Iterator[np.ndarray]:
    """The examples of all batches from a step on, (steps, batch) for each call of the device.

    A call has as many steps as the config asks for, or half of them, a quarter, ..., if something is to be done before
    their end. What a step is in the same call with thus does not depend on where a run was resumed.
    """
    intervals = [steps_per_epoch, eval_every, config.log.every_steps]
    intervals += [n for n in (config.train.checkpoint_every_steps, config.log.eigenvalues_every_steps) if n]
    order, epoch = None, -1
    while step < total_steps:
        if order is None or step // steps_per_epoch != epoch:
            epoch = step // steps_per_epoch
            order = epoch_order(epoch)
        until_next = min([n - step % n for n in intervals])
        count = config.train.steps_per_call
        while count > until_next:
            count //= 2
        at = step % steps_per_epoch
        yield order[at : at + count]
        step += count


class _Window:
    """Training metrics since the last report. They are read one step late, so that the device never waits for us."""

    def __init__(self, sums: dict[str, float]):
        self.sums = sums
        self._unread: tuple[int, dict[str, jax.Array]] | None = None

    def add(self, step: int, metrics: dict[str, jax.Array]) -> None:
        """Metrics of the last steps up to this one, each an array over them."""
        self.read()
        self._unread = step, metrics

    def read(self) -> None:
        if self._unread is None:
            return
        (last, metrics), self._unread = self._unread, None
        columns = {f"train/{name}": np.asarray(values).tolist() for name, values in metrics.items()}
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        for step, values in enumerate(rows, last - len(rows) + 1):
            _check_finite(step, values)
            for name, value in {**values, "count": 1}.items():
                self.sums[name] = self.sums.get(name, 0) + value

    def take_means(self) -> dict[str, float]:
        self.read()
        count = self.sums.pop("count")
        means = {name: total / count for name, total in self.sums.items()}
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
    """Collects SIGTERM and SIGINT instead of dying of them; a second SIGINT acts as ever."""
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


def _judge(progress: dict[str, Any], step: int, values: dict[str, float]) -> None:
    """Keeps the best validation accuracy, of equals the one with the least loss, and counts evaluations since."""

    def rank(v: dict[str, float]) -> tuple[float, float]:
        return v["val/accuracy"], -v["val/loss"]

    if progress["best"] is None or rank(values) > rank(progress["best"]):
        progress.update(best=values, best_step=step, stale=0)
    else:
        progress["stale"] += 1


def _out_of_patience(config: Config, progress: dict[str, Any]) -> bool:
    return 0 < config.train.patience <= progress["stale"]


def _divides(interval: int, step: int) -> bool:
    return interval > 0 and step % interval == 0


def _training_line(step: int, total_steps: int, report: dict[str, float], speed: float) -> str:
    line = (
        f"step {step}/{total_steps}  epoch {report['epoch']:.2f}  loss {report['train/loss']:.4f}"
        f"  accuracy {report['train/accuracy']:.4f}"
    )
    if speed:
        left = datetime.timedelta(seconds=round((total_steps - step) / speed))
        line += f"  {speed:.1f} steps/s  {left} left"
    return line


def _evaluation_line(step: int, steps_per_epoch: int, values: dict[str, float], progress: dict[str, Any]) -> str:
    best = "  best so far" if progress["best_step"] == step else ""
    return (
        f"epoch {step / steps_per_epoch:.2f}  step {step}  validation loss {values['val/loss']:.4f}"
        f"  accuracy {values['val/accuracy']:.4f}{best}"
    )


def _describe_run(workdir: pathlib.Path, state: states.TrainState, program: Program) -> dict[str, Any]:
    """Writes run.json, and returns it."""
    path = workdir / "run.json"
    first_started = workdirs.read_json(path)["started"] if path.exists() else _now()
    num_parameters = sum(x.size for x in jax.tree.leaves(state.params))
    run = {"started": first_started, **workdirs.describe(num_parameters, program.mesh.size)}
    workdirs.write_json(path, run)
    return run


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
