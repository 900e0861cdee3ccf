"""Path-X of Long Range Arena: `pathfinder` with 128 x 128 pixels, L = 16384."""

import functools

from s5jax.data.generators import contours
from s5jax.data.tasks import pathfinder

FORMAT = pathfinder.make_format("pathx", contours.PATHX.size)
plan = functools.partial(pathfinder.make_plan, FORMAT, contours.PATHX)
load = functools.partial(pathfinder.make_task, FORMAT)
