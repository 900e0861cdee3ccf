"""Weights & Biases and TensorBoard, imported where a config asks for one of them."""

import pathlib
import secrets
from typing import Any

from s5jax.train.config import Config, UserError


def start(workdir: pathlib.Path, config: Config, step: int) -> list[Any]:
    """The sinks of a run that starts or resumes at a step."""
    sinks: list[Any] = [_Wandb(workdir, config)] if config.log.wandb != "off" else []
    return [*sinks, _TensorBoard(workdir, step)] if config.log.tensorboard else sinks


class _Wandb:
    def __init__(self, workdir: pathlib.Path, config: Config):
        import wandb

        identity = workdir / "wandb_id"  # so that a resumed run goes on there too
        if not identity.exists():
            identity.write_text(secrets.token_hex(4))
        try:
            self._run = wandb.init(
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

    def write(self, step: int, metrics: dict[str, Any]) -> None:
        self._run.log(metrics, step=step)

    def summarize(self, result: dict[str, Any]) -> None:
        self._run.summary.update(result)

    def close(self, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


class _TensorBoard:
    def __init__(self, workdir: pathlib.Path, step: int):
        import tensorboardX

        self._writer = tensorboardX.SummaryWriter(str(workdir / "tensorboard"), purge_step=step + 1)

    def write(self, step: int, metrics: dict[str, Any]) -> None:
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)

    def summarize(self, result: dict[str, Any]) -> None:
        """TensorBoard shows no summary."""

    def close(self, failed: bool) -> None:
        self._writer.close()
