"""Numbers in, bounds out. Nothing here knows of data, networks or training."""

from ._certified import CertifiedTheorem52 as CertifiedTheorem52
from ._certified import Enclosure as Enclosure
from ._certified import certified_theorem_5_2 as certified_theorem_5_2
from ._gamma import upper_incomplete_gamma as upper_incomplete_gamma
from ._grid import best_over as best_over
from ._grid import grid as grid
from ._held_out import HeldOutWhitening as HeldOutWhitening
from ._held_out import held_out_whitening as held_out_whitening
from ._kl import kl_inverse as kl_inverse
from ._limits import small_beta_deviation as small_beta_deviation
from ._noise_ball import mean_absolute_noise as mean_absolute_noise
from ._noise_ball import smoothed_ramp as smoothed_ramp
from ._optimistic import OptimisticBound as OptimisticBound
from ._optimistic import optimistic_bound as optimistic_bound
from ._split import SplitBound as SplitBound
from ._split import split_bound as split_bound
from ._split_grid import SplitGrid as SplitGrid
from ._split_norms import LinearMetric as LinearMetric
from ._split_norms import linear_metric as linear_metric
from ._split_norms import linear_part as linear_part
from ._split_norms import norms_nearby as norms_nearby
from ._split_norms import path_norms as path_norms
from ._theorem52 import Theorem52 as Theorem52
from ._theorem52 import theorem_5_2 as theorem_5_2
from ._trajectory import TrajectoryBound as TrajectoryBound
from ._trajectory import trajectory_bound as trajectory_bound
