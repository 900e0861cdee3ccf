"""Strict numerics, checked shapes, and eight CPU devices; set before jax starts."""

import os
import pathlib
import tempfile

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # threads of tests that run side by side wait for each other
os.environ["JAX_NUM_CPU_DEVICES"] = "8"
# What is compiled twice is compiled once. One cache a process: jax does not write its files at once.
compilation_cache = tempfile.TemporaryDirectory()
os.environ["JAX_COMPILATION_CACHE_DIR"] = compilation_cache.name
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

import jax
import pytest
from jaxtyping import install_import_hook

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")

install_import_hook(["s5jax", "projects"], "beartype.beartype")

TESTS = pathlib.Path(__file__).parent
QUICK = ("analysis", "benchmarks", "data")


def pytest_addoption(parser):
    parser.addoption("--record-costs", action="store_true", help="write down what the recipes' steps cost now")


def pytest_collection_modifyitems(items):
    """Quick files come last, so that no process waits long for the others."""
    items.sort(key=lambda item: item.path.relative_to(TESTS).parts[0] in QUICK)


@pytest.fixture(autouse=True)
def bounded_memory_maps():
    """Frees compiled programs in time: each takes memory maps, and XLA crashes at Linux' limit of 65,530."""
    yield
    maps = pathlib.Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > 40_000:
        jax.clear_caches()
