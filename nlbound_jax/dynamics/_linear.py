"""The reference network: the linear one of slope $\\sigma$, its gradient and its norms."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._types import Weights
from ._lemma import ReferenceSizes
from ._statistic import Statistic


class Pieces(NamedTuple):
    """What a step of the reference network is made of.

    **Attributes:**

    - `behind`: $V_L \\cdots V_{l+1}$ for every l >= 1.
    - `residual`: $R = \\tilde q - \\omega V_L \\cdots V_1 \\Sigma^{1/2}$.
    - `pulled`: $R \\Sigma^{1/2} (V_{l-1} \\cdots V_1)^\\top$ for every l >= 1.
    """

    behind: list[Float[Array, "outputs _width"]]
    residual: Float[Array, "outputs r"]
    pulled: list[Float[Array, "outputs _width"]]


def reference_gradient(
    weights: Weights, omega: Float[Array, ""], statistic: Statistic
) -> tuple[Weights, Pieces]:
    """The negative gradient
    $R_l = \\omega (V_L \\cdots V_{l+1})^\\top R \\Sigma^{1/2} (V_{l-1} \\cdots V_1)^\\top$ of the
    reference network.

    **Arguments:**

    - `weights`: the $V_l$.
    - `omega`: $\\sigma^{L-1}$.
    - `statistic`: what it sees of the data.

    **Returns:**

    The $R_l$, and the [`Pieces`][].
    """
    outputs = weights[-1].shape[0]
    behind = [jnp.eye(outputs, dtype=weights[-1].dtype)]
    for w in weights[:0:-1]:
        behind.append(behind[-1] @ w)
    behind = behind[::-1]
    residual = statistic.target - omega * statistic.weigh(behind[0] @ weights[0])
    pulled = [statistic.weigh(residual)]
    for w in weights[:-1]:
        pulled.append(pulled[-1] @ w.T)
    pairs = zip(behind, pulled, strict=True)
    return tuple(omega * c.T @ p for c, p in pairs), Pieces(behind, residual, pulled)


def reference_motion(
    weights: Weights, omega: Float[Array, ""], statistic: Statistic
) -> tuple[Weights, Pieces, Float[Array, " layers_and_1"]]:
    """What moves the reference network, and how far that is from its gradient.

    **Arguments:**

    - `weights`, `omega`, `statistic`: as for [`reference_gradient`][].

    **Returns:**

    The $U_l$, which are the $R_l$ if there is no driver; the [`Pieces`][] of the $R_l$; and the
    defects $\\|R_l - U_l\\|_F$, behind them $\\|(R_1 - U_1) \\Sigma^{1/2}\\|_F$.
    """
    moving, pieces = reference_gradient(weights, omega, statistic)
    if statistic.driver is None:
        return moving, pieces, jnp.zeros(len(weights) + 1, weights[0].dtype)
    target, moment = statistic.driver
    linear = pieces.behind[0] @ weights[0]
    gap = pieces.pulled[0] - (target - omega * (linear if moment is None else linear @ moment))
    apart = []
    for c, w in zip(pieces.behind, weights, strict=True):
        apart.append(omega * c.T @ gap)
        gap = gap @ w.T
    sizes = [jnp.linalg.norm(a) for a in (*apart, statistic.weigh(apart[0]))]
    moving = tuple(m - a for m, a in zip(moving, apart, strict=True))
    return moving, pieces, jnp.stack(sizes)


def spectral_norm(w: Float[Array, "out in"]) -> Float[Array, ""]:
    """$\\|W\\|$ by the largest eigenvalue of the smaller Gram matrix."""
    if min(w.shape) == 1:
        return jnp.linalg.norm(w)
    gram = w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w
    return jnp.sqrt(jnp.maximum(jnp.linalg.eigvalsh(gram)[-1], 0.0))


def layer_norms(weights: Weights) -> Float[Array, " layers"]:
    """The spectral norm of every layer."""
    return jnp.stack([spectral_norm(w) for w in weights])


def reference_sizes(weights: Weights, pieces: Pieces, statistic: Statistic) -> ReferenceSizes:
    """The norms of the reference network that its envelope is made of.

    **Arguments:**

    - `weights`: the $V_l$.
    - `pieces`: out of [`reference_gradient`][].
    - `statistic`: what it sees of the data.

    **Returns:**

    A [`ReferenceSizes`][].
    """
    raw = statistic.roots is not None
    norms = layer_norms(weights)
    one = jnp.ones_like(norms[0])
    partial = [weights[0]]
    for w in weights[1:-1]:
        partial.append(w @ partial[-1])
    if raw:
        kappa = jnp.max(statistic.roots)  # pyright: ignore
        powers = jnp.stack([one, kappa, kappa**2, kappa**3])
        scales = jnp.stack([statistic.roots**t for t in range(4)])  # pyright: ignore
        each = [jax.vmap(lambda s, w=w: spectral_norm(w * s[None]))(scales) for w in partial]
        before = jnp.stack([powers, *each], axis=1)
    else:
        each = [norms[0], *(spectral_norm(w) for w in partial[1:])]
        before = jnp.stack([one, *each])[None]
    behind = [spectral_norm(c) for c in pieces.behind[:-2]] + [norms[-1], one]
    residual = pieces.residual
    weighed = [statistic.weigh(residual, t) for t in range(3 if raw else 1)]
    return ReferenceSizes(
        norms=norms,
        behind=jnp.stack(behind),
        before=before,
        spread=jnp.stack([jnp.linalg.norm(statistic.weigh(w)) for w in partial]),
        pulled=jnp.stack([spectral_norm(p) for p in pieces.pulled[:-1]]),
        residual=jnp.stack([jnp.linalg.norm(r) for r in weighed]),
        spectral=jnp.stack([spectral_norm(weighed[0]), spectral_norm(weighed[-1])]),
        rest=statistic.rest,
    )
