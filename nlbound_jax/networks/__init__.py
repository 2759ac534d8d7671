"""The leaky-ReLU networks and their initialization."""

from ._conv import LeakyConv as LeakyConv
from ._conv import LinearConv as LinearConv
from ._init import initialize as initialize
from ._init_conv import initialize_conv as initialize_conv
from ._mlp import LeakyMLP as LeakyMLP
from ._mlp import check_network as check_network
from ._mlp import in_units as in_units
from ._proxies import CorrectedMLP as CorrectedMLP
from ._proxies import corrected_proxy as corrected_proxy
from ._proxies import leaky_proxy as leaky_proxy
from ._proxies import linear_proxy as linear_proxy
from ._slopes import partition as partition
from ._slopes import without_slopes as without_slopes
