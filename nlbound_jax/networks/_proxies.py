"""The proxies of the paper: functions of few parameters that stay close to a trained network."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from .. import _validate
from .._types import AnyArray, Numeric
from ._mlp import LeakyMLP, check_network, whitened


class CorrectedMLP(eqx.Module):
    """A network plus a linear function, $g(x) = f(x) + c \\cdot x$.

    **Attributes:**

    - `network`: f, a [`LeakyMLP`][].
    - `correction`: c, `(d,)`.
    """

    network: LeakyMLP
    correction: Float[Array, " d"]

    def __call__(self, x: Shaped[AnyArray, "*samples d"]) -> Float[Array, "*samples"]:
        """The output $g(x)$.

        **Arguments:**

        - `x`: whitened inputs, `(d,)` or `(samples d)`.

        **Returns:**

        The outputs, a scalar or `(samples,)`, in the dtype of the weights.

        **Raises:**

        `ValueError` if the shape does not fit or an entry is not finite.
        """
        return self.features_first(whitened(x, self.network.weights[0]).T)

    def features_first(self, x: Float[Array, "d ..."]) -> Float[Array, "..."]:
        """The output for inputs in the paper's layout, samples in columns.

        **Arguments:**

        - `x`: whitened inputs, `(d,)` or `(d samples)`, in the dtype of the weights.

        **Returns:**

        The outputs, a scalar or `(samples,)`.
        """
        return self.network.features_first(x) + self.correction @ x


def linear_proxy(linear: LeakyMLP) -> LeakyMLP:
    """$g_0 = f^0_{\\theta^0}$: the linear network itself.

    **Arguments:**

    - `linear`: a network that was trained as a linear one, $\\theta^0$.

    **Returns:**

    A [`LeakyMLP`][] with epsilon 0.

    **Raises:**

    `ValueError` if `linear` is no network or has a weight that is not finite.
    """
    check_network("linear", linear)
    return LeakyMLP(linear.weights, jnp.zeros_like(linear.epsilon))


def leaky_proxy(linear: LeakyMLP, epsilon: Numeric) -> LeakyMLP:
    """$g_1 = f^\\epsilon_{\\theta^0}$: the leaky network with the weights that the linear one has
    learned, the proxy of Theorem 5.2 for $\\kappa = 1$. The weights are functions of
    $q = Y \\tilde X^\\top / m$ alone: d numbers.

    **Arguments:**

    - `linear`: a network that was trained as a linear one, $\\theta^0$.
    - `epsilon`: one minus the negative slope, in [0, 1].

    **Returns:**

    A [`LeakyMLP`][].

    **Raises:**

    `ValueError` naming the argument.
    """
    check_network("linear", linear)
    epsilon = _validate.real("epsilon", epsilon, 0, 1).astype(linear.epsilon.dtype)
    return LeakyMLP(linear.weights, epsilon)


def corrected_proxy(
    net: LeakyMLP,
    linear: LeakyMLP,
    x: Shaped[AnyArray, "samples d"],
    *,
    inverse: Float[AnyArray, "samples d"] | None = None,
    cut: float | None = None,
) -> CorrectedMLP:
    """$g_2$, the proxy of Theorem 5.2 for $\\kappa = 2$ (Eq. 25):

    $g_2(x) = g_1(x) + \\big(f^\\epsilon_{\\theta^\\epsilon}(\\tilde X)
    - g_1(\\tilde X)\\big) \\tilde X^+ x$ with $g_1 = f^\\epsilon_{\\theta^0}$.

    Of all linear corrections it is the one with the least root mean square of $f - g_2$ over the
    inputs `x`, and of these the shortest. It has 2 d parameters.

    **Main arguments:**

    - `net`: the trained network, $f^\\epsilon_{\\theta^\\epsilon}$.
    - `linear`: a network of the same shape that was trained as a linear one, $\\theta^0$.
    - `x`: the training inputs, `(samples d)`; they need not be whitened nor of full rank.

    **Other arguments:**

    - `inverse`: $\\tilde X^+$ as `(samples d)`, if it is at hand: `x / samples` for whitened
        inputs. By default the least-squares problem is solved by a singular value decomposition.
    - `cut`: singular values below `cut` times the largest count as 0, for the default `inverse`;
        $\\max(m, d)$ units of rounding if `None`.

    **Returns:**

    A [`CorrectedMLP`][].

    **Raises:**

    `ValueError` naming the argument.
    """
    _same_shape(check_network("net", net), check_network("linear", linear))
    x = _validate.real("x", x)
    width = net.weights[0].shape[1]
    if x.ndim != 2 or x.shape[1] != width or not x.shape[0]:
        raise ValueError(f"`x` must have shape (samples, {width}), got {x.shape}.")
    proxy = LeakyMLP(linear.weights, net.epsilon)
    rest = (net(x) - proxy(x)).astype(x.dtype)
    if inverse is None:
        if cut is not None:
            cut = _validate.scalar("cut", cut, low=0, high=1, open_high=True)
        correction = jnp.linalg.lstsq(x, rest, rcond=cut)[0]
    else:
        inverse = _validate.real("inverse", inverse)
        if inverse.shape != x.shape:
            raise ValueError(f"`inverse` must have the shape of `x`, got {inverse.shape}.")
        correction = rest @ inverse
    return CorrectedMLP(proxy, correction.astype(net.weights[0].dtype))


def _same_shape(net: LeakyMLP, linear: LeakyMLP) -> None:
    shapes, others = ([w.shape for w in n.weights] for n in (net, linear))
    if shapes != others:
        raise ValueError(f"`linear` must have the weights' shapes of `net`, got {others}.")
