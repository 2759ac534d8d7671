"""The leaky-ReLU network and its initialization."""

from ._init import initialize as initialize
from ._mlp import LeakyMLP as LeakyMLP
