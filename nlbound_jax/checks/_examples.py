"""All counterexamples."""

from ._counterexamples import (
    Counterexample,
    assumption_5_1,
    conjecture_e_1,
    lost_rho,
    moving_kink,
)
from ._finite_steps import naive_envelope, rising_loss


def counterexamples() -> tuple[Counterexample, ...]:
    """[`lost_rho`][], [`moving_kink`][], [`assumption_5_1`][], [`conjecture_e_1`][], and on finite
    steps [`rising_loss`][] and [`naive_envelope`][].

    **Returns:**

    A tuple of [`Counterexample`][]s, none of which `holds`.
    """
    return (
        *(lost_rho(), moving_kink(), assumption_5_1(), conjecture_e_1()),
        *(rising_loss(), naive_envelope()),
    )
