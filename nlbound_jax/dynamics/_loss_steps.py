"""How much one step of gradient descent can raise the loss (README of `bounds`, Lemma 19)."""

import jax.numpy as jnp
from jaxtyping import Array, Float

_Scalar = Float[Array, ""]


def loss_after_step(
    loss: _Scalar,
    step_size: _Scalar,
    behind: Float[Array, " others"],
    first: _Scalar,
    kappa: _Scalar,
    gradient: _Scalar,
    epsilon: _Scalar,
) -> _Scalar:
    """$\\lambda_+$, a bound on the root mean square of $y - f_W$ after a step $W + \\eta G(W)$:

    $\\lambda_+^2 = \\ell^2 + 2 \\eta \\max_{0 \\le y \\le \\bar g}
    \\{ (\\theta - 1) y^2 + \\epsilon \\ell \\Pi y \\}$
    with $\\theta = \\eta (\\ell \\mu + |p|^2 / 2)$.

    It is a descent lemma with a term for the kinks, which no step size makes go away.
    Non-decreasing in `loss`, `behind`, `first` and `gradient`.

    **Arguments:**

    - `loss`: $\\ell$, the bound before the step.
    - `step_size`: $\\eta$.
    - `behind`: $u_l$ for l >= 2, at least $\\|W_l\\|$ before and after.
    - `first`: U, at least $\\|W_1 \\Sigma^{1/2}\\|_F$ before and after.
    - `kappa`: $\\|\\Sigma\\|^{1/2}$.
    - `gradient`: a bound on $(\\sum_l \\|G_l\\|_F^2)^{1/2}$.
    - `epsilon`: one minus the negative slope.

    **Returns:**

    $\\lambda_+$.
    """
    depth = behind.shape[0] + 1

    def product(*without: int) -> _Scalar:
        kept = [behind[i - 1] for i in range(1, depth) if i not in without]
        return jnp.prod(jnp.stack([jnp.ones_like(kappa), *kept]))

    p = jnp.stack([kappa * product(0), *(first * product(i) for i in range(1, depth))])
    pairs = [[jnp.zeros_like(kappa)] * depth for _ in range(depth)]
    for i in range(depth):
        for j in range(i + 1, depth):
            pairs[i][j] = pairs[j][i] = (first if i else kappa) * product(i, j) / 2
    matrix = jnp.stack([jnp.stack(row) for row in pairs])
    known = jnp.isfinite(matrix).all()
    mu = jnp.linalg.eigvalsh(jnp.where(known, matrix, 0.0))[-1]
    mu = jnp.where(known, mu, jnp.inf)
    size = jnp.linalg.norm(p)
    kinks = jnp.linalg.norm(p * jnp.arange(depth - 1, -1, -1, dtype=p.dtype))
    most = jnp.minimum(gradient, loss * size)
    theta = step_size * (loss * mu + size**2 / 2)
    bend = epsilon * loss * kinks
    # A parabola in y: its top, or the end of the interval.
    top = jnp.where(theta < 1, bend / jnp.where(theta < 1, 2 * (1 - theta), 1.0), jnp.inf)
    y = jnp.minimum(top, most)
    raised = jnp.maximum((theta - 1) * y**2 + bend * y, 0.0)
    after = jnp.sqrt(loss**2 + 2 * step_size * raised)
    return jnp.where(jnp.isnan(after), jnp.inf, after)
