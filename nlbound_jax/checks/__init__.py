"""Every inequality of the proofs as measured, bound and slack along a run, and data for which
statements of the paper fail."""

from ._check import Check as Check
from ._check import Checks as Checks
from ._counterexamples import Counterexample as Counterexample
from ._counterexamples import assumption_5_1 as assumption_5_1
from ._counterexamples import conjecture_e_1 as conjecture_e_1
from ._counterexamples import lost_rho as lost_rho
from ._counterexamples import moving_kink as moving_kink
from ._envelope import deviations as deviations
from ._envelope import envelope as envelope
from ._envelope import split_norms as split_norms
from ._evaluate import claimed_names as claimed_names
from ._evaluate import evaluate as evaluate
from ._examples import counterexamples as counterexamples
from ._finite_steps import naive_envelope as naive_envelope
from ._finite_steps import rising_loss as rising_loss
from ._measure import Measured as Measured
from ._measure import Sides as Sides
from ._measure import measure as measure
from ._plot import plot_slack as plot_slack
from ._theorem import gradient_alignment as gradient_alignment
from ._theorem import proxy_deviation as proxy_deviation
from ._theorem import residuals as residuals
from ._theorem import slope_dependence as slope_dependence
from ._theorem import weight_norms as weight_norms
