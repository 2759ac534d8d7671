"""The optimistic bound: Eq. 41 with its expectations estimated on a test set."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from .. import _validate
from .._types import AnyArray, Numeric

# What an optimistic bound is, as `OptimisticBound.label` says it.
OPTIMISTIC = "estimate from test data, not a certificate"

_Margins = Float[Array, "*margins"]
_Scalar = Float[Array, ""]


class OptimisticBound(eqx.Module):
    """Eq. 41, term by term: an estimate from test data, **not a certificate**.

    **Attributes:**

    - `train_margin_risk`: $\\hat R_\\gamma[f]$, the fraction of training samples with
        $y f < \\gamma$, of the shape of `gamma`.
    - `proxy_train_ramp`, `proxy_test_ramp`: $\\hat R^C_\\gamma[g]$ and the test-set estimate of
        $R^C_\\gamma[g]$, of the shape of `gamma`.
    - `gap`: their difference, test minus train; it may be negative.
    - `train_deviation`, `test_deviation`: the means of $|f - g|$, scalars in units of the output.
    - `deviation`: their sum over gamma, of the shape of `gamma`.
    - `value`: `train_margin_risk + gap + deviation`, not capped at 1.
    - `label`: what `value` is, in words.
    """

    train_margin_risk: _Margins
    proxy_train_ramp: _Margins
    proxy_test_ramp: _Margins
    gap: _Margins
    train_deviation: _Scalar
    test_deviation: _Scalar
    deviation: _Margins
    value: _Margins
    label: str = eqx.field(static=True, default=OPTIMISTIC)


def _ramp(margin: Float[Array, "*lifted n"], gamma: _Margins) -> _Margins:
    """The mean of $r^C_\\gamma$: 1 below 0, $1 - y f / \\gamma$ up to gamma, 0 above."""
    return jnp.mean(jnp.clip(1 - margin / gamma[..., None], 0.0, 1.0), axis=-1)


@eqx.filter_jit
def _evaluate(f, g, y, f_test, g_test, y_test, gamma) -> OptimisticBound:
    # With every margin as an axis of its own, so that nothing relies on rank promotion.
    def lift(values):
        return jnp.expand_dims(values, tuple(range(gamma.ndim)))

    below = lift(y * f) < gamma[..., None]
    risk = jnp.mean(below, axis=-1, dtype=gamma.dtype)
    train, test = _ramp(lift(y * g), gamma), _ramp(lift(y_test * g_test), gamma)
    near, far = jnp.mean(jnp.abs(f - g)), jnp.mean(jnp.abs(f_test - g_test))
    deviation = (near + far) / gamma
    gap = test - train
    return OptimisticBound(risk, train, test, gap, near, far, deviation, risk + gap + deviation)


def _samples(name: str, value: AnyArray, like: Array | None = None) -> Array:
    array = _validate.real(name, value)
    if array.ndim != 1 or not array.size:
        raise ValueError(f"`{name}` must have shape (samples,), got {array.shape}.")
    if like is not None and array.shape != like.shape:
        raise ValueError(f"`{name}` must have shape {like.shape}, got {array.shape}.")
    return array


def _labels(name: str, value: AnyArray, like: Array) -> Array:
    labels = _samples(name, value, like)
    if not _validate.is_traced(labels) and bool(jnp.any(jnp.abs(labels) != 1)):
        raise ValueError(f"`{name}` must be labels -1 and +1, got another number.")
    return labels


def optimistic_bound(
    output: Shaped[AnyArray, " m"],
    proxy: Shaped[AnyArray, " m"],
    y: Shaped[AnyArray, " m"],
    output_test: Shaped[AnyArray, " n"],
    proxy_test: Shaped[AnyArray, " n"],
    y_test: Shaped[AnyArray, " n"],
    *,
    gamma: Numeric,
) -> OptimisticBound:
    """How far a bound through the proxy g could get (Eq. 41):

    $R[f] \\le \\hat R_\\gamma[f] + \\big(R^C_\\gamma[g] - \\hat R^C_\\gamma[g]\\big)
    + \\frac{1}{\\gamma} \\mathbb E |f - g| + \\frac{1}{\\gamma m} \\sum_k |f(x_k) - g(x_k)|$

    with both expectations over the distribution replaced by means over a test set. So it is an
    **estimate from test data and not a certificate**: who has test data has the test error. It
    says what would be left if the proxy's gap and its deviation were known exactly.

    **Arguments:**

    - `output`, `proxy`, `y`: $f$, $g$ and the labels in {-1, +1} on the training set, `(m,)`.
    - `output_test`, `proxy_test`, `y_test`: the same on the test set, `(n,)`.
    - `gamma`: the margin, positive, of any shape.

    **Returns:**

    An [`OptimisticBound`][].

    **Raises:**

    `ValueError` naming the argument.
    """
    f = _samples("output", output)
    g = _samples("proxy", proxy, f)
    y = _labels("y", y, f)
    f_test = _samples("output_test", output_test)
    g_test = _samples("proxy_test", proxy_test, f_test)
    y_test = _labels("y_test", y_test, f_test)
    gamma = _validate.real("gamma", gamma, 0, open_low=True)
    return _evaluate(f, g, y, f_test, g_test, y_test, gamma)
