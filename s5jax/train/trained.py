"""Models that were trained, to use from Python."""

import codecs
import pathlib
import time
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from flax import nnx

from s5jax import mixers
from s5jax.data import language
from s5jax.data.task import Task
from s5jax.models.generate import generate
from s5jax.models.model import Model
from s5jax.train import checkpoint
from s5jax.train.build import Experiment, build, build_model, load_task
from s5jax.train.config import Config, UserError
from s5jax.train.step import TrainState
from s5jax.train.workdir import check_data, read_config, read_json

Which = Literal["best", "latest"]


class Trained(NamedTuple):
    """A checkpoint of a run, and what it belongs to."""

    config: Config
    task: Task
    model: Model
    """It has the averaged weights where the run averages them."""
    state: TrainState
    """The state in the checkpoint."""
    experiment: Experiment


class Run(NamedTuple):
    """A trained model, without its data."""

    model: Model
    """It has the averaged weights where the run averages them."""
    config: Config
    step: int
    """Steps that it was trained for."""
    facts: dict[str, Any]
    """What the run keeps of its data, see `data.task.Task`."""


def lacking(config: Config, *functions: str) -> dict[int, str]:
    """For each block whose mixer lacks one of these functions: its number, and a text that says what is missing."""
    found = {}
    for number in range(config.model.depth):
        name = config.model.pattern[number % len(config.model.pattern)]
        module = mixers.find(config.mixers[name].module)
        missing = [function for function in functions if not hasattr(module, function)]
        if missing:
            found[number] = f"{name} has no {' and no '.join(missing)}"
    return found


def load(workdir: pathlib.Path | str, which: Which = "best", data_dir: pathlib.Path | str | None = None) -> Trained:
    """The model of a run, from its best checkpoint or its newest, with its data and its state of training.

    Args:
      workdir: the run's directory.
      which: the checkpoint to read.
      data_dir: where the prepared data are, if not where they were in training.

    Raises:
      UserError: there is no run in this directory, no such checkpoint, or the data are not those it was trained on.
    """
    workdir = pathlib.Path(workdir)
    config = read_config(workdir, data_dir)
    task = load_task(config)
    data = check_data(workdir, config, task)
    experiment, start = build(config, task)
    state = jax.device_put(read(workdir, which, start, config, data))
    model = nnx.merge(experiment.graphdef, state.evaluated["params"], state.evaluated["batch_stats"])
    return Trained(config, task, model, state, experiment)


def load_run(workdir: pathlib.Path | str, which: Which = "best") -> Run:
    """The model of a run, for which its data are not needed. `load_task(run.config)` loads them.

    Args:
      workdir: the run's directory.
      which: the checkpoint to read.

    Raises UserError: there is no run in this directory, or no such checkpoint.
    """
    workdir = pathlib.Path(workdir)
    config, file = read_config(workdir), workdir / "run.json"
    described = read_json(file) if file.exists() else {}
    if "model" not in described:
        raise UserError(f"{file} is missing or of an earlier version, and the model's sizes with it: use `load`")
    graphdef, *states = nnx.split(build_model(config, **described["model"]), nnx.Param, nnx.BatchStat)
    weights = dict(zip(("params", "batch_stats"), map(nnx.to_pure_dict, states), strict=True))
    like = {"step": np.zeros((), np.int32), **({"average": weights} if config.optim.average else weights)}
    facts = read_json(workdir / "data.json") if (workdir / "data.json").exists() else {}
    found = jax.device_put(read(workdir, which, like, config, facts))
    trained = found.get("average", found)
    model = nnx.merge(graphdef, trained["params"], trained["batch_stats"])
    return Run(model, config, int(found["step"]), facts)


class LanguageModel(NamedTuple):
    """A language model of a run, without its text."""

    model: Model
    facts: dict[str, Any]
    """The facts of its task, with which `data.language` encodes and decodes text."""

    def go_on(
        self, prompts: list[str], tokens: int, *, seed: int = 0, temperature: float = 1.0, top_p: float = 1.0
    ) -> Iterator[list[str]]:
        """Continues each prompt by `tokens` tokens. Yields pieces as they are drawn, one text per prompt.

        Args:
          prompts: texts of at least one token.
          tokens: number of tokens to draw for each prompt.
          seed: seed of the random draws.
          temperature, top_p: see `models.generate.choose`.

        Raises:
          UserError: a prompt is empty.
          DataError: a prompt has a character or word that the text of training did not have.
        """
        encoded = [language.encode(prompt, self.facts) for prompt in prompts]
        if not all(map(len, encoded)):
            raise UserError("a prompt must have at least one character")
        lengths = np.array([len(ids) for ids in encoded], np.int32)
        padded = np.stack([np.pad(ids, (0, int(lengths.max()) - len(ids))) for ids in encoded])
        drawn = {"temperature": temperature, "top_p": top_p}
        return self._decoded(generate(self.model, padded, lengths, tokens, jax.random.key(seed), **drawn))

    def _decoded(self, pieces: Iterator[np.ndarray]) -> Iterator[list[str]]:
        decoders: list[Any] = []
        for piece in pieces:
            if "vocabulary" in self.facts:
                yield [language.decode(ids, self.facts) for ids in piece]
            else:  # bytes, of which a character may take several
                decoders = decoders or [codecs.getincrementaldecoder("utf-8")(errors="replace") for _ in piece]
                yield [decoder.decode(bytes(ids.tolist())) for decoder, ids in zip(decoders, piece, strict=True)]
        if decoders:  # a last character may lack its end
            yield [decoder.decode(b"", final=True) for decoder in decoders]


def load_language_model(workdir: pathlib.Path | str, which: Which = "best") -> LanguageModel:
    """A language model of a run, for which its text is not needed.

    Raises:
      UserError: there is no run in this directory, no such checkpoint, it is not a language model, or is not causal.
    """
    run = load_run(workdir, which)
    if "num_tokens" not in run.facts:
        lost = "" if run.facts else ", or its data.json was removed"
        raise UserError(f"{workdir} does not hold a language model{lost}: its task is {run.config.task.name}")
    return LanguageModel(run.model, run.facts)


def read(workdir: pathlib.Path, which: Which, like: Any, config: Config, data: dict[str, Any] | None = None) -> Any:
    """The best or the newest checkpoint of a run that another process may be training; changes nothing. For `like` see
    `checkpoint.load`; `data` is what data.json holds, where it is known.

    Raises UserError if there is none, it is damaged, or it belongs to another config or to other data.
    """
    directory, reason = workdir.absolute() / "checkpoints", ""
    seen: Any = None  # what was wrong the last time
    for _ in range(10):  # what is listed may be gone when it is read: then the run has something newer
        try:
            faults = checkpoint.faults_in(directory)
            intact = [step for step, fault in faults.items() if fault is None]
            newer = {step: fault for step, fault in faults.items() if step > max(intact, default=-1)}
            damaged = {step: fault for step, fault in newer.items() if fault != checkpoint.UNFINISHED}
            if damaged and damaged == seen:  # not just one that the run was deleting
                (step, fault), hint = (
                    max(damaged.items()),
                    "move it away to use the one before it" if intact else "there is no other",
                )
                raise UserError(f"checkpoint {directory / str(step)}, the newest, is damaged: {fault}; {hint}")
            if damaged:
                seen = damaged
                time.sleep(0.1)
                continue
            if not intact:
                break
            progress = checkpoint.progress_of(directory / str(intact[-1]), config, (data or {}).get("sha256"))
            result, file = {**progress, "steps": intact[-1]}, workdir / "result.json"
            finished = file.exists()
            result = read_json(file) if finished else result
            step = result["best_step" if which == "best" else "steps"]
            if step not in intact and finished and seen != step:  # it may have been finished meanwhile
                seen = step
                continue
            if step not in intact and finished:
                raise UserError(f"checkpoint {directory / str(step)}, the {which}, is missing or damaged")
            if step is None:
                raise UserError(f"{workdir} has not been evaluated yet, and so has no best checkpoint; take the latest")
            if step in intact:
                return checkpoint.load(directory / str(step), like)
        except UserError:
            raise
        except Exception as error:  # orbax's, tensorstore's or the file system's
            reason = f": {error}".partition("\n")[0]
            time.sleep(0.1)
    raise UserError(f"{directory} has no {which} checkpoint that can be read{reason}")
