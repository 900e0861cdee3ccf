"""The training loop, from top to bottom. It calls everything that has side effects, in order."""

import contextlib
import itertools
import math
import pathlib
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any, NoReturn

import jax
import numpy as np

from s5jax.data import batches
from s5jax.data.task import Task
from s5jax.evaluators import Context
from s5jax.evaluators.stability import report_unstable
from s5jax.objectives import Metrics
from s5jax.train import workdir as workdirs
from s5jax.train.build import Experiment, build, load_task, random_keys
from s5jax.train.checkpoint import Checkpoints
from s5jax.train.config import Config, Interrupted, UserError
from s5jax.train.log import Writer, in_words
from s5jax.train.program import Program


class Diverged(UserError):
    """The loss or its gradient is no longer a finite number."""


def train(config: Config, workdir: pathlib.Path, started: float | None = None) -> dict[str, Any]:
    """Trains the config's model in `workdir`, or goes on training it; evaluates the best checkpoint on the test split.

    Every report is a function of the config and the step: a run that was killed and resumed gives, on the CPU bit for
    bit, what it would have given uninterrupted.

    The time to the first step is measured from `started`, the value of `time.perf_counter()` at the program's start.
    Returns what result.json holds: steps, best_step, and the objective's metrics on the validation and test splits.

    Raises:
      UserError: the workdir is another config's, or the config cannot be run.
      Diverged: the loss or gradient is NaN or infinite; earlier checkpoints are kept.
      Interrupted: SIGTERM or SIGINT came, or `train.minutes` are nearly over (signum 0); the state was saved.
    """
    started = time.perf_counter() if started is None else started
    with contextlib.ExitStack() as stack:
        stack.enter_context(workdirs.claim(workdir, config))
        if (workdir / "result.json").exists() and (workdir / "config.json").exists():
            print(f"{workdir} is finished: nothing to do")
            return workdirs.read_json(workdir / "result.json")
        if config.foreign_modules:
            from s5jax.train import modules

            stack.enter_context(modules.faults_told(config))
        print(f"loading {config.task.name}", flush=True)
        task = load_task(config)
        data = workdirs.check_data(workdir, config, task)
        experiment, state = build(config, task)
        program = Program(experiment)
        total_steps, steps_per_epoch = experiment.total_steps, experiment.steps_per_epoch
        intervals = (config.train.eval_every, config.train.checkpoint_every)
        eval_every, save_every = (d.steps(steps_per_epoch, config.train.batch_size) for d in intervals)

        signals = stack.enter_context(_catch_signals())
        checkpoints = stack.enter_context(Checkpoints(workdir, config, data))
        # What a checkpoint keeps besides the state: all that later reports and decisions depend on.
        progress: dict[str, Any] = {
            "best": None,
            "best_step": None,
            "stale": 0,
            "longest_pause": 0.0,
            "window": {},
            "seconds": 0.0,
        }
        restored = checkpoints.restore_latest(state)
        state, progress = (restored[0], progress | restored[1]) if restored else (state, progress)
        step, state, window = int(state.step), program.place(state), _Window(progress["window"])
        writer = stack.enter_context(Writer(workdir, config, step, total_steps))

        workdirs.record(workdir, config, data)
        run = workdirs.describe_run(workdir, config, state.params, experiment.sizes, program.mesh.size)
        for name in run.pop("changed"):
            writer.say(f"warning: {name} has changed since this run started")
        writer.say(
            f"{workdir}: {'+'.join(config.model.pattern)} on {task.name}, {run['parameters']:,} parameters,"
            f" {run['device']}; {total_steps} steps of {config.train.batch_size} examples, {steps_per_epoch} an epoch"
            + (f"; resuming after step {step}" if step else "")
        )
        chosen = ", ".join(f"{name} {value}" for name, value in run.pop("chosen").items())
        writer.say(f"auto is {chosen}")
        writer.say(f"data: {data['origin']}") if data and "origin" in data else None

        def measure(state: Any, split: str) -> dict[str, float]:
            return {f"{split}/{name}": value for name, value in program.evaluate(state, split).items()}

        def evaluate_further(*, evaluating: bool = False, ending: bool = False) -> dict[str, float]:
            """What the due evaluators report."""
            if not config.evaluators:
                return {}
            from s5jax.train import evaluation

            due = evaluation.due(config, step, evaluating=evaluating, ending=ending)
            if due:
                window.read()  # before anything is computed from parameters that may be NaN
            return evaluation.report(due, Context(config, task, workdir, step, program.evaluate), state)

        def ended() -> bool:
            return step >= total_steps or 0 < config.train.patience <= progress["stale"]

        if step == 0 and (reported := evaluate_further()):
            writer.write(0, {"epoch": 0.0, **reported})
        if step < total_steps:
            writer.say("compiling the training step")
        first, begin = step + 1, time.perf_counter() - progress["seconds"]
        lap, lap_step = time.perf_counter(), step  # set again after the first step
        batches_of_evaluation = len(task.splits["val"]) / config.train.batch_size

        def late() -> bool:
            """Whether `train.minutes` are nearly over, or would be after another pause like the longest. Before there
            was one, a batch of an evaluation is assumed to cost a training step."""
            seconds, now = 60 * config.train.minutes, time.perf_counter()
            pause = progress["longest_pause"] or batches_of_evaluation * (now - lap) / max(1, step - lap_step)
            return 0 < seconds < now - started + pause + min(30.0, 0.05 * seconds)

        def interrupt() -> NoReturn:
            checkpoints.wait()
            why = signal.Signals(signals[0]).name if signals else f"{config.train.minutes:g} minutes are nearly over"
            text = f"{why}: saved after step {step}; the same command goes on from there"
            raise Interrupted(signals[0] if signals else 0, text)

        order = _order(experiment, program.feeder.bucket("train"), step)
        feeds = stack.enter_context(contextlib.closing(program.feeder.feeds("train", order)))
        while not ended():
            state, metrics = program.step(state, next(feeds), step)
            step += 1
            window.add(step, metrics)
            writer.advance()
            if step == first:
                window.read()
                writer.say(f"start, import to first step: {time.perf_counter() - started:.1f} s")
                lap, lap_step = time.perf_counter(), step  # the time of training steps, without compilation

            if step % config.log.every_steps == 0:
                report = {"epoch": step / steps_per_epoch, **window.take_means()}
                report["train/lr"] = float(experiment.rates(step - 1)[-1])
                now = time.perf_counter()
                writer.report(step, report, (step - lap_step) / (now - lap))
                lap, lap_step = now, step

            evaluating = step % eval_every == 0 or step == total_steps
            saving = evaluating or (save_every and step % save_every == 0)
            if saving:
                window.read()
            pause = time.perf_counter()
            values: dict[str, float] = {}
            if evaluating:
                values = measure(state, "val")
                _check_finite(step, values)
                _judge(progress, step, values, task)
                best = "  best so far" if progress["best_step"] == step else ""
                words = in_words(values, "val", "loss", "  ")
                writer.say(f"epoch {step / steps_per_epoch:.2f}  step {step}  validation {words}{best}")
                if warning := report_unstable(config, state.evaluated["params"]):
                    writer.say(f"warning: {warning}")
            # Write before saving: a run resumed from this checkpoint would not write them.
            if reported := values | evaluate_further(evaluating=evaluating, ending=ended()):
                writer.write(step, {"epoch": step / steps_per_epoch, **reported})
            if evaluating:
                progress["longest_pause"] = max(progress["longest_pause"], time.perf_counter() - pause)
            stopping = bool(signals) or late()  # read once: a later signal is handled after the next step
            if saving or stopping:
                seconds = time.perf_counter() - begin
                writer.sync()
                checkpoints.save(state, {**progress, "window": window.read(), "seconds": seconds})
            lap += time.perf_counter() - pause
            if stopping and step < total_steps:
                interrupt()

        if step >= first and late():
            interrupt()  # the rest is evaluated by the next command
        checkpoints.wait()
        if progress["best"] is None:  # its checkpoint was damaged
            _judge(progress, step, measure(state, "val"), task)
        best_state = program.place(checkpoints.restore(progress["best_step"], state))
        result = {"steps": step, "best_step": progress["best_step"], **progress["best"], **measure(best_state, "test")}
        seconds = time.perf_counter() - begin
        workdirs.write_json(workdir / "run.json", {**run, "finished": workdirs.now(), "seconds": round(seconds, 1)})
        workdirs.write_json(workdir / "result.json", result)
        writer.summarize(result)
        judge = task.judge[0]
        best = f"the best validation {judge} ({result[f'val/{judge}']:.4f}, step {result['best_step']})"
        writer.say(f"done in {seconds:.0f} s: test {in_words(result, 'test', judge)} at {best}")
        return result


def _order(experiment: Experiment, bucket: np.ndarray | None, step: int) -> Iterator[np.ndarray]:
    """The examples of each batch from a step on: a function of the seed and the step."""
    size, train = len(experiment.task.splits["train"]), experiment.config.train
    key = random_keys(experiment.config.seed).order
    first, done = divmod(step, experiment.steps_per_epoch)
    for epoch in itertools.count(first):
        if train.carry_state:
            order, _ = batches.lanes(size, train.batch_size)
        else:
            order = batches.epoch_order(key, epoch, size, train.batch_size, bucket)
        yield from order[done if epoch == first else 0 :]


class _Window:
    """Training metrics since the last report: on the device, which is at most two steps behind, until they are read."""

    def __init__(self, sums: dict[str, list[float]]):
        self._sums = sums
        self._unread: list[tuple[int, Metrics]] = []

    def add(self, step: int, metrics: Metrics) -> None:
        jax.block_until_ready(self._unread[-1:])
        self._unread.append((step, metrics))
        if len(self._unread) == 100:
            self.read()

    def read(self) -> dict[str, list[float]]:
        """The sum and the weight of each metric so far."""
        unread, self._unread = self._unread, []
        for step, metrics in jax.device_get(unread):
            for name, (value, weight) in metrics.items():
                _check_finite(step, {f"train/{name}": float(value)})
                total, total_weight = self._sums.get(f"train/{name}", [0.0, 0.0])
                self._sums[f"train/{name}"] = [total + float(value), total_weight + float(weight)]
        return self._sums

    def take_means(self) -> dict[str, float]:
        """The mean of each metric; starts a new window."""
        sums, self._sums = self.read(), {}
        return {name: total / weight if weight else 0.0 for name, (total, weight) in sums.items()}


@contextlib.contextmanager
def _catch_signals() -> Iterator[list[int]]:
    """Records SIGTERM and SIGINT so that the loop can save first; a SIGINT after that interrupts at once."""
    received: list[int] = []
    is_main = threading.current_thread() is threading.main_thread()  # no other thread may handle signals
    previous = {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT) if is_main}

    def note(signum: int, _: Any) -> None:
        received.append(signum)
        signal.signal(signal.SIGINT, previous[signal.SIGINT])

    try:
        for signum in previous:
            signal.signal(signum, note)
        yield received
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)


def _check_finite(step: int, values: dict[str, float]) -> None:
    advice = "A lower config.optim.lr or ssm_lr, or config.optim.clip_norm=1, may help, in a new workdir."
    for name, value in values.items():
        if not math.isfinite(value):
            raise Diverged(f"step {step}: {name} is {value}. Stopped; earlier checkpoints are kept. {advice}")


def _judge(progress: dict[str, Any], step: int, values: dict[str, float], task: Task) -> None:
    """Keeps the best validation metrics by the task's metric, then by loss; counts the evaluations since."""
    name, direction = task.judge
    if not {f"val/{name}", "val/loss"} <= values.keys():
        raise UserError(f"nothing of the validation split of task {task.name} counts: all its weights are 0")
    sign = 1 if direction == "max" else -1
    new, old = ((sign * v[f"val/{name}"], -v["val/loss"]) for v in (values, progress["best"] or values))
    if progress["best"] is None or new > old:
        progress.update(best=values, best_step=step, stale=0)
    else:
        progress["stale"] += 1
