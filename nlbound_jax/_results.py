"""Why a result is what it is."""

import diffrax


class RESULTS(diffrax.RESULTS):
    """Diffrax's outcomes and those of a bound. A bound that cannot be given is `+inf` with the
    member that says why; `RESULTS[member]` is the sentence a user reads."""

    blow_up = (
        "t is at or past the time at which the bound on the weight norms blows up, so there is "
        "no bound; take a smaller t or beta."
    )
