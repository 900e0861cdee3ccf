"""What several tests measure with."""

import json
import pathlib

import numpy as np

REFERENCE = pathlib.Path(__file__).parent / "reference"


def relative_error(actual, expected) -> float:
    """||actual - expected|| / ||expected||, in double precision; the plain norm where expected is zero."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape, (actual.shape, expected.shape)
    norm = np.linalg.norm(expected.astype(np.complex128))
    return float(np.linalg.norm(actual.astype(np.complex128) - expected) / (norm if norm > 0 else 1))


def load_case(name: str) -> tuple[dict, dict]:
    """The description and the arrays of a recorded case, arrays under "a/b/c" nested as dicts."""
    with np.load(REFERENCE / f"{name}.npz") as file:
        flat = {key: file[key] for key in file.files}
    meta = json.loads(str(flat.pop("meta")))
    nested: dict = {}
    for path, value in flat.items():
        *parents, leaf = path.split("/")
        at = nested
        for part in parents:
            at = at.setdefault(part, {})
        at[leaf] = value
    return meta, nested
