"""Path-X of Long Range Arena: `pathfinder` with 128 x 128 pixels, L = 16384."""

from s5jax.data import contours, pathfinder
from s5jax.data.preparation import Plan, Request
from s5jax.data.store import Stored
from s5jax.data.task import Task

FORMAT = pathfinder.make_format("pathx", contours.PATHX.size)


def plan(request: Request) -> Plan:
    return pathfinder.make_plan(request, FORMAT, contours.PATHX)


def load(stored: Stored) -> Task:
    return pathfinder.make_task(stored, FORMAT)
