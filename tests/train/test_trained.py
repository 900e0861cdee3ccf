import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from numerics import relative_error

from s5jax.train import loop
from s5jax.train.config import UserError
from s5jax.train.trained import load


def test_the_model_of_a_run_in_python(tmp_path):
    result = loop.train(tiny.config("--config.mixers.s5.bidirectional=false", "--config.train.epochs=2"), tmp_path)
    config, task, model, state, start, _ = load(str(tmp_path))
    assert config.model.pattern == ("s5",) and int(state.step) == result["best_step"] and int(start.step) == 0
    inputs = task.prepare(jnp.asarray(task.splits["test"].inputs))
    logits = model(inputs)
    accuracy = np.mean(np.argmax(logits, -1) == task.splits["test"].labels)
    assert accuracy == pytest.approx(result["test/accuracy"], abs=1e-6)
    _, carried = model.prefill(model.init_state(len(inputs)), inputs[:, :63])
    assert relative_error(model.step(carried, inputs[:, 63])[0], logits) < 1e-5
    with pytest.raises(UserError, match="not a run's directory"):
        load(tmp_path / "none")
