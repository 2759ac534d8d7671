"""Numbers in, bounds out. Nothing here knows of data, networks or training."""

from ._theorem52 import Theorem52 as Theorem52
from ._theorem52 import theorem_5_2 as theorem_5_2
