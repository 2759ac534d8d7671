"""Data for which a statement of the paper, as printed, is false: constructions that run.

They need `jax_enable_x64` and raise `ValueError` without it.
"""

import math

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import _validate
from .._types import Numeric, Weights
from ..bounds import theorem_5_2
from ..dynamics import Trajectory, gradient_flow
from ..networks import LeakyMLP
from ..tasks import Task, Transform

# Of every flow: `moving_kink` divides differences of flows by 2e-4, `lost_rho` by 1e-4.
RTOL, ATOL = 1e-10, 1e-13
# Of the central difference; small against the 0.05 by which the crossing of `moving_kink` hangs.
KINK_STEP = 1e-4


class Counterexample(eqx.Module):
    """A statement of the paper, in the form measured <= bound, and data for which it is false.

    **Attributes:**

    - `name`: a short name.
    - `statement`: which statement, with its equation.
    - `measured`: what the statement bounds.
    - `bound`: the upper bound that the paper claims.
    - `ratio`: `measured / bound`, or `inf` where `bound` is 0; above 1 the statement is false.
    - `holds`: whether `measured <= bound`.
    - `setting`: the data, the network and the time, in one sentence.
    - `repaired_measured`, `repaired`: what the repaired statement bounds, and its bound; `None`
        where nothing replaces the statement.
    """

    name: str
    statement: str
    measured: float
    bound: float
    ratio: float
    holds: bool
    setting: str
    repaired_measured: float | None
    repaired: float | None


def result_of(measured: float, bound: float, *repaired: float, name, statement, setting):
    ratio = measured / bound if bound else math.copysign(math.inf, measured)
    numbers = (measured, bound, ratio, measured <= bound)
    return Counterexample(name, statement, *numbers, setting, *(repaired or (None, None)))


def white_task(x: Float[np.ndarray, "m d"], y: Float[np.ndarray, " m"]) -> Task:
    """A task of inputs that are white already; unlike `tasks.from_arrays`, one class will do."""
    dim, target = x.shape[1], y @ x / len(y)
    alignment = float(np.linalg.norm(target))
    spectrum, transform = np.ones(dim), Transform(np.eye(dim), 1.0)
    return Task(x, y, None, None, target, alignment, spectrum, transform, None, "counterexample")


def scalar_network(first: float, second: float, epsilon: float) -> LeakyMLP:
    """d = n = 1, L = 2."""
    return LeakyMLP((jnp.array([[first]]), jnp.array([[second]])), jnp.array(epsilon))


def _run(net: LeakyMLP, task: Task, t: float, saveat: diffrax.SaveAt | None = None) -> Trajectory:
    control, adjoint = diffrax.PIDController(rtol=RTOL, atol=ATOL), diffrax.ForwardMode()
    return gradient_flow(
        net, task, t1=t, saveat=saveat, stepsize_controller=control, adjoint=adjoint
    )


def _bound_v(net: LeakyMLP, task: Task, t: float, beta: float, rho: float) -> list[float]:
    """v of Theorem 5.2, printed and repaired."""
    numbers = {"depth": net.depth, "epsilon": net.epsilon, "beta": beta, "stable_rank_root": rho}
    # v depends on none of these.
    others = {"gamma": 1.0, "dim": task.rank, "num_samples": task.num_samples}
    return [
        float(theorem_5_2(t, **numbers, **others, alignment=task.alignment, reading=reading).v)
        for reading in ("printed", "repaired")
    ]


def lost_rho() -> Counterexample:
    """$\\|dW_2/d\\tau\\| \\le v$ (Golikov, TMLR 12/2024, Lemma 7.1, v of Eq. 10) is false: a factor
    $\\rho$ is lost from Eq. 60 to 61 (and from Eq. 86 to 88).

    $L = 2$, $d = n = 49$, $m = 6000$, $\\tilde X = [G, -G]$ with $G$ Gaussian, then whitened,
    $y = 1$, $W_1(0) = \\beta I$, $W_2(0) = -\\frac\\beta7 \\mathbf 1^\\top$. The gradient of
    $W_2$ changes by about $\\epsilon\\beta\\, E|\\xi| / 2$, $\\xi$ standard normal, in each of the
    49 hidden units: a factor $\\sqrt{49} = \\rho$. No kink is to blame: `measured` is the
    derivative at frozen activation patterns, which the proof is about.

    What holds is $\\|W^\\epsilon_2 - W^0_2\\|_F \\le \\epsilon v$ with the repaired v.

    **Returns:**

    A [`Counterexample`][]; `repaired_measured` is $\\|W^\\epsilon_2 - W^0_2\\|_F / \\epsilon$.

    **Raises:**

    `ValueError` if `jax_enable_x64` is not set.
    """
    _validate.needs_x64("lost_rho")
    dim, half, beta, epsilon, t = 49, 3000, 0.1, 1e-4, 0.1
    g = np.random.default_rng(0).standard_normal((half, dim))
    eigenvalues, vectors = np.linalg.eigh(g.T @ g / half)
    g = g @ (vectors / np.sqrt(eigenvalues)) @ vectors.T
    task = white_task(np.concatenate([g, -g]), np.ones(2 * half))
    rho = math.sqrt(dim)
    weights = (jnp.asarray(beta * np.eye(dim)), jnp.asarray(np.full((1, dim), -beta / rho)))

    def flow(tau: Float[Array, ""]) -> Weights:
        return _run(LeakyMLP(weights, tau), task, t).network().weights

    # The linear flow, too, along with its derivative, since that is compiled already.
    slopes = jnp.asarray(epsilon), jnp.asarray(0.0)
    (here, tangent), (linear, _) = (jax.jvp(flow, (e,), (jnp.asarray(1.0),)) for e in slopes)
    printed, repaired = _bound_v(LeakyMLP(weights, slopes[0]), task, t, beta, rho)
    return result_of(
        float(np.linalg.norm(tangent[1])),
        printed,
        float(np.linalg.norm(np.asarray(here[1]) - np.asarray(linear[1]))) / epsilon,
        repaired,
        name="lost-rho",
        statement="Lemma 7.1 with v of Eq. 10: ||dW_2/dtau|| <= v",
        setting=(
            f"d = n = {dim}, m = {2 * half}, L = 2, whitened [G, -G] with G Gaussian, y = 1, "
            f"W_1(0) = beta I, W_2(0) = -(beta/7) (1, ..., 1), beta = {beta:g}, rho = {rho:g}, "
            f"epsilon = {epsilon:g}, t = {t:g}, activation patterns frozen."
        ),
    )


def moving_kink() -> Counterexample:
    """$|dW_1/d\\tau| \\le v$ (Golikov, TMLR 12/2024, Lemma 7.1, v of Eq. 10) is false for the true
    derivative even at $\\rho = 1$: the proof differentiates (Eq. 53, 55) as if the activation
    pattern did not depend on $\\tau$.

    $L = 2$, $d = n = 1$, $\\tilde x = \\pm1$ equally often, mean label 1 at $\\tilde x = -1$ and
    0.45 at $\\tilde x = +1$, $\\tau = \\frac12$, $w_1(0) = 0.0025$, $w_2(0) = 0.1$. The only
    pre-activation drifts to 0 slowly, with $0.05 = 1 - \\tau - 0.45$ a factor of the rate, and is
    fast once past it. So when it crosses depends on $\\tau$ with a sensitivity of the order of
    1/0.05, and so does $w_1$ from then on. `measured` is a central difference of whole flows, at
    1.2 times the time of the crossing.

    What holds is $|W^\\tau_1 - W^0_1| \\le \\tau v$ with the repaired v (which is below 0.767 too).

    **Returns:**

    A [`Counterexample`][]; `repaired_measured` is $|W^\\tau_1 - W^0_1| / \\tau$.

    **Raises:**

    `ValueError` if `jax_enable_x64` is not set.
    """
    _validate.needs_x64("moving_kink")
    tau, beta, e = 0.5, 0.1, 0.05
    # 40 labels +1 at x = -1; at x = +1 29 of +1 and 11 of -1, whose mean is 1 - tau - e.
    x = np.repeat([[-1.0], [1.0]], 40, axis=0)
    y = np.concatenate([np.ones(69), -np.ones(11)])
    task = white_task(x, y)

    def first(tau: float, t: float) -> float:
        net = scalar_network(beta * e / 2, beta, tau)
        return float(_run(net, task, t).weights[0].squeeze())

    early, late = 0.5, 2.0  # w_1 decreases; bisect for its zero
    while late - early > 1e-9:
        middle = (early + late) / 2
        early, late = (middle, late) if first(tau, middle) > 0 else (early, middle)
    t = 1.2 * late
    difference = first(tau + KINK_STEP, t) - first(tau - KINK_STEP, t)
    printed, repaired = _bound_v(scalar_network(0.0, beta, tau), task, t, beta, 1.0)
    return result_of(
        abs(difference) / (2 * KINK_STEP),
        printed,
        abs(first(tau, t) - first(0.0, t)) / tau,
        repaired,
        name="moving-kink",
        statement="Lemma 7.1 with v of Eq. 10: ||dW_1/dtau|| <= v",
        setting=(
            f"d = n = 1, m = {len(y)}, L = 2, x = -1 and +1 equally often with mean labels 1 and "
            f"{y[40:].mean():g}, w_1(0) = {beta * e / 2:g}, w_2(0) = beta = {beta:g}, rho = 1, "
            f"epsilon = {tau:g}, t = {t:.4g}, 1.2 times the crossing at {late:.3g}."
        ),
    )


def _two_points(epsilon: Numeric) -> tuple[float, LeakyMLP, Task, str]:
    """epsilon, w_1 = w_2 = beta so small that w_1 w_2 grows, x = -1 and +1, words."""
    epsilon = _validate.scalar("epsilon", epsilon, low=0, high=1, open_low=True)
    beta = 0.1 * math.sqrt(epsilon)
    setting = f"w_1(0) = w_2(0) = beta = {beta:.3g}, epsilon = {epsilon:g}, t = "
    setting = f"d = n = 1, m = 2, L = 2, x = -1 and +1, y = 1, {setting}"
    task = white_task(np.array([[-1.0], [1.0]]), np.ones(2))
    return epsilon, scalar_network(beta, beta, epsilon), task, setting


def assumption_5_1(epsilon: Numeric = 1.0) -> Counterexample:
    """Assumption 5.1, $\\|(Y - f(\\tilde X)) \\tilde X^\\top\\|$ never exceeds its value at $t = 0$
    (Golikov, TMLR 12/2024; used in Eq. 52), is false for every $\\epsilon \\in (0, 1]$.

    $L = 2$, $d = n = 1$, $\\tilde x = \\pm1$, $y = 1$, $w_1(0) = w_2(0) = \\beta$. With
    $w = w_1 w_2$ the norm is $m (1 - \\frac\\epsilon2)\\, w$, and
    $\\dot w = w\\, [\\epsilon - (1 + (1 - \\epsilon)^2)\\, w]$: w grows from $\\beta^2$ to
    $\\epsilon / (1 + (1 - \\epsilon)^2)$ if it starts below. Here $\\beta = \\sqrt\\epsilon / 10$;
    `measured` is the norm over m at $t = 30 / \\epsilon$.

    What holds, as the loss does not increase, is the bound $\\bar1 = 1 + \\rho\\beta^L$ on the norm
    over m; `bounds.theorem_5_2(..., assumption_5_1=False)` uses it.

    **Arguments:**

    - `epsilon`: one minus the negative slope, in (0, 1].

    **Returns:**

    A [`Counterexample`][]; `repaired` is $\\bar1$.

    **Raises:**

    `ValueError` naming the argument.
    """
    _validate.needs_x64("assumption_5_1")
    epsilon, net, task, setting = _two_points(epsilon)
    t = 30 / epsilon

    def norm(net: LeakyMLP) -> float:
        return float(np.linalg.norm((task.y - np.asarray(net(task.x))) @ task.x)) / len(task.y)

    late, beta = norm(_run(net, task, t).network()), float(net.weights[0].squeeze())
    numbers = (late, norm(net), late, 1 + beta**2)
    return result_of(
        *numbers,
        name="assumption-5.1",
        statement="Assumption 5.1 (for Eq. 52): ||(Y - f(X)) X^T|| <= its value at t = 0",
        setting=f"{setting}{t:g}, norms over m.",
    )


def conjecture_e_1(epsilon: Numeric = 1.0) -> Counterexample:
    """Conjecture E.1, $\\sum_l \\text{tr}[\\nabla^X_l \\nabla_l^\\top] \\ge 0$ (Golikov, TMLR
    12/2024, Appendix E), is false for every $\\epsilon \\in (0, 1]$. There
    $\\nabla_l = \\partial_{W_l} \\frac1{2m} \\|Y - f(\\tilde X)\\|^2$ (Eq. 104-105) and
    $\\nabla^X_l = \\partial_{W_l} \\frac1{2m} \\|(Y - f(\\tilde X)) \\tilde X^\\top\\|^2$
    (Eq. 106-107).

    On the data of [`assumption_5_1`][] both gradients are multiples of $(w_2, w_1)$, of opposite
    signs while $w = w_1 w_2$ is below its limit; the sum is
    $m (1 - \\frac\\epsilon2)^2 w^2 [(1 + (1 - \\epsilon)^2)\\, w - \\epsilon]$. As `bound` is an
    upper bound, 0, `measured` is *minus* the sum, where it is largest along the flow; at that
    rate the projected loss of Assumption 5.1 grows. Nothing replaces the conjecture; for
    $\\epsilon = 0$ it holds (Eq. 108-109).

    **Arguments:**

    - `epsilon`: one minus the negative slope, in (0, 1].

    **Returns:**

    A [`Counterexample`][] with an infinite `ratio`.

    **Raises:**

    `ValueError` naming the argument.
    """
    _validate.needs_x64("conjecture_e_1")
    epsilon, net, task, setting = _two_points(epsilon)
    # The sum is smallest near t = 5 / epsilon.
    ts = jnp.linspace(0, 10 / epsilon, 1001)
    run = _run(net, task, 10 / epsilon, diffrax.SaveAt(ts=ts))

    def minus_sum(weights: Weights) -> Float[Array, ""]:
        def loss(weights, project):
            residual = task.y - LeakyMLP(weights, net.epsilon)(task.x)
            return jnp.sum((residual @ task.x if project else residual) ** 2) / 4  # 2m

        pairs = zip(*(jax.grad(loss)(weights, project) for project in (True, False)), strict=True)
        return -jnp.sum(jnp.stack([jnp.trace(a @ b.T) for a, b in pairs]))

    values = np.asarray(jax.jit(jax.vmap(minus_sum))(run.weights))
    return result_of(
        float(values.max()),
        0.0,
        name="conjecture-e.1",
        statement="Conjecture E.1 (Eq. 104-107): -sum_l tr[grad^X_l grad_l^T] <= 0",
        setting=f"{setting}{ts[values.argmax()]:g}.",
    )
