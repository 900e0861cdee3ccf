"""Path-X of Long Range Arena: `pathfinder` with 128 x 128 pixels, L = 16384."""

from s5jax.data.generators import contours
from s5jax.data.prepare import Plan, Request
from s5jax.data.store import Stored
from s5jax.data.task import Task
from s5jax.data.tasks import pathfinder

FORMAT = pathfinder.make_format("pathx", contours.PATHX.size)


def plan(request: Request) -> Plan:
    """Reads the official files or generates images; see `pathfinder.make_plan`."""
    return pathfinder.make_plan(request, FORMAT, contours.PATHX)


def load(stored: Stored) -> Task:
    """The task from its store."""
    return pathfinder.make_task(stored, FORMAT)
