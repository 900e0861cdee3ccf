"""Names that s4 and s4d import until they are mixers; see `diagonal` and `ptd`."""

from s5jax.ssm.diagonal import *  # noqa: F403
from s5jax.ssm.ptd import *  # noqa: F403
