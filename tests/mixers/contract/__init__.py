"""The cases of the mixers' contract: for each mixer a file of its name, found by that name, with

    CASES                     {"name of the case": Case(...)}
    system(params, options)   the same function in float64 NumPy; has `run_batch`, see `dense.System`

`dense.derivative` asks `system` for derivatives by an imaginary step: parameters and inputs come as complex arrays, and
no formula may conjugate, take a real part or branch on a sign. Complex parameters are computed with as pairs.
"""

import dataclasses
import importlib
import pathlib
from types import ModuleType


@dataclasses.dataclass(frozen=True)
class Case:
    options: dict = dataclasses.field(default_factory=dict)
    main: bool = False  # takes part in every test of the everyday suite; other cases in a few of them
    values: float = 1e-5
    """Tolerance of outputs in float32. 1e-4 for DSS, whose modes cancel in their sum: it is a thousandth of a term."""
    gradients: float = 1e-4
    linear: bool = False
    """`system` gives a `dense.System`: the state is complex, (B, ..., N), and D is a parameter."""
    causal: dict | None = None
    """Options to change for a causal mixer, if the case looks ahead for another reason than `bidirectional` or
    `causal`."""
    looks_ahead: bool = False
    """Outputs depend on later inputs whatever the options say: there is no recurrent mode."""
    mixer: str = ""


FILES: dict[str, ModuleType] = {
    path.stem: importlib.import_module(f"contract.{path.stem}")
    for path in sorted(pathlib.Path(__file__).parent.glob("[!_]*.py"))
}
CASES = {
    name: dataclasses.replace(case, mixer=mixer) for mixer, file in FILES.items() for name, case in file.CASES.items()
}
