import runpy
import sys

import jax
import pytest
import tiny


@pytest.fixture
def call(monkeypatch, capsys):
    """Runs a command of the project in this process; its exit status, output and errors."""

    def run(command, *arguments):
        monkeypatch.chdir(tiny.ROOT)
        monkeypatch.setattr(sys, "argv", [command, *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as status, jax.numpy_dtype_promotion("standard"):
            runpy.run_path(f"projects/hope/{command}", run_name="__main__")
        return status.value.code, *capsys.readouterr()

    return run
