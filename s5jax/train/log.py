"""Where metrics go: the console and metrics.jsonl always, Weights & Biases and TensorBoard when the config asks."""

import json
import os
import pathlib
import sys
from typing import Any

import tqdm

from s5jax.train.config import Config, UserError

__all__ = ["Writer", "in_words"]


class Writer:
    """Writes to all sinks, as a context manager, from the step on that the run starts or resumes at.

    Metrics of later steps, which a killed run may have left, are taken out of metrics.jsonl: they come again.
    """

    def __init__(self, workdir: pathlib.Path, config: Config, step: int, total_steps: int):
        self._file = _reopen(workdir / "metrics.jsonl", step)
        self.is_terminal = sys.stderr.isatty()
        bar: dict[str, Any] = {"unit": "step", "dynamic_ncols": True, "smoothing": 0.1}
        self._bar = tqdm.tqdm(total=total_steps, initial=step, disable=not self.is_terminal, **bar)
        self._sinks: list[Any] = []
        if config.log.tensorboard or config.log.wandb != "off":
            from s5jax.train import sinks

            self._sinks = sinks.start(workdir, config, step)

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, exception_type: type[BaseException] | None, *_: object) -> None:
        self._bar.close()
        self._file.close()
        for sink in self._sinks:
            sink.close(failed=exception_type is not None)

    def advance(self, steps: int) -> None:
        """So many more steps are done."""
        self._bar.update(steps)

    def say(self, line: str) -> None:
        """A line on standard output, above the progress bar where there is one."""
        with tqdm.tqdm.external_write_mode():
            print(line, flush=True)

    def write(self, step: int, metrics: dict[str, Any], timing: dict[str, float] | None = None) -> None:
        """Metrics after a number of steps.

        Those in metrics.jsonl are a pure function of the config; `timing`, which depends on the machine, is for the
        other sinks.
        """
        print(json.dumps({"step": step, **metrics}), file=self._file, flush=True)
        if "train/loss" in metrics:
            self._bar.set_postfix(loss=f"{metrics['train/loss']:.4f}", refresh=False)
        for sink in self._sinks:
            sink.write(step, {**metrics, **(timing or {})})

    def summarize(self, result: dict[str, Any]) -> None:
        """The final result, for the sinks that show one."""
        for sink in self._sinks:
            sink.summarize(result)


def _reopen(path: pathlib.Path, step: int) -> Any:
    """Opens the file to append, keeping the lines up to a step."""
    kept = []
    for line in path.read_text().splitlines(keepends=True) if path.exists() else []:
        try:  # a killed process may have left half a line, only ever as the last one
            if line.endswith("\n") and json.loads(line)["step"] <= step:
                kept.append(line)
        except ValueError as error:
            raise UserError(f"{path} has a line that is no JSON: {line.strip()[:60]!r}") from error
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text("".join(kept))
    os.replace(temporary, path)
    return path.open("a")


def in_words(values: dict[str, Any], split: str, first: str, between: str = ", ") -> str:
    """Metrics of a split, one of them first: "accuracy 0.9861, loss 0.0513"."""
    names = [name.removeprefix(f"{split}/") for name in values if name.startswith(f"{split}/")]
    return between.join(f"{name} {values[f'{split}/{name}']:.4f}" for name in sorted(names, key=lambda n: n != first))
