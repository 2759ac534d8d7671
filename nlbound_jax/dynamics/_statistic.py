"""What the reference network sees of the data, and coordinates in which it is small."""

from typing import NamedTuple

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
    """

    target: Float[Array, "outputs r"]
    roots: Float[Array, " r"] | None
    rest: Float[Array, ""]

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
        """Weights over time in the coordinates that they came in."""
        if self.hidden is not None:
            weights = (self.hidden @ weights[0], weights[1] @ self.hidden.T)
        if self.inputs is not None:
            weights = (weights[0] @ self.inputs.T, *weights[1:])
        return weights


def check_target(
    net_shape: tuple[int, int], target: AnyArray, second_moment: AnyArray | None
) -> tuple[Float[Array, "outputs d"], Float[Array, "d d"] | None, bool]:
    """The target as a matrix, the second moment, and whether the target came as a vector."""
    target = _validate.real("target", target)
    outputs, d = net_shape
    single = target.shape == (d,)
    if not (single and outputs == 1) and target.shape != (outputs, d):
        wanted = f"({d},) or (1, {d})" if outputs == 1 else f"({outputs}, {d})"
        raise ValueError(f"`target` must have shape {wanted}, got {target.shape}.")
    if second_moment is not None:
        second_moment = _validate.real("second_moment", second_moment)
        if second_moment.shape != (d, d):
            raise ValueError(
                f"`second_moment` must have shape ({d}, {d}), got {second_moment.shape}."
            )
        if not _validate.is_traced(second_moment):
            given = np.asarray(second_moment)
            size = np.abs(given).max()
            if np.abs(given - given.T).max() > ROUNDING * size:
                raise ValueError("`second_moment` must be symmetric, got a matrix that is not.")
            least = np.linalg.eigvalsh(given / (size or 1.0))[0] * size
            if least < -ROUNDING * size or not size:
                raise ValueError(
                    "`second_moment` must be positive semidefinite and not zero, got a smallest "
                    f"eigenvalue of {least:g}."
                )
    return target.reshape(outputs, d), second_moment, single


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


def reduce_coordinates(
    weights: Weights,
    target: Float[Array, "outputs d"],
    second_moment: Float[Array, "d d"] | None = None,
    label_size: Numeric = 1.0,
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

    **Returns:**

    The weights, a [`Statistic`][] and the [`Coordinates`][].
    """
    first, *rest = weights
    roots = None
    if second_moment is None:
        inputs = _basis(jnp.concatenate([first, target]))
    else:
        values, inputs = jnp.linalg.eigh((second_moment + second_moment.T) / 2)
        # Eigenvalues at rounding level are those of directions in which there are no inputs.
        least = len(values) * jnp.finfo(values.dtype).eps * values[-1]
        roots = jnp.sqrt(jnp.where(values > least, values, 0.0))
    if inputs is not None:
        first, target = first @ inputs, target @ inputs
    if roots is not None:
        target = jnp.where(roots > 0, target / jnp.where(roots > 0, roots, 1.0), 0.0)
    hidden = _basis(jnp.concatenate([first.T, rest[0]])) if len(rest) == 1 else None
    if hidden is not None:
        first, rest = hidden.T @ first, [rest[0] @ hidden]
    unseen = jnp.asarray(label_size, target.dtype) ** 2 - jnp.sum(target**2)
    statistic = Statistic(target, roots, jnp.sqrt(jnp.maximum(unseen, 0.0)))
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
