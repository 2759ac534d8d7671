"""Many reports over named axes, devices and processes: one labelled array, filled in pieces."""

from ._config import SweepConfig as SweepConfig
from ._layout import parse_shard as parse_shard
from ._progress import SweepProgress as SweepProgress
from ._progress import SweepStatus as SweepStatus
from ._progress import sweep_status as sweep_status
from ._sweep import sweep as sweep
