"""How fast a leaky network and its reference can part: the right-hand side of the envelope, for any
second moment of the inputs and any number of outputs (README of `bounds`, Lemma 15)."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from ._envelope import EnvelopeSlopes, EnvelopeTerms

_Scalar = Float[Array, ""]
_List = list[_Scalar]


class ReferenceSizes(NamedTuple):
    """What the envelope knows of the reference network at one time: norms of its layers, of their
    products and of its whitened residual $R = \\tilde q - \\omega V_L \\cdots V_1 \\Sigma^{1/2}$.
    With $\\Sigma = I$ the powers of $\\Sigma$ are one row.

    **Attributes:**

    - `norms`: $a_l = \\|V_l\\|$.
    - `behind`: $\\|V_L \\cdots V_{l+1}\\|$, 1 for the last layer.
    - `before`: $\\|V_{l-1} \\cdots V_1 \\Sigma^t\\|$ for t = 0, 1/2, 1, 3/2.
    - `spread`: $\\|V_l \\cdots V_1 \\Sigma^{1/2}\\|_F$ for l < L.
    - `pulled`: $\\|R \\Sigma^{1/2} (V_{l-1} \\cdots V_1)^\\top\\|$ for l < L.
    - `residual`: $\\|R \\Sigma^u\\|_F$ for u = 0, 1/2, 1.
    - `spectral`: $\\|R\\|$, and $\\|R \\Sigma\\|$.
    - `rest`: the root mean square of what no linear function of the inputs tells of the labels,
        $(\\nu^2 - \\|\\tilde q\\|_F^2)^{1/2}$.
    """

    norms: Float[Array, " layers"]
    behind: Float[Array, " layers"]
    before: Float[Array, "powers layers"]
    spread: Float[Array, " inner"]
    pulled: Float[Array, " inner"]
    residual: Float[Array, " parts"]
    spectral: Float[Array, "2"]
    rest: _Scalar


class EnvelopeRates(NamedTuple):
    """The right-hand side of the envelope.

    **Attributes:**

    - `layers`: $g_l \\ge \\|G_l(W) - R_l(V)\\|_F$, `(layers,)`.
    - `weighted`: $\\tilde g_1 \\ge \\|(G_1(W) - R_1(V)) \\Sigma^{1/2}\\|_F$.
    - `loss`: a bound on the root mean square of $y - f_W$ by the distances alone, without `cap`.
    - `terms`: what the proof bounds on the way.
    """

    layers: Float[Array, " layers"]
    weighted: _Scalar
    loss: _Scalar
    terms: EnvelopeTerms


class _Forward(NamedTuple):
    """From the inputs on, each list from no layer to L layers.

    - `gaps`: by power of Sigma, $\\ge \\|(W_l \\cdots W_1 - V_l \\cdots V_1) \\Sigma^t\\|_F$.
    - `pulled`: $\\ge \\|R \\Sigma^{1/2} (W_l \\cdots W_1 - V_l \\cdots V_1)^\\top\\|_F$, l < L.
    - `bent`: $\\ge$ the root mean square of $h_l - \\sigma^l W_l \\cdots W_1 x$.
    """

    gaps: list[_List]
    pulled: _List
    bent: _List


def _forward(
    x: _List, weighted: _Scalar, a: _List, sizes: ReferenceSizes, slope: EnvelopeSlopes
) -> _Forward:
    depth, half = slope.depth, slope.half
    before = sizes.before
    if len(before) == 1:
        firsts = [x[0]]
    else:
        kappa = before[1, 0]
        firsts = [x[0], weighted, kappa * weighted, kappa**2 * weighted]
    gaps: list[_List] = []
    for first, known in zip(firsts, before, strict=True):
        gap = [jnp.zeros_like(first), first]
        for i in range(1, depth):
            gap.append((a[i] + x[i]) * gap[-1] + x[i] * known[i])
        gaps.append(gap)
    middle = gaps[min(1, len(gaps) - 1)]
    pulled = [jnp.zeros_like(x[0])]
    pulled.append(jnp.minimum(sizes.spectral[0] * weighted, sizes.pulled[0] * x[0]))
    for i in range(1, depth - 1):
        pulled.append((a[i] + x[i]) * pulled[-1] + x[i] * sizes.pulled[i])
    size = sizes.spread[0] + middle[1]
    bent = [jnp.zeros_like(x[0]), half * size]
    for i in range(1, depth):
        upper = a[i] + x[i]
        through = upper * bent[-1]
        if i == depth - 1:
            bent.append(through)
        else:
            known = slope.power(i) * (sizes.spread[i] + middle[i + 1]) + through
            size = jnp.minimum(upper * size, known)
            bent.append(slope.power(1) * through + half * size)
    return _Forward(gaps, pulled, bent)


class _Backward(NamedTuple):
    """From the outputs back, each list from the first layer to the last.

    - `sizes`, `gaps`: $\\ge \\|W_L \\cdots W_{l+1}\\|$; its distance from V's in Frobenius norm.
    - `whole`, `bent`: $\\ge$ the size of what the layers behind make of an error of size 1, and of
        its part with at least one matrix of signs.
    """

    sizes: _List
    gaps: _List
    whole: _List
    bent: _List


def _backward(x: _List, a: _List, sizes: ReferenceSizes, slope: EnvelopeSlopes) -> _Backward:
    depth, half = slope.depth, slope.half
    one, zero = jnp.ones_like(x[0]), jnp.zeros_like(x[0])
    size, gap, whole, bent = [one], [zero], [one], [zero]
    for i in range(depth - 1, 0, -1):
        upper = a[i] + x[i]
        gap.append(gap[-1] * upper + sizes.behind[i] * x[i])
        size.append(sizes.behind[i - 1] + gap[-1])
        through = upper * bent[-1]
        mixed = jnp.minimum(upper * whole[-1], slope.power(depth - i - 1) * size[-1] + through)
        bent.append(slope.power(1) * through + half * mixed)
        whole.append(jnp.minimum(mixed, slope.power(depth - i) * size[-1] + bent[-1]))
    return _Backward(size[::-1], gap[::-1], whole[::-1], bent[::-1])


def _terms(
    forward: _Forward, sizes: ReferenceSizes, slope: EnvelopeSlopes, cap: _Scalar
) -> tuple[EnvelopeTerms, _Scalar, _List]:
    """The terms, the bound on the loss without `cap`, and $G_0$, $G_{1/2}$, $G_1$."""
    non = forward.bent[-1]
    lins = [slope.omega * gap[-1] for gap in forward.gaps[-3:]]
    loss = jnp.sqrt(sizes.rest**2 + (sizes.residual[0] + lins[0]) ** 2) + non
    ell = jnp.minimum(cap, loss)
    known = [jnp.minimum(lins[0] + non, ell + sizes.residual[0])]
    for i in range(1, len(lins)):
        kappa = sizes.before[1, 0]
        factor = kappa**i
        gap = jnp.minimum(lins[i] + factor * non, factor * ell + sizes.residual[i])
        known.append(jnp.minimum(gap, kappa * known[-1]))
    return EnvelopeTerms(lins[0], non, ell, known[0]), loss, known


def envelope_rates(
    distances: Float[Array, " layers"],
    weighted: _Scalar,
    sizes: ReferenceSizes,
    slope: EnvelopeSlopes,
    cap: _Scalar,
) -> EnvelopeRates:
    """For every network W within the distances of V, for every choice of the slopes at 0,
    $\\|G_l(W) - R_l(V)\\|_F \\le g_l$, where $G_l$ is the negative gradient of the leaky network's
    loss and $R_l$ that of the reference. All of it is non-decreasing in the distances and in `cap`.

    $g_l = \\omega \\{ C_l (\\min(G_0 M_{l-1}, G_{1/2} M^0_{l-1}) + e_{l-1}) + y_l \\rho_l \\}
    + \\ell \\{ \\sigma^{l-1} b_l M_{l-1} + \\beta_l n_{l-1} \\}$
    with $M_l = m_l + d_l$, in the notation of the README of `bounds`, Lemma 15.

    **Arguments:**

    - `distances`: $x_l \\ge \\|W_l - V_l\\|_F$.
    - `weighted`: $\\tilde x \\ge \\|(W_1 - V_1) \\Sigma^{1/2}\\|_F$; not used if $\\Sigma = I$.
    - `sizes`: of V.
    - `slope`: out of [`envelope_slopes`][].
    - `cap`: any other bound on the root mean square of $y - f_W$; `inf` if there is none.

    **Returns:**

    An [`EnvelopeRates`][].
    """
    x, a = list(distances), list(sizes.norms)
    raw = len(sizes.before) > 1
    kappa = sizes.before[1, 0] if raw else jnp.ones_like(x[0])
    near = jnp.minimum(weighted, kappa * x[0]) if raw else x[0]
    forward = _forward(x, near, a, sizes, slope)
    backward = _backward(x, a, sizes, slope)
    terms, loss, gap = _terms(forward, sizes, slope, cap)
    plain, middle = forward.gaps[0], forward.gaps[1 if raw else 0]
    rates = []
    for i in range(slope.depth):
        seen = sizes.before[1 if raw else 0, i] + middle[i]
        reach = gap[0] * seen
        if raw:
            reach = jnp.minimum(reach, gap[1] * (sizes.before[0, i] + plain[i]))
        pure = backward.sizes[i] * (reach + forward.pulled[i])
        if i < slope.depth - 1:
            pure = pure + backward.gaps[i] * sizes.pulled[i]
        signs = slope.power(i) * backward.bent[i] * seen + backward.whole[i] * forward.bent[i]
        rates.append(slope.omega * pure + terms.ell * signs)
    side = rates[0]
    if raw:
        pure = backward.sizes[0] * gap[2] + backward.gaps[0] * sizes.spectral[1]
        signs = backward.bent[0] * kappa**2
        side = jnp.minimum(kappa * side, slope.omega * pure + terms.ell * signs)
    return EnvelopeRates(jnp.stack(rates), side, loss, terms)


def sizes_of_products(
    norms: Float[Array, " layers"],
    frobenius: _Scalar,
    residual: _Scalar,
    rest: _Scalar,
) -> ReferenceSizes:
    """The sizes for $\\Sigma = I$ and one output where only the norms of the layers are known:
    those of products are at most the products.

    **Arguments:**

    - `norms`: $a_l = \\|V_l\\|$.
    - `frobenius`: $\\|V_1\\|_F$.
    - `residual`: $\\|r\\|$.
    - `rest`: $(1 - s^2)^{1/2}$.

    **Returns:**

    A [`ReferenceSizes`][].
    """
    one = jnp.ones_like(norms[:1])
    before = jnp.cumprod(jnp.concatenate([one, norms[:-1]]))
    behind = jnp.cumprod(jnp.concatenate([one, norms[:0:-1]]))[::-1]
    spread = frobenius * jnp.cumprod(jnp.concatenate([one, norms[1:-1]]))
    residuals = residual[None]
    return ReferenceSizes(
        norms,
        behind,
        before[None],
        spread,
        residual * before[:-1],
        residuals,
        jnp.concatenate([residuals, residuals]),
        rest,
    )


def envelope_terms(
    distances: Float[Array, " layers"],
    norms: Float[Array, " layers"],
    frobenius: _Scalar,
    residual: _Scalar,
    alignment: _Scalar,
    initial_residual: _Scalar,
    slope: EnvelopeSlopes,
) -> EnvelopeTerms:
    """The terms of the envelope's right-hand side, at one time, for whitened inputs and one output;
    with $A_l = a_l + x_l$ and $A_1^F = F + x_1$

    $\\text{lin} = \\omega (\\prod A_j - \\prod a_j)$,
    $\\text{non} = (1 - \\omega) A_1^F \\prod_{j \\ge 2} A_j$,
    $\\ell = \\min\\{\\ell(0), \\sqrt{1 - s^2 + (\\|r\\| + \\text{lin})^2} + \\text{non}\\}$,
    $G = \\min\\{\\text{lin} + \\text{non}, \\ell + \\|r\\|\\}$.

    **Arguments:**

    - `distances`: $x_l \\ge \\|W_l - V_l\\|_F$, `(layers,)`.
    - `norms`: $a_l = \\|V_l\\|$, `(layers,)`.
    - `frobenius`: $F = \\|V_1\\|_F$.
    - `residual`: $\\|r\\| = \\|q - \\omega V_L \\cdots V_1\\|$.
    - `alignment`: $s = \\|q\\|$.
    - `initial_residual`: $\\ell(0)$, the root mean square of $y - f$ at time 0.
    - `slope`: out of [`envelope_slopes`][].

    **Returns:**

    An [`EnvelopeTerms`][].
    """
    rest = jnp.sqrt(jnp.maximum(1 - alignment**2, 0.0))
    sizes = sizes_of_products(norms, frobenius, residual, rest)
    return envelope_rates(distances, distances[0], sizes, slope, initial_residual).terms
