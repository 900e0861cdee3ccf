import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from numerics import relative_error

from s5jax.training import loop
from s5jax.training.config import UserError
from s5jax.training.trained import load


def test_the_model_of_a_run_in_python(tmp_path):
    result = loop.train(tiny.config("--config.ssm.bidirectional=false", "--config.train.epochs=2"), tmp_path)
    config, task, model, state, start = load(str(tmp_path))
    assert config.ssm.name == "s5" and int(state.step) == result["best_step"] and int(start.step) == 0
    inputs = task.prepare(jnp.asarray(task.splits["test"].inputs))
    logits = model(inputs)
    accuracy = np.mean(np.argmax(logits, -1) == task.splits["test"].labels)
    assert accuracy == pytest.approx(result["test/accuracy"], abs=1e-6)
    carried, _ = model.prefill(model.initial_state(len(inputs)), inputs[:, :63])
    assert relative_error(model.step(carried, inputs[:, 63])[1], logits) < 1e-5
    with pytest.raises(UserError, match="no run's directory"):
        load(tmp_path / "none")
