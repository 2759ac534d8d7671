"""The anchored bound on one drawn network: any architecture, any bounded loss."""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from .. import _validate
from .._results import RESULTS, where
from .._types import AnyArray, Numeric
from ._binomial import binomial_limit
from ._kl import invert

_Scalar = Float[Array, ""]

# Folded into the key: one that has served for an initialization gives other numbers here.
_TAG = 0x64726177
# Of delta: for the kl form, and in the excess form for the anchor's errors and for the excess.
_SHARES = (0.05, 0.85, 0.1)


class OneDrawBound(eqx.Module):
    """The bound on one drawn network, term by term.

    **Attributes:**

    - `value`: the smaller of the two forms, the bound on the mean error of `parameters`.
    - `parameters`: the drawn parameters; they, and not the given ones, are what is certified.
    - `kl_value`, `excess_value`: the two forms.
    - `empirical`: the mean error of the drawn network on S2.
    - `anchor_risk`: that of the anchor; `anchor_bound`: what S2 says of it.
    - `gap`: `empirical - anchor_risk`; `gap_square`: the mean of the squared differences.
    - `information`: $I_j$ of the drawn noise.
    - `leaf_information`: what each leaf of the parameters adds to it, a PyTree like them. A part
        may be negative: $\\Delta_j \\cdot z$ has either sign.
    - `exponent`: $(\\max(I_j, 0) + \\ln(2\\sqrt n K/\\delta_0))/n$ of the kl form.
    - `eta`: of the excess form; `gap_cost`: $\\eta\\theta(\\eta)$ times `gap_square`;
        `information_cost`: $(I_j + \\ln(K/\\delta_2))/(\\eta n)$.
    - `scale`: the factor of the noise scales, and `cell` its place among `factors`.
    - `form`: 0 for the kl form, 1 for the excess form.
    - `log_cells`: $\\ln K$.
    - `result`: `successful`, or `blow_up` where the information is not finite.
    """

    value: _Scalar
    parameters: PyTree
    kl_value: _Scalar
    excess_value: _Scalar
    empirical: _Scalar
    anchor_risk: _Scalar
    anchor_bound: _Scalar
    gap: _Scalar
    gap_square: _Scalar
    information: _Scalar
    leaf_information: PyTree
    exponent: _Scalar
    eta: _Scalar
    gap_cost: _Scalar
    information_cost: _Scalar
    scale: _Scalar
    cell: Array
    form: Array
    log_cells: _Scalar
    result: RESULTS


def one_draw_bound(
    parameters: PyTree,
    anchor: PyTree,
    errors: Callable[[PyTree], Array],
    *,
    scales: PyTree,
    key: PRNGKeyArray,
    delta: Numeric = 0.01,
    factors: AnyArray | tuple[float, ...] = tuple(0.1 * 1.6**i for i in range(14)),
    etas: tuple[float, ...] = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6),
    anchors: int = 1,
) -> OneDrawBound:
    """The disintegrated PAC-Bayes bound with a data-dependent centre (Rivasplata et al. 2020,
    Theorem 1; Viallard et al. 2024), for parameters of any kind and any predictor. S1 determines
    the anchor's parameters $\\theta_U$ and the noise scales; $\\theta_W$ is trained in any way on
    all the data. The network that is certified is
    $\\theta' = \\theta_W + \\lambda_j \\Sigma^{1/2} z$ with one standard normal z. With probability
    $1 - \\delta$ over S2 (n samples) and z, for all factors $\\lambda_j$ at once, with
    $\\Delta_j = (\\lambda_j \\Sigma^{1/2})^{-1} (\\theta_W - \\theta_U)$ and
    $I_j = \\frac12 \\|\\Delta_j\\|^2 + \\Delta_j \\cdot z$,

    (kl) $P \\le \\text{kl}^{-1}\\big(\\overline{e'},
    (\\max(I_j, 0) + \\ln(2 \\sqrt n K/\\delta_0))/n\\big)$,

    (excess) $P \\le \\text{Bin}^{-1}(n \\overline{e_U}; n, \\delta_1/n_U) + \\overline X
    + \\eta \\theta(\\eta) \\overline{X^2} + (I_j + \\ln(K'/\\delta_2))/(\\eta n)$,

    $X = e' - e_U$, $\\theta(\\eta) = (-\\ln(1 - \\eta) - \\eta)/\\eta^2$,
    $\\delta_0 + \\delta_1 + \\delta_2 = \\delta$; a bar is the mean over S2, P that of the error
    $e' \\in [0, 1]$ of $\\theta'$ over the distribution. Both forms are paid for, and the best is
    given. If `errors` gives floating numbers, Chernoff's bound stands for $\\text{Bin}^{-1}$.
    Proof: README of this folder, Section 8.

    z comes from `key` and must not depend on the sample nor on what trained the networks: take a
    key that nothing else has used. (A fixed number is folded into it, so that even the key of the
    initialization gives other numbers than the initialization saw.) All factors share one z.

    **Main arguments:**

    - `parameters`: $\\theta_W$, any PyTree of floating arrays. The draw is rounded to their dtype,
        and it is what is rounded that is certified.
    - `anchor`: $\\theta_U$, a PyTree of the same structure and shapes, that S1 and independent
        randomness determine.
    - `errors`: a function of such parameters that gives the error on each sample of S2, `(n,)`:
        truth values (best: the anchor's limit is exact for them), or numbers in [0, 1]; what is
        not a number counts as 1. JAX must be able to trace it.
    - `scales`: $\\Sigma^{1/2}$: one positive number, or a PyTree prefix of `parameters` with a
        positive number or array for each leaf; determined by S1.
    - `key`: a JAX random key.

    **Other arguments:**

    - `delta`: one minus the confidence.
    - `factors`: $\\lambda$, `(factors,)`, fixed before S2 is seen.
    - `etas`: $\\eta$ in (0, 1) of the excess form.
    - `anchors`: $n_U$, the number of anchors of which the best bound is reported.

    **Returns:**

    An [`OneDrawBound`][], with the drawn parameters.

    **Raises:**

    `ValueError` naming the argument, or if `jax_enable_x64` is not set.
    """
    _validate.needs_x64("one_draw_bound")
    check_parameters(parameters=parameters, anchor=anchor)
    delta = _validate.number("delta", delta, 0, 1, open_low=True, open_high=True)
    factors = _validate.real("factors", factors, 0, open_low=True)
    if factors.ndim != 1 or not factors.shape[0]:
        raise ValueError(f"`factors` must have shape (factors,), got {factors.shape}.")
    if not isinstance(etas, tuple) or not etas:
        raise ValueError(
            f"`etas` must be a tuple of at least one number, got {_validate.shown(etas)}."
        )
    for eta in etas:
        _validate.scalar("etas", eta, 0, 1, open_low=True, open_high=True)
    anchors = _validate.integer("anchors", anchors, 1)
    if not callable(errors):
        raise ValueError(f"`errors` must be a function, got {_validate.shown(errors)}.")
    key = jax.random.fold_in(_validate.key("key", key), _TAG)
    leaves, structure = jax.tree.flatten(parameters)
    sizes = spreads(scales, parameters)
    keys = jax.random.split(key, len(leaves))
    noise = [jax.random.normal(k, w.shape, float) for k, w in zip(keys, leaves, strict=True)]
    centre = jax.tree.leaves(anchor)
    of_anchor, exact = _checked("errors", errors(anchor))
    anchor_bound = _anchor_limit(of_anchor, exact, _SHARES[1] * delta / anchors)
    kl_cells = len(factors) * anchors

    def at(cell, factor):
        drawn = [
            (w.astype(float) + factor * s * z).astype(w.dtype)
            for w, s, z in zip(leaves, sizes, noise, strict=True)
        ]
        # The network whose errors are counted is the one that is returned, to the last bit.
        tree = jax.lax.optimization_barrier(jax.tree.unflatten(structure, drawn))
        mine, _ = _checked("errors", errors(tree), of_anchor.shape)
        parts = _information(leaves, centre, sizes, noise, factor)
        information = sum(parts, jnp.asarray(0.0))
        found = {
            **_kl_form(mine, information, kl_cells, _SHARES[0] * delta),
            **_excess_form(
                mine, of_anchor, information, kl_cells, etas, anchor_bound, _SHARES[2] * delta
            ),
            "parameters": tree,
            "leaf_information": jax.tree.unflatten(structure, parts),
            "scale": factor,
            "cell": cell,
        }
        found["value"] = jnp.minimum(found["kl_value"], found["excess_value"])
        found["form"] = jnp.where(found["excess_value"] < found["kl_value"], 1, 0)
        return found

    best = _best(at, factors)
    value = best.pop("value")
    failed = ~jnp.isfinite(value)
    return OneDrawBound(
        **best,
        value=jnp.where(failed, jnp.inf, value),
        anchor_risk=jnp.mean(of_anchor),
        anchor_bound=anchor_bound,
        log_cells=jnp.asarray(math.log(kl_cells * len(etas))),
        result=where(failed, RESULTS.blow_up, RESULTS.successful),
    )


def _best(at: Callable[[Array, Array], dict[str, Any]], factors: Float[Array, " factors"]):
    """The cell of the least value. The draws are made one after the other, by one program."""

    def step(best, given):
        found = at(*given)
        take = (found["value"] < best["value"]) | (given[0] == 0)
        return jax.tree.map(lambda a, b: jnp.where(take, a, b), found, best), None

    cells = jnp.arange(len(factors)), factors
    try:
        like = jax.eval_shape(at, *(a[0] for a in cells))
    except (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError) as error:
        raise ValueError(
            f"`errors` must be a function that JAX can trace, got {type(error).__name__}."
        ) from None
    start = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), like)
    return jax.lax.scan(step, start, cells)[0]


def _kl_form(mine, information, cells: int, delta) -> dict[str, _Scalar]:
    count = mine.shape[0]
    exponent = jnp.maximum(information, 0.0) + math.log(2 * math.sqrt(count) * cells)
    exponent = (exponent - jnp.log(delta)) / count
    value = jnp.where(jnp.isnan(exponent), jnp.inf, invert(jnp.mean(mine), exponent))
    return {
        "kl_value": value,
        "empirical": jnp.mean(mine),
        "information": information,
        "exponent": exponent,
    }


def _excess_form(
    mine, of_anchor, information, cells: int, etas: tuple[float, ...], anchor_bound, delta
) -> dict[str, _Scalar]:
    eta, count = jnp.asarray(etas), mine.shape[0]
    gap, square = jnp.mean(mine - of_anchor), jnp.mean((mine - of_anchor) ** 2)
    costs = (-jnp.log1p(-eta) - eta) / eta * square
    price = (information + math.log(cells * len(etas)) - jnp.log(delta)) / (eta * count)
    best = jnp.argmin(costs + price)
    value = anchor_bound + gap + costs[best] + price[best]
    return {
        "excess_value": jnp.where(jnp.isnan(value), jnp.inf, value),
        "gap": gap,
        "gap_square": square,
        "eta": eta[best],
        "gap_cost": costs[best],
        "information_cost": price[best],
    }


def _anchor_limit(errors: Float[Array, " n"], exact: bool, delta) -> _Scalar:
    """Exact for errors that are truth values or integers, whatever they turn out to be, else by
    Chernoff's bound, which holds for all in [0, 1]."""
    count = jnp.asarray(float(errors.shape[0]))
    if exact:
        return binomial_limit(jnp.sum(errors), count, delta)
    return invert(jnp.mean(errors), -jnp.log(delta) / count)


def _information(leaves, centre, sizes, noise, factor) -> list[_Scalar]:
    """Of each leaf."""
    parts = []
    for w, u, s, z in zip(leaves, centre, sizes, noise, strict=True):
        moved = (w.astype(float) - u.astype(float)) / (factor * s)
        parts.append(jnp.sum(moved**2) / 2 + jnp.sum(moved * z))
    return parts


def _checked(
    name: str, errors: Any, shape: tuple[int, ...] | None = None
) -> tuple[Float[Array, " n"], bool]:
    """The errors of one network, and whether they are 0 or 1 by their type. What is not a number,
    and what no error may be, is an error."""
    errors = jnp.asarray(errors)
    exact = not jnp.issubdtype(errors.dtype, jnp.inexact)
    if errors.ndim != 1 or not errors.shape[0] or (shape is not None and errors.shape != shape):
        raise ValueError(f"`{name}` must give an array (n,), always the same, got {errors.shape}.")
    errors = errors.astype(float)
    if not _validate.is_traced(errors):
        _validate.real(name, jnp.where(jnp.isnan(errors), 1.0, errors), 0, 1)
    return jnp.where((errors >= 0) & (errors <= 1), errors, 1.0), exact


def check_parameters(**given: PyTree) -> None:
    """Raise unless the leaves are finite floating arrays, of one structure and the same shapes."""
    first, *_ = given
    for name, tree in given.items():
        leaves = jax.tree.leaves(tree)
        arrays = all(isinstance(w, jax.Array | np.ndarray) for w in leaves)
        if not leaves or not arrays or not all(_is_floating(w) for w in leaves):
            raise ValueError(f"`{name}` must be a PyTree of floating arrays, got other leaves.")
        _validate.finite(name, leaves)
        same = jax.tree.structure(tree) == jax.tree.structure(given[first])
        if not same or [w.shape for w in leaves] != [
            w.shape for w in jax.tree.leaves(given[first])
        ]:
            raise ValueError(f"`{name}` must have the structure and shapes of `{first}`.")


def _is_floating(array: Any) -> bool:
    return jnp.issubdtype(array.dtype, jnp.floating)


def spreads(scales: PyTree, parameters: PyTree) -> list[Array]:
    """The scale of each leaf."""
    try:
        given = jax.tree.map(
            lambda s, part: jax.tree.map(lambda _: s, part), scales, parameters, is_leaf=_is_number
        )
    except (TypeError, ValueError):
        raise ValueError("`scales` must be a PyTree prefix of `parameters`, got another.") from None
    found = []
    leaves = jax.tree.leaves(given, is_leaf=_is_number)
    for scale, w in zip(leaves, jax.tree.leaves(parameters), strict=True):
        scale = _validate.real("scales", scale, 0, open_low=True)
        if scale.ndim and scale.shape != w.shape:
            raise ValueError(
                f"`scales` must have the shape of its leaf, {w.shape}, got {scale.shape}."
            )
        found.append(scale)
    return found


def _is_number(value: Any) -> bool:
    return jax.tree_util.all_leaves([value])
