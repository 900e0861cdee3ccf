"""Where metrics go: the console and metrics.jsonl always, Weights & Biases and TensorBoard when the config asks."""

import contextlib
import datetime
import json
import pathlib
import sys
from typing import Any, TextIO

import tqdm

from s5jax.data import files
from s5jax.train.config import Config, Interrupted, UserError


class Writer(contextlib.AbstractContextManager["Writer"]):
    """A context manager that writes to all sinks, from the step at which the run starts or resumes.

    Metrics of later steps, which a killed run may have left, are removed from metrics.jsonl; they will be written
    again.
    """

    def __init__(self, workdir: pathlib.Path, config: Config, step: int, total_steps: int):
        self._file = _reopen(workdir / "metrics.jsonl", step)
        self._total_steps, shown = total_steps, sys.stderr.isatty()
        self._bar = tqdm.tqdm(total=total_steps, initial=step, unit="step", dynamic_ncols=True, disable=not shown)
        self._sinks: list[Any] = []
        if config.log.tensorboard or config.log.wandb != "off":
            from s5jax.train import sinks

            self._sinks = sinks.start(workdir, config, step)

    def __exit__(self, exception_type: type[BaseException] | None, *_: object) -> None:
        self._bar.close()
        with contextlib.suppress(OSError):  # each write was flushed, or raised this error already
            self._file.close()
        for sink in self._sinks:
            sink.close(failed=not (exception_type is None or issubclass(exception_type, Interrupted)))

    def advance(self) -> None:
        """One more step is done."""
        self._bar.update()

    def say(self, line: str) -> None:
        """A line on standard output, above the progress bar where there is one."""
        with tqdm.tqdm.external_write_mode():
            print(line, flush=True)

    def write(self, step: int, metrics: dict[str, Any], **timing: float) -> None:
        """Metrics after a number of steps; `timing`, which depends on the machine, goes to all but metrics.jsonl."""
        try:
            print(json.dumps({"step": step, **metrics}), file=self._file, flush=True)
        except OSError as error:
            raise OSError(error.errno, error.strerror, self._file.name) from error
        for sink in self._sinks:
            sink.write(step, metrics | timing)

    def report(self, step: int, metrics: dict[str, float], speed: float) -> None:
        """Writes metrics of training and shows them; `speed` is in steps per second, 0 if it is not known."""
        self.write(step, metrics, **({"steps_per_second": speed} if speed else {}))
        self._bar.set_postfix(loss=f"{metrics['train/loss']:.4f}", refresh=False)
        if self._bar.disable:
            shown = {name: value for name, value in metrics.items() if name not in ("train/grad_norm", "train/lr")}
            words = f"epoch {metrics['epoch']:.2f}  {in_words(shown, 'train', 'loss', '  ')}"
            left = datetime.timedelta(seconds=round((self._total_steps - step) / speed)) if speed else None
            pace = f"  {speed:.1f} steps/s  {left} left" if speed else ""
            self.say(f"step {step}/{self._total_steps}  {words}{pace}")

    def sync(self) -> None:
        """Waits until all that was written to metrics.jsonl is on disk."""
        files.sync(pathlib.Path(self._file.name))

    def summarize(self, result: dict[str, Any]) -> None:
        """The final result, for the sinks that show one."""
        for sink in self._sinks:
            sink.summarize(result)


def _reopen(path: pathlib.Path, step: int) -> TextIO:
    """Opens the file to append, keeping the lines up to a step (none at step 0)."""
    lines = path.read_text().splitlines(keepends=True) if step and path.exists() else []
    whole = [line for line in lines if line.endswith("\n")]  # a killed process may have left half a line
    kept = []
    for number, line in enumerate(whole, 1):
        try:
            kept += [line] if json.loads(line)["step"] <= step else []
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: line {number} is not a report of metrics: delete it") from error
    files.replace(path, "".join(kept))
    return path.open("a")


def in_words(values: dict[str, Any], split: str, first: str, between: str = ", ") -> str:
    """Metrics of a split, one of them first: "accuracy 0.9861, loss 0.0513"."""
    names = [name.removeprefix(f"{split}/") for name in values if name.startswith(f"{split}/")]
    return between.join(f"{name} {values[f'{split}/{name}']:.4f}" for name in sorted(names, key=lambda n: n != first))
