"""Types used in public signatures."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PyTree

from ._words import InitKind as InitKind
from ._words import Reading as Reading

# A number or an array of numbers that takes part in broadcasting.
Numeric = ArrayLike | Sequence[float]
AnyArray = Array | np.ndarray
# What `numpy.asarray` makes an array of: data as a user holds it.
Data = Array | np.ndarray | Sequence[Any]
Weights = tuple[Float[Array, "_out _in"], ...]
WeightsOverTime = tuple[Float[Array, "times _out _in"], ...]
# Of any module: its own tree, with `None` for what is not trained.
Parameters = PyTree[Float[Array, "..."]]
ParametersOverTime = PyTree[Float[Array, "times ..."]]
