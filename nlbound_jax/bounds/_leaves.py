"""What the one-draw bound needs of parameters of any kind: a noise scale for each leaf, and the
information as a penalty that one can train on."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .. import _validate
from ._one_draw import check_parameters, spreads

# Of the root mean square of all parameters: a leaf that is (nearly) 0 in the anchor, such as a
# bias, may be elsewhere in the network.
_LEAST = 0.1


def leaf_scales(anchor: PyTree) -> PyTree:
    """Noise scales that the anchor determines: for each leaf its root mean square, but at least a
    tenth of that of all parameters together (1 if all are 0).

    **Arguments:**

    - `anchor`: $\\theta_U$, a PyTree such as an Equinox module. Only its floating JAX arrays
        count.

    **Returns:**

    A PyTree like `anchor` of one number for each of these arrays, in its dtype, and `None` for
    anything else: `scales` of [`one_draw_bound`][] and [`information_penalty`][].

    **Raises:**

    `ValueError` naming the argument.
    """
    anchor = eqx.filter(anchor, eqx.is_inexact_array)
    check_parameters(anchor=anchor)
    anchor = jax.tree.map(jnp.asarray, anchor)  # in a dtype that JAX has at the time
    leaves = [w.astype(float) for w in jax.tree.leaves(anchor)]
    sizes = [jnp.sqrt(jnp.mean(w**2)) if w.size else jnp.asarray(0.0) for w in leaves]
    squares = sum((jnp.sum(w**2) for w in leaves), jnp.asarray(0.0))
    least = _LEAST * jnp.sqrt(squares / max(sum(w.size for w in leaves), 1))
    least = jnp.where(least > 0, least, 1.0)
    found = iter(sizes)
    return jax.tree.map(lambda w: jnp.maximum(next(found), least).astype(w.dtype), anchor)


def information_penalty(
    parameters: PyTree, anchor: PyTree, *, scales: PyTree, num_samples: int
) -> Float[Array, ""]:
    """The price of the distance from the anchor in [`one_draw_bound`][], to be added to a training
    loss:

    $\\frac1{2n} \\|\\Sigma^{-1/2} (\\theta_W - \\theta_U)\\|^2 = \\frac1n E_z I$

    In the bound the information is divided by $\\eta n$, and a loss such as the cross-entropy is
    some times the error: a factor of about 10 before the penalty is the right order. The bound
    holds however the network was trained, as long as the draw of the certificate had no part in it.

    **Main arguments:**

    - `parameters`: $\\theta_W$, a PyTree such as an Equinox module. Only its floating JAX arrays
        count.
    - `anchor`: $\\theta_U$, of the same structure and shapes.

    **Other arguments:**

    - `scales`: $\\Sigma^{1/2}$, the noise scales of the certificate, its factor included: a
        positive number, or a PyTree prefix of the parameters with a positive number or array for
        each leaf, such as [`leaf_scales`][] times the factor.
    - `num_samples`: n, the number of samples that certify (S2).

    **Returns:**

    The penalty, differentiable, in the widest dtype of the parameters.

    **Raises:**

    `ValueError` naming the argument.
    """
    parameters = eqx.filter(parameters, eqx.is_inexact_array)
    anchor = eqx.filter(anchor, eqx.is_inexact_array)
    check_parameters(parameters=parameters, anchor=anchor)
    parameters, anchor = jax.tree.map(jnp.asarray, (parameters, anchor))
    count = _validate.integer("num_samples", num_samples, 1)
    leaves: Any = jax.tree.leaves(parameters)
    dtype = jnp.result_type(*(w.dtype for w in leaves))
    total = jnp.zeros((), dtype)
    for w, u, s in zip(leaves, jax.tree.leaves(anchor), spreads(scales, parameters), strict=True):
        moved = (w.astype(dtype) - u.astype(dtype)) / s.astype(dtype)
        total = total + jnp.sum(moved**2)
    return total / (2 * count)
