"""One module a figure of the paper, 1 to 9 (not yet), and the plots users reuse."""

from ._ladder import ladder as ladder
from ._ladder import plot_ladder as plot_ladder
