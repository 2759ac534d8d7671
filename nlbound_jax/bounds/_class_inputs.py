"""What the bounds for several classes need of the inputs: coordinates, metrics and moments."""

import math

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .. import _validate
from .._types import AnyArray
from ._class_norms import checked_positions
from ._held_out import mean_limit_root

_EXPONENTS = (0.0, 0.25, 0.5, 0.75, 1.0)
# With a ridge no direction is free, not even one in which the sample is zero.
_RIDGES = (1e-3, 1e-2)
_PLUG_IN_RIDGES = (1e-6, 1e-3)
# Of entries: their squares and the reciprocals of these are numbers of double precision.
_SIZES = (1e-60, 1e60)


class ClassInputs(eqx.Module):
    """Coordinates for the linear part of a network, `(t)`, metrics for the patches that its
    nonlinear part sees, `(f)`, and moments of the inputs in them.

    **Attributes:**

    - `forward`: x becomes `x @ forward[t]`, `(t p d)`.
    - `back`: a linear part l becomes `l @ back[t]`, `(t p d)`.
    - `spectra`: second moments along these coordinates where they were fixed, before scaling:
        priors are made of them, `(t d)`.
    - `input_norms`: of the sample in these coordinates, `(t m)`.
    - `noise_roots`: the root of $E\\|x\\|^2$ in them, `(t,)`.
    - `metrics`: $M^{1/2}$, `(f q q)`; `weights`: $\\omega$, `(f positions)`.
    - `traces`, `spreads`: T and $\\Lambda$ of [`class_root`][], `(f,)`.
    - `plug_in`: whether the sample's moments stand for the distribution's.
    - `delta`: the probability that some moment is too small, if nothing is plugged in.
    """

    forward: Float[Array, "t p d"]
    back: Float[Array, "t p d"]
    spectra: Float[Array, "t d"]
    input_norms: Float[Array, "t m"]
    noise_roots: Float[Array, " t"]
    metrics: Float[Array, "f q q"]
    weights: Float[Array, "f positions"]
    traces: Float[Array, " f"]
    spreads: Float[Array, " f"]
    plug_in: bool = eqx.field(static=True)
    delta: float = eqx.field(static=True)


def _moment(x):
    return x.T @ x / len(x)


def _at(moment, positions):
    """The second moments of all patches; what lies outside of the image is 0."""
    padded = np.pad(moment, ((0, 1), (0, 1)))
    return padded[positions[:, :, None], positions[:, None, :]]


def class_inputs(
    inputs: Float[AnyArray, "m p"],
    reference: Float[AnyArray, "n p"] | None = None,
    *,
    positions: Int[AnyArray, "positions q"] | None = None,
    norm_bound: float | None = None,
    delta: float = 1e-3,
    exponents: tuple[float, ...] = _EXPONENTS,
    ridges: tuple[float, ...] | None = None,
) -> ClassInputs:
    """What [`class_split_bound`][] and [`class_anchored_bound`][] need of the inputs.

    With `reference` inputs, which do not depend on the sample, coordinates and metrics are
    functions of these, and the moments are upper confidence limits: nothing is plugged in. Without,
    the sample's own second moment stands for that of the distribution (the plug-in); the largest
    eigenvalue, which on a sample that was whitened with itself is exactly 1, is then raised to
    $(\\sqrt\\lambda + \\sqrt{T/m})^2$, its mean over fresh samples if inputs were Gaussian.

    **Arguments:**

    - `inputs`: the sample's inputs, `(m p)`.
    - `reference`: inputs that do not depend on them, without labels, `(n p)`, or `None`.

    **Other arguments:**

    - `positions`: of [`patch_positions`][]; `None` for a dense network.
    - `norm_bound`: R with $\\|x\\| \\le R$ for every input, known beforehand; needed with
        `reference`.
    - `delta`: the share of the confidence spent here.
    - `exponents`: a of the metrics $M \\propto (\\Sigma + \\eta)^{1-a}$, in [0, 1].
    - `ridges`: $\\eta$ over the mean eigenvalue, positive: what is seen of no direction is paid for
        nevertheless. By default 0.001 and 0.01, for the plug-in 1e-6 and 0.001.

    **Returns:**

    A [`ClassInputs`][].

    **Raises:**

    `ValueError` naming the argument, or if `jax_enable_x64` is not set.
    """
    _validate.needs_x64("class_inputs")
    delta = _validate.scalar("delta", delta, 0, 1, open_low=True, open_high=True)
    _check_tuple("exponents", exponents, 0, 1)
    if ridges is None:
        ridges = _PLUG_IN_RIDGES if reference is None else _RIDGES
    _check_tuple("ridges", ridges, 0, math.inf, open_low=True)
    x = _array("inputs", inputs)
    moment = _moment(x)
    if not moment.any():
        raise ValueError("`inputs` must not all be zero, got zeros.")
    dim = x.shape[1]
    places = np.arange(dim)[None] if positions is None else checked_positions(positions, dim)
    known = moment
    if reference is not None:
        known = _reference_moment(reference, dim)
    elif norm_bound is not None:
        raise ValueError("`norm_bound` must be None without `reference`, got a number.")
    pairs = [(a, eta) for a in exponents for eta in ridges]
    linear = [_coordinates(known, a, eta) for a, eta in pairs]
    local = _at(known, places)
    if not local.any():
        raise ValueError("`positions` must see inputs that are not all zero, got zeros.")
    patches = [
        _metric(local, a, eta, flat) for a, eta in pairs for flat in (True, False)[: len(places)]
    ]
    norms = np.stack([np.linalg.norm(x @ forward, axis=1) for forward, _, _ in linear])
    squares = np.mean(norms**2, axis=1)
    sample = _at(moment, places)
    found = [_moments(sample, inverse, weights) for _, inverse, weights in patches]
    traces, spreads = (np.asarray(column) for column in zip(*found, strict=True))
    if reference is None:
        spreads = (np.sqrt(spreads) + np.sqrt(traces / len(x))) ** 2
    else:
        radius = _radius(norm_bound, x)
        share = len(x), delta, len(linear) + 2 * len(patches)
        bound = [radius**2 * np.linalg.norm(forward, 2) ** 2 for forward, _, _ in linear]
        squares = mean_limit_root(squares, np.asarray(bound), *share) ** 2
        largest = [_largest(places, dim, inverse, w) for _, inverse, w in patches]
        largest = radius**2 * np.asarray(largest)
        traces = mean_limit_root(traces, largest, *share) ** 2
        # An eigenvalue is at most the trace.
        spreads = np.minimum(mean_limit_root(spreads, largest, *share) ** 2, traces)
    forward, back, spectra = (jnp.asarray(np.stack(part)) for part in zip(*linear, strict=True))
    return ClassInputs(
        forward=forward,
        back=back,
        spectra=spectra,
        input_norms=jnp.asarray(norms),
        noise_roots=jnp.asarray(np.sqrt(squares)),
        metrics=jnp.asarray(np.stack([root for root, _, _ in patches])),
        weights=jnp.asarray(np.stack([weights for _, _, weights in patches])),
        traces=jnp.asarray(traces),
        spreads=jnp.asarray(spreads),
        plug_in=reference is None,
        delta=0.0 if reference is None else delta,
    )


def _check_tuple(name, given, low, high, **ends):
    if not isinstance(given, tuple) or not given:
        raise ValueError(
            f"`{name}` must be a tuple of at least one number, got {_validate.shown(given)}."
        )
    for number in given:
        _validate.scalar(name, number, low, high, **ends)


def _reference_moment(reference, dim):
    held_out = _array("reference", reference)
    if held_out.shape[1] != dim:
        raise ValueError(
            f"`reference` must have {dim} columns as `inputs`, got {held_out.shape[1]}."
        )
    moment = _moment(held_out)
    if not moment.any():
        raise ValueError("`reference` must not all be zero, got zeros.")
    return moment


def _array(name, value):
    found = _validate.numeric(name, value, "an array of numbers").astype(float)
    _validate.finite(name, (found,))
    if found.ndim != 2 or 0 in found.shape:
        raise ValueError(f"`{name}` must have shape (samples, features), got {found.shape}.")
    largest = float(np.abs(found).max())
    if largest and not _SIZES[0] <= largest <= _SIZES[1]:
        raise ValueError(
            f"`{name}` must have a largest entry in [{_SIZES[0]:g}, {_SIZES[1]:g}], got "
            f"{largest:g}."
        )
    return found


def _radius(norm_bound, x):
    if norm_bound is None:
        raise ValueError("`norm_bound` must be a number with `reference`, got None.")
    radius = _validate.scalar("norm_bound", norm_bound, low=0, open_low=True)
    largest = float(np.linalg.norm(x, axis=1).max())
    if largest > radius * (1 + 1e-6):
        raise ValueError(
            f"`norm_bound` must be at least the largest norm in `inputs`, {largest:g}, "
            f"got {radius:g}."
        )
    return max(radius, largest)


def _eigen(moment, eta):
    """Eigenvalues with the ridge, their vectors, and those without."""
    values, vectors = np.linalg.eigh(moment)
    values = np.maximum(values, 0.0)
    return values + eta * values.mean(), vectors, values


def _coordinates(moment, a, eta):
    """Of a linear part: in them the inputs' second moment has the trace d where they were fixed."""
    raised, vectors, values = _eigen(moment, eta)
    scales = raised ** (1 - a)
    scales = scales * (np.sum(values / scales) / len(scales))
    return vectors / np.sqrt(scales), vectors * np.sqrt(scales), raised


def _metric(local, a, eta, flat):
    """$M^{1/2}$, the inverse of M and the weights of positions, with T = 1 where they were
    fixed. Weights are flat, or larger where patches are small."""
    raised, vectors, _ = _eigen(local.mean(axis=0), eta)
    scales = raised ** (1 - a)
    inverse = (vectors / scales) @ vectors.T
    sizes = np.maximum(np.einsum("pij,ij->p", local, inverse), 0.0)
    sizes = np.maximum(sizes, 1e-2 * sizes.mean())
    weights = np.ones(len(local)) if flat else np.sqrt(sizes.mean() / sizes)
    total = _moments(local, inverse, weights)[0]
    return (vectors * np.sqrt(scales * total)) @ vectors.T, inverse / total, weights


def _moments(local, inverse, weights):
    """$\\sum_p \\omega_p \\tau_p$ and $\\sum_p \\omega_p \\lambda_p$ in the metric."""
    values, vectors = np.linalg.eigh(inverse)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    scaled = root.T @ local @ root
    traces = np.trace(scaled, axis1=1, axis2=2)
    return weights @ traces, weights @ np.linalg.eigvalsh(scaled)[:, -1]


def _largest(places, dim, inverse, weights):
    """The largest $\\sum_p \\omega_p \\|\\pi_p x\\|_{M^{-1}}^2$ over $\\|x\\| \\le 1$."""
    form = np.zeros((dim + 1, dim + 1))
    for place, weight in zip(places, weights, strict=True):
        np.add.at(form, (place[:, None], place[None, :]), weight * inverse)
    return float(np.linalg.eigvalsh(form[:dim, :dim])[-1])
