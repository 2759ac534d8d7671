"""What several tests share: one elementwise comparison, small problems, the mpmath oracle."""

import os
import subprocess
import sys

import diffrax
import equinox as eqx
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import scipy.special

# Relative to each expected entry; per dtype, never per backend or size.
TOLERANCE = {np.dtype("float32"): 2e-5, np.dtype("float64"): 1e-12}

# Seconds after which a process hangs: far more than any takes, also on a busy machine.
TIMEOUT = 1200


def assert_close(actual, expected, rtol=None, atol=0.0):
    """Every entry within `rtol` of the expected entry (or `atol`); shapes must agree.

    `rtol` is what float64 must reach; a float32 result is asked for no more than its own entry
    of the table. An infinity must be met by the same one: no tolerance reaches it.
    """
    actual = np.asarray(actual)
    least = TOLERANCE.get(actual.dtype, 1e-12)
    rtol = least if rtol is None else rtol
    if actual.dtype == np.float32:
        rtol = max(rtol, least)
    actual = actual.astype(float)
    expected = np.asarray(expected, float)
    assert actual.shape == expected.shape, f"shape {actual.shape}, expected {expected.shape}"
    finite = np.isfinite(actual) & np.isfinite(expected)
    size = np.abs(np.where(finite, expected, 0.0))
    error = np.abs(np.subtract(actual, expected, where=finite, out=np.full(actual.shape, np.inf)))
    error = np.where(actual == expected, 0.0, error)
    bad = error > rtol * size + atol
    assert not bad.any(), (
        f"{bad.sum()} of {bad.size} entries differ, the worst by {np.max(error[bad])} "
        f"at {np.argwhere(bad)[0]}: {actual[bad][0]} against {expected[bad][0]}"
    )


def numpy_network(weights, epsilon, x):
    """Eq. 2-3 in NumPy, for inputs `(samples d)`."""
    h = x.T
    for w in weights[:-1]:
        z = np.asarray(w, float) @ h
        h = np.maximum(z, 0) + (1 - epsilon) * np.minimum(z, 0)
    return (np.asarray(weights[-1], float) @ h)[0]


class EqualSteps(diffrax.ConstantStepSize):
    """Steps of one length, also where no first step is given. Two compilations of a solve may
    round its adaptive steps to other lengths; with these they agree to a few roundings."""

    step: float

    def init(self, terms, t0, t1, y0, dt0, args, func, error_order):
        dt0 = jnp.asarray(self.step, t0.dtype)
        return super().init(terms, t0, t1, y0, dt0, args, func, error_order)


def traced_anew(monkeypatch, module, name):
    """Put `module.name`, a `filter_jit`, there without the traces that it has: the next call is
    traced, and with what is patched until then. (`jax.clear_caches` would have every later test of
    the worker compile again.)"""
    function = getattr(module, name).__wrapped__

    @eqx.filter_jit
    def again(*args, **kwargs):
        return function(*args, **kwargs)

    monkeypatch.setattr(module, name, again)


def small_data(seed=0, m=120, d=4, test=40):
    """Inputs and noisy labels of a bent function, for training and test, by name."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(m + test, d)) * np.arange(1, d + 1)
    score = x[:, 0] + 0.5 * np.abs(x[:, 1]) + 0.4 * x[:, -1] + rng.normal(size=m + test)
    y = np.where(score > 0.3, 1, -1)
    return {"x": x[:m], "y": y[:m], "x_test": x[m:], "y_test": y[m:]}


def small_task(seed=0, m=120, d=4, test=40):
    """A small task, of `small_data`."""
    from nlbound_jax import tasks

    return tasks.from_arrays(**small_data(seed, m, d, test))


def oracle_constants(depth, epsilon, beta, rho, s, reading, assumption=True):
    """one, sbar, shat and beta_bar in mpmath, from THEOREM 5.2 (sqrt(rho)) or its repair (rho)."""
    one = 1 + rho * beta**depth
    linear = s + rho * beta**depth if assumption else one

    def sbar(factor):
        return (1 - epsilon) * linear + epsilon * factor * (depth - 1) * one

    factor = mp.sqrt(rho) if reading == "printed" else rho
    shat = depth * sbar(1) / (1 + (depth - 1) * rho)
    return one, sbar(1), shat, beta * sbar(factor) / sbar(1)


def blow_up_time(depth, epsilon, beta, rho, s, reading):
    """The time at which u blows up (depth >= 3), in mpmath."""
    _, sbar, _, beta_bar = oracle_constants(
        depth, *(mp.mpf(v) for v in (epsilon, beta, rho, s)), reading
    )
    return beta_bar ** (2 - depth) / ((depth - 2) * sbar)


def oracle_u_log_v(depth, t, epsilon, beta, rho, s, reading, assumption=True):
    """u and log v in mpmath. Printed: Eq. 10-11 with `mpmath.gammainc`. Repaired: quadrature
    of the closed form, in log z. Nothing is shared with the library."""
    t, epsilon, beta, rho, s = (mp.mpf(float(v)) for v in (t, epsilon, beta, rho, s))
    one, sbar, shat, beta_bar = oracle_constants(depth, epsilon, beta, rho, s, reading, assumption)
    if depth == 2:
        u = beta_bar * mp.e ** (sbar * t)
    else:
        u = (beta_bar ** (2 - depth) - (depth - 2) * sbar * t) ** (mp.mpf(1) / (2 - depth))
    if reading == "printed":

        def w(z):
            first = one / sbar * mp.gammainc(mp.mpf(2 - depth) / depth, z**depth / shat)
            second = rho * shat / sbar * mp.gammainc(mp.mpf(2) / depth, z**depth / shat)
            return -first - second

        factor = mp.mpf(depth - 1) / depth * shat ** (mp.mpf(2 - depth) / depth)
        return u, mp.log(factor * u ** (depth - 1) * (w(u) - w(beta))) + u**depth / shat
    eta = (depth - 1) * (s + beta**depth) / sbar
    top, start = mp.log(u / beta_bar), beta_bar**depth / sbar
    end = min(top, mp.log(1 + 100 / start) / depth)

    def integrand(x):
        bend = mp.e ** (-start * mp.expm1(depth * x) + (1 - eta) * x)
        return bend * (one + beta_bar**depth * mp.e ** (depth * x))

    knee = mp.log(mp.mpf("0.01") / start) / depth
    inner = (knee / 2, knee, *(knee + mp.mpf(k) / depth for k in (3, 6, 8)))
    points = [0, *(p for p in inner if 0 < p < end), end]
    value = (depth - 1) * rho / sbar * beta_bar * mp.quad(integrand, points)
    return u, mp.log(value) + eta * top + start * mp.expm1(depth * top)


def kl_inverse(p, c):
    """The inverse of the binary relative entropy, by bisection with SciPy's terms."""
    low, high = p, 1.0
    for _ in range(200):
        q = (low + high) / 2
        kl = scipy.special.rel_entr(p, q) + scipy.special.rel_entr(1 - p, 1 - q)
        low, high = (q, high) if kl <= c else (low, q)
    return high


def run_on_three_devices(script):
    """Run a script in a process of three CPU devices in float64; its last word must be `done`."""
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "3", "JAX_ENABLE_X64": "1"}
    command = [sys.executable, "-c", script]
    made = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT)
    assert made.returncode == 0, made.stderr
    assert made.stdout.split()[-1] == "done"
