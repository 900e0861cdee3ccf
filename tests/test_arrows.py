"""What may import what, as CONTRIBUTING.md says: nothing imports upwards."""

import ast
import pathlib

import pytest

PACKAGE = pathlib.Path(__file__).parents[1] / "s5jax"
ARROWS = {
    "ssm": set(),
    "data": set(),
    "mixers": {"ssm"},
    "models": {"mixers", "ssm"},
    "objectives": {"ssm"},
    "evaluators": {"mixers", "data"},
    "train": {"models", "mixers", "ssm", "objectives", "evaluators", "data"},
    "analysis": {"models", "mixers", "ssm"},
}
"""The rooms that each room may import besides itself."""


ABOVE = {"projects", "scripts", "configs", "benchmarks", "tests"}
"""What nothing in s5jax/ imports."""


def imported(source: str, package: list[str]) -> set[str]:
    """The rooms, and the folders of ABOVE, that a module of a package imports anywhere in it; "" is s5jax itself."""
    names: list[list[str]] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            start = [*above, *(node.module.split(".") if node.module else [])]
            names += [[*start, alias.name] for alias in node.names]
    rooms = {name[1] if name[1:] and (PACKAGE / name[1]).is_dir() else "" for name in names if name[0] == "s5jax"}
    return rooms | {name[0] for name in names if name[0] in ABOVE}


@pytest.mark.parametrize("room", ARROWS)
def test_a_room_imports_nothing_above_it(room):
    files = sorted((PACKAGE / room).rglob("*.py"))
    assert files
    for file in files:
        package = ["s5jax", *file.relative_to(PACKAGE).parts[:-1]]
        found = imported(file.read_text(), package) - {"", room}
        assert found <= ARROWS[room], f"{file}: {found - ARROWS[room]}"


def test_nothing_in_the_package_imports_a_project():
    for file in PACKAGE.rglob("*.py"):
        package = ["s5jax", *file.relative_to(PACKAGE).parts[:-1]]
        assert not imported(file.read_text(), package) & ABOVE, file


def test_all_rooms_are_drawn():
    assert {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"} == set(ARROWS)


@pytest.mark.parametrize(
    ("source", "rooms"),
    [
        ("import s5jax\nimport jax", {""}),
        ("from s5jax import __version__, train", {"", "train"}),
        ("import s5jax.models.model as m", {"models"}),
        ("def f():\n    from s5jax.train.loop import train", {"train"}),
        ("from projects.ptd import matrices\nimport configs.common", {"projects", "configs"}),
        (
            "from . import scan\nfrom .scan import scan\nfrom .. import data\nfrom ..mixers import s5",
            {"ssm", "data", "mixers"},
        ),
    ],
)
def test_imports_are_found(source, rooms):
    assert imported(source, ["s5jax", "ssm"]) == rooms
