"""The leaky-ReLU network and its initialization."""

from ._init import initialize as initialize
from ._mlp import LeakyMLP as LeakyMLP
from ._mlp import check_network as check_network
from ._mlp import in_units as in_units
from ._proxies import CorrectedMLP as CorrectedMLP
from ._proxies import corrected_proxy as corrected_proxy
from ._proxies import leaky_proxy as leaky_proxy
from ._proxies import linear_proxy as linear_proxy
