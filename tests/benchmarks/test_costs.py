"""What the training steps of the four S5 recipes cost, as far as no clock is needed to tell, against what it was.

After a change that is meant to cost more, or one that saves something worth keeping,

    .venv/bin/python -m pytest -m slow tests/benchmarks/test_costs.py --record-costs

writes tests/reference/costs.json anew for the version of jax that runs it.
"""

import json

import jax
import numerics
import pytest
from jax.extend import core

from benchmarks import cases, hlo, measure

FILE = numerics.REFERENCE / "costs.json"
ROOM = 1.05
"""A number may be so many times what was recorded."""


def equations(jaxpr):
    return sum(1 + sum(map(equations, core.jaxprs_in_params(e.params))) for e in jaxpr.eqns)


def costs(name):
    case = cases.build(name, 4)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):  # the optimizer's
        side = cases.ours(case)
        traced = jax.jit(side.train, donate_argnums=0).trace(side.state, side.batch)
    compiled = traced.lower().compile()
    text, analysis = compiled.as_text(), compiled.cost_analysis()
    return {
        "FLOPs of the products": measure.product_flops(traced.jaxpr.jaxpr),
        "bytes read and written": hlo.moved_bytes(text),
        "FLOPs, every loop's body once": analysis["flops"],
        "bytes, every loop's body once": analysis["bytes accessed"],
        "bytes of scratch memory": compiled.memory_analysis().temp_size_in_bytes,
        "while loops": hlo.count(text, "while"),
        "fusions": hlo.count(text, "fusion"),
        "equations of the jaxpr": equations(traced.jaxpr.jaxpr),
    }


def excess(now, before):
    """What has become more than `ROOM` allows."""
    return [f"{name}: {now[name]:,.0f}, was {value:,.0f}" for name, value in before.items() if now[name] > ROOM * value]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["image", "text", "pathfinder", "listops"])
def test_a_training_step_costs_no_more_than_it_did(name, request):
    now = costs(name)
    recorded = json.loads(FILE.read_text()) if FILE.exists() else {}
    if request.config.getoption("--record-costs"):
        recorded.setdefault(jax.__version__, {})[name] = now
        FILE.write_text(json.dumps(recorded, indent=1, sort_keys=True) + "\n")
    before = recorded.get(jax.__version__, {}).get(name)
    assert before, f"{FILE.name} has no numbers of {name} and jax {jax.__version__}: --record-costs"
    assert before.keys() == now.keys()
    more = excess(now, before)
    assert not more, f"{name} costs more: {'; '.join(more)}. If that is meant: pytest -m slow {__file__} --record-costs"


def test_what_has_become_more_is_told():
    assert excess({"fusions": 106, "bytes": 104.0}, {"fusions": 100, "bytes": 100.0}) == ["fusions: 106, was 100"]
