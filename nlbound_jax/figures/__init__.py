"""The figures of the paper, 1 to 9, and ours, one module each; the plots users reuse."""

from ._common import Preset as Preset
from ._common import load_data as load_data
from ._common import save_data as save_data
from ._draw import NAMES as NAMES
from ._draw import compute as compute
from ._draw import draw as draw
from ._draw import make as make
from ._draw import redraw as redraw
from ._draw import title as title
from ._heatmap import heatmap as heatmap
from ._ladder import ladder as ladder
from ._ladder import plot_ladder as plot_ladder
