"""The split bound and the anchored bound of a network with several outputs."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import _validate, bounds
from .._types import Data
from ..networks import LeakyConv, LeakyMLP
from ._module import _errs, _inputs, _labels, _outputs, _share, _test_set

_BATCH = 1000
# The part of the confidence that the moments of the inputs are given, where none is plugged in.
_MOMENTS = 0.1
# A filter of the anchor counts as at least this part of their root mean square.
_FLOOR = 0.2

PLUG_IN = ("the sample's second moment of the inputs for the distribution's",)


class ClassCertificate(eqx.Module):
    """What [`certify_classes`][] found.

    **Attributes:**

    - `value`: the certificate, a bound on the error probability, at most 1.
    - `bound`: every term, a [`ClassBound`][]; in the units in which the largest weight of each
        layer (of the anchor, if there is one) is 1.
    - `anchor_bound`: what the sample says of the anchor alone, at the same `delta`, or `None`.
    - `risk`: the share of the sample on which `"network"` (and `"anchor"`) errs.
    - `test_risk`: the same of the test set, or `None`.
    - `assumes`: what is taken for granted besides independent samples, a tuple of sentences.
    - `num_samples`: m.
    - `delta`: one minus the confidence.
    """

    value: float
    bound: bounds.ClassBound
    anchor_bound: float | None
    risk: dict[str, float]
    test_risk: dict[str, float] | None
    assumes: tuple[str, ...] = eqx.field(static=True)
    num_samples: int = eqx.field(static=True)
    delta: float = eqx.field(static=True)


def certify_classes(
    net: LeakyMLP | LeakyConv,
    x: Data,
    y: Data,
    *,
    anchor: LeakyMLP | LeakyConv | None = None,
    x_first: Data | None = None,
    norm_bound: float | None = None,
    delta: float = 0.01,
    grid: bounds.ClassGrid | None = None,
    x_test: Data | None = None,
    y_test: Data | None = None,
) -> ClassCertificate:
    """A generalization bound for a network of one hidden layer (L = 2), dense or convolutional,
    with two or more outputs, that was trained in any way. Certified is the network itself. An
    answer is right if the output of the label is greater than all others: a tie is an error.
    Statement and proof are in `nlbound_jax/bounds/README.md`, section 9.

    - Without `x_first` it is the split bound with the sample's second moment plugged in for that of
      the distribution: `assumes` says so.
    - With `x_first`, inputs that `x` does not depend on, and `norm_bound` nothing is plugged in.
    - With an `anchor` as well it is the anchored bound: the anchor is a function of a first part of
      the sample, S1, whose inputs are `x_first`; `x` and `y` are the other part.

    **Main arguments:**

    - `net`: the network.
    - `x`: inputs, `(m ...)`: those that the network was trained on, or independent of it.
    - `y`: their labels, integers from 0 to K - 1, `(m,)`.

    **Other arguments:**

    - `anchor`: a network of the same architecture and slope that S1 and independent randomness
        determine: no other sample has any part in it, also not in when its training stopped.
    - `x_first`: the inputs of S1, or others that are independent of `x`.
    - `norm_bound`: R with $\\|x\\| \\le R$ for every input, known beforehand.
    - `delta`: one minus the confidence.
    - `grid`: the cells, fixed before `x` is seen.
    - `x_test`, `y_test`: a test set; only measured.

    **Returns:**

    A [`ClassCertificate`][].

    **Raises:**

    `ValueError` naming the argument.
    """
    delta = _validate.scalar("delta", delta, 0, 1, open_low=True, open_high=True)
    _check_network("net", net)
    if anchor is not None:
        _check_anchor(net, anchor)
        if x_first is None:
            raise ValueError("`x_first` must be the inputs of S1 with an `anchor`, got None.")
    if (x_first is None) != (norm_bound is None):
        raise ValueError("`norm_bound` and `x_first` must both be given, or none, got one of them.")
    inputs = _inputs("x", x)
    classes = _outputs(net, inputs)
    if classes < 2:
        raise ValueError("`net` must have two outputs or more, got one.")
    labels = _labels("y", y, len(inputs), classes)
    tested = _test_set(inputs, x_test, y_test, classes)
    first = None if x_first is None else _inputs("x_first", x_first)
    if first is not None and first.shape[1:] != inputs.shape[1:]:
        raise ValueError(
            f"`x_first` must have inputs of shape {inputs.shape[1:]}, got {first.shape[1:]}."
        )
    for name, given in (("x", inputs), ("x_first", first)):
        if given is not None and not given.any():
            raise ValueError(f"`{name}` must not all be zero, got zeros.")
    with jax.enable_x64(True):
        nets = _in_units(net, anchor)
        outputs = {name: _evaluate(one, inputs) for name, one in nets.items()}
        positions = _positions(net)
        flat = None if first is None else np.asarray(first, float).reshape(len(first), -1)
        known = bounds.class_inputs(
            np.asarray(inputs, float).reshape(len(inputs), -1),
            flat,
            positions=positions,
            norm_bound=norm_bound,
            delta=_MOMENTS * delta,
        )
        share = delta if known.plug_in else (1 - _MOMENTS) * delta
        unit = None if first is None or anchor is None else _unit(nets["anchor"], first)
        found = _bound(nets, outputs["network"], labels, positions, known, unit, share, grid)
        risk = {name: _share(_wrong(out, labels)) for name, out in outputs.items()}
        test_risk = None
        if tested is not None:
            x_t, y_t = tested
            test_risk = {n: _share(_wrong(_evaluate(one, x_t), y_t)) for n, one in nets.items()}
        limit = None
        if anchor is not None:
            count = len(labels)
            limit = float(bounds.binomial_upper(round(risk["anchor"] * count), count, delta))
    value = float(found.value)
    return ClassCertificate(
        value=value if value < 1 else 1.0,
        bound=found,
        anchor_bound=limit,
        risk=risk,
        test_risk=test_risk,
        assumes=PLUG_IN if known.plug_in else (),
        num_samples=len(labels),
        delta=delta,
    )


def _check_network(name: str, net: Any) -> None:
    if not isinstance(net, LeakyMLP | LeakyConv) or net.depth != 2:
        raise ValueError(
            f"`{name}` must be a LeakyMLP or a LeakyConv of two layers, got {_validate.shown(net)}."
        )
    _validate.finite(name, _layers(net))
    _validate.real(f"{name}.epsilon", net.epsilon, 0, 1)


def _check_anchor(net: Any, anchor: Any) -> None:
    _check_network("anchor", anchor)
    same = jax.tree.structure(net) == jax.tree.structure(anchor)
    shapes = [[w.shape for w in _layers(one)] for one in (net, anchor)]
    if not same or shapes[0] != shapes[1] or float(net.epsilon) != float(anchor.epsilon):
        raise ValueError("`anchor` must be as `net` is in all but the values of its weights.")


def _layers(net: LeakyMLP | LeakyConv) -> tuple[Array, ...]:
    return net.weights if isinstance(net, LeakyMLP) else (*net.filters, net.head)


def _in_units(net: Any, anchor: Any) -> dict[str, Any]:
    """The networks in float64, each layer over the largest weight that the layer of the anchor
    (of the network, if there is none) has: answers do not change, and nothing underflows."""
    given = {"network": net} | ({} if anchor is None else {"anchor": anchor})
    layers = {n: [np.asarray(w, float) for w in _layers(one)] for n, one in given.items()}
    units = [
        float(np.abs(w).max()) or 1.0 for w in layers["network" if anchor is None else "anchor"]
    ]

    def scaled(name, one):
        new = [jnp.asarray(w / unit) for w, unit in zip(layers[name], units, strict=True)]
        epsilon = jnp.asarray(np.asarray(one.epsilon, float))
        if isinstance(one, LeakyMLP):
            return LeakyMLP(tuple(new), epsilon)
        options = {key: getattr(one, key) for key in ("stride", "padding", "pool")}
        return LeakyConv((new[0],), new[1], epsilon, one.shape, **options)

    return {name: scaled(name, one) for name, one in given.items()}


def _evaluate(net: Any, x: Array) -> Float[Array, "m K"]:
    x = jnp.asarray(np.asarray(x, float))
    return jax.jit(lambda x: jax.lax.map(net, x, batch_size=min(_BATCH, len(x))))(x)


def _wrong(outputs: Float[Array, "m K"], labels: Array) -> Array:
    return jax.vmap(_errs)(outputs, labels)


def _positions(net: Any) -> np.ndarray | None:
    if isinstance(net, LeakyMLP):
        return None
    size = net.filters[0].shape[2:]
    return bounds.patch_positions(net.shape, size, stride=net.stride, padding=net.padding)


def _parts(net: Any) -> tuple[Array, Array]:
    """Flattened filters, and what each contributes to the outputs at every position."""
    if isinstance(net, LeakyMLP):
        return net.weights[0], net.weights[1].T[:, None, :]
    height, width = (
        (side + 2 * net.padding - size) // net.stride + 1
        for side, size in zip(net.shape[1:], net.filters[0].shape[2:], strict=True)
    )
    columns = bounds.pooled_columns(net.head, height, width, net.pool)
    return net.filters[0].reshape(len(net.filters[0]), -1), columns


def _unit(anchor: Any, x: Array) -> float:
    """The root mean square of the anchor's margins on S1, whatever the labels."""
    top = np.sort(np.asarray(_evaluate(anchor, x)), axis=1)
    return float(np.sqrt(np.mean((top[:, -1] - top[:, -2]) ** 2))) or 1.0


def _bound(nets, outputs, labels, positions, known, unit, delta, grid) -> bounds.ClassBound:
    """The bound of networks in units; around the anchor if there is one."""
    net = nets["network"]
    filters, columns = _parts(net)
    dim, classes = known.forward.shape[1], columns.shape[2]
    places = np.arange(dim)[None] if positions is None else positions

    def linear(one):
        straight = bounds.class_linear_part(*_parts(one), places, epsilon=net.epsilon, dim=dim)
        return jnp.einsum("kp,tpd->tkd", straight, known.back, precision="highest")

    straight, extra = linear(net), {}
    function = bounds.class_split_bound
    if unit is not None:
        centre, other = _parts(nets["anchor"])
        sizes = bounds.filter_norms(centre, known.metrics)
        floor = _FLOOR * jnp.sqrt(jnp.mean(sizes**2, axis=1, keepdims=True))
        profile = jnp.maximum(sizes, jnp.where(floor > 1e-9, floor, 1.0))
        moves = bounds.filter_norms(filters - centre, known.metrics) / profile
        fixed = jnp.sum(profile * bounds.column_norms(other, known.weights), axis=1)
        extra = {
            "moves": jnp.max(moves, axis=1),
            "anchor_paths": fixed * jnp.sqrt(known.traces),
            "unit": unit,
        }
        straight, columns = straight - linear(nets["anchor"]), columns - other
        function = bounds.class_anchored_bound
    return function(
        outputs,
        labels,
        known.input_norms,
        epsilon=net.epsilon,
        linear=straight,
        paths=bounds.class_paths(filters, columns, known.metrics, known.weights),
        roots=bounds.class_root(known.traces, known.spreads, classes, len(places)),
        noise_roots=known.noise_roots,
        spectra=known.spectra,
        delta=delta,
        grid=grid,
        **extra,
    )
