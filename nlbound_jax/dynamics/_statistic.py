"""What the reference network sees of the data, and coordinates in which it is small."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import _validate
from .._types import AnyArray, Numeric, Weights

# How far rounding may carry the norm of a target beyond that of the labels, relatively.
ROUNDING = 1e-5


class Statistic(NamedTuple):
    """What the reference network sees of the data, in coordinates of the inputs in which their
    second moment is diagonal.

    **Attributes:**

    - `target`: $\\tilde q = Y \\tilde X^\\top / m$, with $\\tilde X$ the whitened inputs.
    - `roots`: the square roots of the eigenvalues of $\\Sigma$; `None` where it is I.
    - `rest`: $(\\nu^2 - \\|\\tilde q\\|_F^2)^{1/2}$, $\\nu$ the root mean square of the labels.
    - `driver`: $\\hat q$ and $\\hat \\Sigma$ (or `None` for I) that the reference network is moved
        by in the place of these; `None` where it is moved by these.
    """

    target: Float[Array, "outputs r"]
    roots: Float[Array, " r"] | None
    rest: Float[Array, ""]
    driver: tuple[Float[Array, "outputs r"], Float[Array, "r r"] | None] | None = None

    def weigh(self, w: Float[Array, "rows r"], power: int = 1) -> Float[Array, "rows r"]:
        """$w \\Sigma^{power/2}$."""
        return w if self.roots is None else w * self.roots[None] ** power


class Coordinates(NamedTuple):
    """Orthonormal bases that a network is looked at in; `None` where it is as it was.

    **Attributes:**

    - `inputs`: of the inputs.
    - `hidden`: of the hidden layer of a network of two.
    """

    inputs: Float[Array, "d r"] | None
    hidden: Float[Array, "n k"] | None

    def restore(self, weights: tuple[Float[Array, "times _out _in"], ...]):
        """Weights over time in the coordinates that they came in; `inf` at a time where one is."""
        reached = jnp.stack([jnp.isfinite(w).all(axis=(1, 2)) for w in weights]).all(axis=0)
        reached = reached[:, None, None]
        # An infinity times 0 would be no number.
        weights = tuple(jnp.where(reached, w, 0.0) for w in weights)
        if self.hidden is not None:
            weights = (self.hidden @ weights[0], weights[1] @ self.hidden.T)
        if self.inputs is not None:
            weights = (weights[0] @ self.inputs.T, *weights[1:])
        return tuple(jnp.where(reached, w, jnp.inf) for w in weights)


def _check_moment(name: str, value: AnyArray | None, d: int) -> Float[Array, "d d"] | None:
    if value is None:
        return None
    moment = _validate.real(name, value)
    if moment.shape != (d, d):
        raise ValueError(f"`{name}` must have shape ({d}, {d}), got {moment.shape}.")
    if _validate.is_traced(moment):
        return moment
    given = np.asarray(moment)
    size = np.abs(given).max()
    if not size:
        raise ValueError(f"`{name}` must not be zero, got only zeros.")
    given = given / size
    if np.abs(given - given.T).max() > ROUNDING:
        raise ValueError(f"`{name}` must be symmetric, got a matrix that is not.")
    least = np.linalg.eigvalsh((given + given.T) / 2)[0] * size
    if least < -ROUNDING * size:
        raise ValueError(
            f"`{name}` must be positive semidefinite, got a smallest eigenvalue of {least:g}."
        )
    return moment


def check_data(
    name: str, target: AnyArray, second_moment: AnyArray | None, shape: tuple[int, int]
) -> tuple[Float[Array, "outputs d"], Float[Array, "d d"] | None]:
    """The target as a matrix, and the second moment.

    **Arguments:**

    - `name`: what the target is called, for the message.
    - `target`, `second_moment`: their values.
    - `shape`: the numbers of outputs and inputs of the network.

    **Returns:**

    The two.

    **Raises:**

    `ValueError` naming the argument.
    """
    array = _validate.real(name, target)
    outputs, d = shape
    if array.shape != shape and not (outputs == 1 and array.shape == (d,)):
        wanted = f"({d},)" if outputs == 1 else f"({outputs}, {d})"
        raise ValueError(f"`{name}` must have shape {wanted}, got {array.shape}.")
    moment = "second_moment" if name == "target" else name
    return array.reshape(shape), _check_moment(moment, second_moment, d)


def check_driver(
    driver: Any, shape: tuple[int, int]
) -> tuple[Float[Array, "outputs d"], Float[Array, "d d"] | None] | None:
    """What the reference network is moved by: a target and a second moment, or `None`."""
    if driver is None:
        return None
    if not isinstance(driver, tuple) or len(driver) != 2:
        raise ValueError(
            "`driver` must be a target and a second moment (or None for the identity), got "
            f"{_validate.shown(driver)}."
        )
    return check_data("driver", *driver, shape)


def _basis(rows: Float[Array, "k d"]) -> Float[Array, "d r"] | None:
    """An orthonormal basis of the span of the rows; `None` where it is the whole space."""
    count, d = rows.shape
    if _validate.is_traced(rows):  # the rank would be a shape
        return jnp.linalg.qr(rows.T)[0] if count < d else None
    # Each row by itself at unit length: q and the small weights count alike.
    sizes = jnp.linalg.norm(rows, axis=1, keepdims=True)
    _, values, axes = jnp.linalg.svd(rows / jnp.where(sizes > 0, sizes, 1), full_matrices=False)
    rank = max(1, int(jnp.sum(values > 1e-13 * values[0])))
    return axes[:rank].T if rank < d else None


def _turned(driver, inputs: Float[Array, "d r"], white: bool):
    """What V is moved by, in coordinates of the inputs."""
    target, moment = driver
    if moment is None:
        moment = None if white else jnp.eye(inputs.shape[1], dtype=inputs.dtype)
    else:
        moment = inputs.T @ moment @ inputs
    return target @ inputs, moment


def reduce_coordinates(
    weights: Weights,
    target: Float[Array, "outputs d"],
    second_moment: Float[Array, "d d"] | None = None,
    label_size: Numeric = 1.0,
    driver: tuple[Float[Array, "outputs d"], Float[Array, "d d"] | None] | None = None,
) -> tuple[Weights, Statistic, Coordinates]:
    """V and what it sees of the data, in orthonormal bases of subspaces that training never leaves,
    which changes no norm.

    Inputs: the span of the rows of $V_1(0)$ and of q or, where a second moment is given, its
    eigenvectors. The hidden layer at L = 2: the span of the columns of $V_1(0)$ and of the rows of
    $V_2(0)$. For rank-one initialization and whitened data $V_1$ is then 2 x 2.

    **Arguments:**

    - `weights`: the weights at the start.
    - `target`: $q = Y X^\\top / m$.
    - `second_moment`: $\\Sigma = X X^\\top / m$; the identity if `None`.
    - `label_size`: $\\nu$.
    - `driver`: $\\hat q$ and $\\hat \\Sigma$, if V is moved by others.

    **Returns:**

    The weights, a [`Statistic`][] and the [`Coordinates`][].
    """
    first, *rest = weights
    roots = None
    if second_moment is None and driver is not None and driver[1] is not None:
        inputs = None
    elif second_moment is None:
        rows = [first, target] if driver is None else [first, target, driver[0]]
        inputs = _basis(jnp.concatenate(rows))
    else:
        values, inputs = jnp.linalg.eigh((second_moment + second_moment.T) / 2)
        # Eigenvalues at rounding level are those of directions in which there are no inputs.
        least = len(values) * jnp.finfo(values.dtype).eps * values[-1]
        roots = jnp.sqrt(jnp.where(values > least, values, 0.0))
    if inputs is not None:
        first, target = first @ inputs, target @ inputs
        if driver is not None:
            driver = _turned(driver, inputs, second_moment is None)
    if roots is not None:
        seen = roots[None] > 0
        target = jnp.where(seen, target / jnp.where(seen, roots[None], 1.0), 0.0)
    hidden = _basis(jnp.concatenate([first.T, rest[0]])) if len(rest) == 1 else None
    if hidden is not None:
        first, rest = hidden.T @ first, [rest[0] @ hidden]
    unseen = jnp.asarray(label_size, target.dtype) ** 2 - jnp.sum(target**2)
    statistic = Statistic(target, roots, jnp.sqrt(jnp.maximum(unseen, 0.0)), driver)
    return (first, *rest), statistic, Coordinates(inputs, hidden)


def check_label_size(label_size: Float[Array, ""], statistic: Statistic) -> None:
    """Raise where the target is larger than that of any labels of this size can be."""
    if _validate.is_traced(statistic.target) or _validate.is_traced(label_size):
        return
    seen = float(jnp.linalg.norm(statistic.target))
    if seen > float(label_size) * (1 + ROUNDING):
        raise ValueError(
            f"`label_size` must be at least {seen:.6g}, the norm of the whitened target, got "
            f"{float(label_size):g}; it is the root mean square of the labels."
        )
