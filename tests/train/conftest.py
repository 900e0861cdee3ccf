import jax
import pytest
import tiny


@pytest.fixture(autouse=True)
def optax_promotes_dtypes():
    """optax's Adam takes a Python float to an integer power, which strict promotion refuses; ours stays strict."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture
def without_model(monkeypatch):
    """Runs whose steps and evaluations are those of `tiny`: for tests of the loop around them."""
    monkeypatch.setattr("s5jax.train.program.train_step", tiny.train_step)
    monkeypatch.setattr("s5jax.train.program.eval_step", tiny.eval_step)
