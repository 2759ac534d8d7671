"""Another machine, for tests that hold only by luck: `NLBOUND_SHAKE=3 make test`.

Every compilation of an adaptive solve starts with a step of its own, up to a tenth longer or
shorter, and has rounding errors of its own in the field, as if each ran on a processor of its own.
Two solves then agree to what their controllers promise and not further, whatever they share; calls
of one compiled program stay equal to the bit, and so do solves with fixed steps in all but the
last bits.
"""

import diffrax
import equinox as eqx
import jax
import numpy as np
from diffrax._step_size_controller import pid

STEP = 0.1
ROUNDINGS = 4.0


def start(seed):
    """From now on every trace of a solve is shaken, by numbers that follow from `seed`."""
    rng = np.random.default_rng(seed)
    first_step, field = pid._select_initial_step, diffrax.ODETerm.vf

    def shaken_step(*args, **kwargs):
        return first_step(*args, **kwargs) * (1 + STEP * rng.uniform(-1, 1))

    def shaken(value):
        if not eqx.is_inexact_array(value):
            return value
        rounding = ROUNDINGS * float(np.finfo(value.dtype).eps)
        return value * np.asarray(1 + rounding * rng.uniform(-1, 1, value.shape), value.dtype)

    def shaken_field(self, t, y, args):
        return jax.tree.map(shaken, field(self, t, y, args))

    pid._select_initial_step = shaken_step
    diffrax.ODETerm.vf = shaken_field
