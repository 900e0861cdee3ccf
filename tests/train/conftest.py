import jax
import pytest


@pytest.fixture(autouse=True)
def optax_promotes_dtypes():
    """optax's Adam takes a Python float to an integer power, which strict promotion refuses; ours stays strict."""
    with jax.numpy_dtype_promotion("standard"):
        yield
