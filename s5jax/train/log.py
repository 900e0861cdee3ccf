"""Where metrics go: the console and metrics.jsonl always, Weights & Biases and TensorBoard when the config asks."""

import json
import os
import pathlib
import secrets
import sys
from typing import Any

import tqdm

from s5jax.train.config import Config, UserError

__all__ = ["Writer"]


class Writer:
    """Writes to all sinks. Use as a context manager.

    Args:
      workdir: of the run.
      config: of the run.
      step: the step that the run starts or resumes at. Metrics of later steps, which a killed run may have left, are
        taken out of metrics.jsonl: they will be computed again.
      total_steps: of the run, for the progress bar.
    """

    def __init__(self, workdir: pathlib.Path, config: Config, step: int, total_steps: int):
        self._file = _reopen(workdir / "metrics.jsonl", step)
        self.is_terminal = sys.stderr.isatty()
        self._bar = tqdm.tqdm(
            total=total_steps,
            initial=step,
            unit="step",
            disable=not self.is_terminal,
            dynamic_ncols=True,
            smoothing=0.1,
        )
        self._wandb = _start_wandb(workdir, config) if config.log.wandb != "off" else None
        self._tensorboard: Any = None
        if config.log.tensorboard:
            import tensorboardX

            self._tensorboard = tensorboardX.SummaryWriter(str(workdir / "tensorboard"), purge_step=step + 1)

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, exception_type: type[BaseException] | None, *_: object) -> None:
        self._bar.close()
        self._file.close()
        if self._wandb is not None:
            self._wandb.finish(exit_code=0 if exception_type is None else 1)
        if self._tensorboard is not None:
            self._tensorboard.close()

    def advance(self, steps: int) -> None:
        """So many more steps are done."""
        self._bar.update(steps)

    def say(self, line: str) -> None:
        """A line on standard output, above the progress bar where there is one."""
        with tqdm.tqdm.external_write_mode():
            print(line, flush=True)

    def write(self, step: int, metrics: dict[str, Any], timing: dict[str, float] | None = None) -> None:
        """Metrics of a step.

        Args:
          step: number of steps done.
          metrics: by name; a pure function of the config, and thus all that metrics.jsonl takes.
          timing: what depends on the machine; for the other sinks.
        """
        print(json.dumps({"step": step, **metrics}), file=self._file, flush=True)
        if "train/loss" in metrics:
            self._bar.set_postfix(loss=f"{metrics['train/loss']:.4f}", refresh=False)
        everything = {**metrics, **(timing or {})}
        if self._wandb is not None:
            self._wandb.log(everything, step=step)
        if self._tensorboard is not None:
            for name, value in everything.items():
                self._tensorboard.add_scalar(name, value, step)

    def summarize(self, result: dict[str, Any]) -> None:
        """The final result, for the sinks that show one."""
        if self._wandb is not None:
            self._wandb.summary.update(result)


def _reopen(path: pathlib.Path, step: int) -> Any:
    """Opens the file to append, keeping the lines up to a step."""
    kept = []
    if path.exists():
        for line in path.read_text().splitlines(keepends=True):
            # A killed process may have left half a line, only ever as the last one.
            try:
                if line.endswith("\n") and json.loads(line)["step"] <= step:
                    kept.append(line)
            except ValueError as error:
                raise UserError(f"{path} has a line that is no JSON: {line.strip()[:60]!r}") from error
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text("".join(kept))
    os.replace(temporary, path)
    return path.open("a")


def _start_wandb(workdir: pathlib.Path, config: Config) -> Any:
    import wandb

    identity = workdir / "wandb_id"  # so that a resumed run goes on there too
    if not identity.exists():
        identity.write_text(secrets.token_hex(4))
    try:
        return wandb.init(
            id=identity.read_text(),
            resume="allow",
            project=config.log.wandb_project,
            name=workdir.name,
            dir=workdir,
            mode=config.log.wandb,  # type: ignore[arg-type]
            config=config.to_dict(),
            settings=wandb.Settings(silent=True),
        )
    except wandb.errors.Error as error:
        raise UserError(f"config.log.wandb={config.log.wandb}: {error}") from error
