"""The one-draw bound of any Equinox module that classifies."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, PRNGKeyArray, PyTree

from .. import _validate, bounds
from .._modules import in_training
from .._types import AnyArray, Data
from ..networks import partition, without_slopes


class ModuleCertificate(eqx.Module):
    """What [`certify_module`][] found.

    **Attributes:**

    - `value`: the certificate: a bound on the error probability of `drawn`, at most 1.
    - `drawn`: the network that it is about, a module like the given one: its parameters plus one
        draw of noise.
    - `anchor_bound`: what S2 says of the anchor, with the same `delta` for itself. It holds beside
        `value` at twice `delta` in all; `bound.anchor_bound` holds beside it for free.
    - `information`: what each leaf adds to the information, in nats, by its path in the module. A
        part may be negative.
    - `risk`: the share of S2 on which `"anchor"`, `"network"` and `"drawn"` err.
    - `test_risk`: the same of the test set, or `None`.
    - `bound`: every term, an [`OneDrawBound`][].
    - `num_samples`: n, the size of S2.
    - `delta`: one minus the confidence.
    """

    value: float
    drawn: eqx.Module
    anchor_bound: float
    information: dict[str, float]
    risk: dict[str, float]
    test_risk: dict[str, float] | None
    bound: bounds.OneDrawBound
    num_samples: int = eqx.field(static=True)
    delta: float = eqx.field(static=True)


def certify_module(
    net: eqx.Module,
    anchor: eqx.Module,
    x: Data,
    y: Data,
    *,
    key: PRNGKeyArray,
    delta: float = 0.01,
    scales: PyTree = None,
    factors: AnyArray | tuple[float, ...] = tuple(0.02 * 1.5**i for i in range(12)),
    etas: tuple[float, ...] = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6),
    batch: int = 1000,
    x_test: Data | None = None,
    y_test: Data | None = None,
) -> ModuleCertificate:
    """A generalization bound for a classifier of any architecture, trained in any way: the one-draw
    bound ([`one_draw_bound`][]) around an anchor. Split the sample by a random permutation that is
    fixed beforehand; train an anchor on the first part, S1; train the network from there on all
    data, close to the anchor ([`information_penalty`][]). Certified, with probability
    $1 - \\delta$ over S2 and the draw, is the network *plus one draw of noise*, which is returned.
    Statement and proof are in `nlbound_jax/bounds/README.md`, section 8.2.

    An answer is right if the output of the label is greater than all others: a tie or NaN is an
    error.

    **Main arguments:**

    - `net`: the network, a function `net(x)` of one input. Its parameters are all its floating
        JAX arrays but the slopes of a [`LeakyMLP`][] or [`LeakyConv`][]; anything else in it must
        be the same in the anchor. Dropout and BatchNorm must be in inference mode; of a network
        with a state (BatchNorm) give a module that holds both, the state as the anchor left it:
        its statistics count as parameters.
    - `anchor`: a module of the same structure that S1 and independent randomness determine: neither
        S2 nor what was trained on it has any part in it, also not in when its training stopped or
        how it was tuned.
    - `x`: the inputs of S2, `(n ...)`, which the anchor has not seen.
    - `y`: their labels, `(n,)`: 0 to K - 1 for K outputs, -1 and 1 for a single output.

    **Other arguments:**

    - `key`: for the draw; nothing else has used it, and the network must not be chosen by what it
        gave: not by `value` either.
    - `delta`: one minus the confidence.
    - `scales`: noise scales that S1 determines, a positive number or a PyTree prefix of the
        parameters (`networks.partition(net)[0]`) with a positive number or array for
        each leaf; by default [`leaf_scales`][] of the anchor.
    - `factors`: of the scales, `(factors,)`, fixed before S2 is seen: all are tried and paid for.
    - `etas`: of the excess form, as in [`one_draw_bound`][].
    - `batch`: samples that are evaluated at once.
    - `x_test`, `y_test`: a test set; only measured.

    **Returns:**

    A [`ModuleCertificate`][].

    **Raises:**

    `ValueError` naming the argument.
    """
    delta = _validate.scalar("delta", delta, 0, 1, open_low=True, open_high=True)
    batch = _validate.integer("batch", batch, 1)
    parameters, static = _parameters("net", net)
    centre, other = _parameters("anchor", anchor)
    same = jax.tree.structure(parameters) == jax.tree.structure(centre)
    shapes = [[w.shape for w in jax.tree.leaves(tree)] for tree in (parameters, centre)]
    if not same or shapes[0] != shapes[1] or not eqx.tree_equal(static, other):
        raise ValueError("`anchor` must be as `net` is in all but the values of its parameters.")
    inputs = _inputs("x", x)
    classes = _outputs(net, inputs)
    data = inputs, _labels("y", y, len(inputs), classes)
    wrong = _errors(static, batch, bool(jax.config.read("jax_enable_x64")))
    tested = _test_set(inputs, x_test, y_test, classes)
    with jax.enable_x64(True):
        # Scales made of the whole module have one for a slope, which is no parameter.
        found = bounds.one_draw_bound(
            parameters,
            centre,
            lambda p: wrong(p, *data),
            scales=bounds.leaf_scales(centre) if scales is None else without_slopes(scales),
            key=key,
            delta=delta,
            factors=factors,
            etas=etas,
        )
        risk = {"anchor": float(found.anchor_risk), "network": _share(wrong(parameters, *data))}
        risk["drawn"] = float(found.empirical)
        test_risk = None
        if tested is not None:
            nets = {"anchor": centre, "network": parameters, "drawn": found.parameters}
            test_risk = {name: _share(wrong(p, *tested)) for name, p in nets.items()}
        count = len(data[1])
        limit = bounds.binomial_upper(round(risk["anchor"] * count), count, delta)
    leaves = jax.tree_util.tree_leaves_with_path(found.leaf_information)
    return ModuleCertificate(
        value=min(float(found.value), 1.0),
        drawn=eqx.combine(found.parameters, static),
        anchor_bound=float(limit),
        information={jax.tree_util.keystr(path): float(part) for path, part in leaves},
        risk=risk,
        test_risk=test_risk,
        bound=found,
        num_samples=count,
        delta=delta,
    )


def _share(wrong: Array) -> float:
    return float(np.mean(np.asarray(wrong)))


def _parameters(name: str, net: Any) -> tuple[PyTree, PyTree]:
    """The floating arrays of a module, and the rest of it."""
    if not isinstance(net, eqx.Module) or not callable(net):
        raise ValueError(f"`{name}` must be a callable Equinox module, got {_validate.shown(net)}.")
    part = next(in_training(net), None)
    if part is not None:
        raise ValueError(
            f"`{name}` must be in inference mode (see `eqx.nn.inference_mode`), got a "
            f"{type(part).__name__} in training."
        )
    parameters, static = partition(net)
    leaves = jax.tree.leaves(parameters)
    if not leaves or not all(jnp.issubdtype(w.dtype, jnp.floating) for w in leaves):
        raise ValueError(f"`{name}` must have real floating parameters, got others or none.")
    _validate.finite(name, leaves)
    return parameters, static


def _inputs(name: str, x: Any) -> Array:
    """The inputs, in the precision in which the network is used."""
    try:
        array = jnp.asarray(x if isinstance(x, jax.Array) else np.asarray(x))
    except (TypeError, ValueError, OverflowError):
        array = jnp.zeros(0, "bool")
    number = any(jnp.issubdtype(array.dtype, kind) for kind in (jnp.floating, jnp.integer))
    if not number or not array.ndim or not array.shape[0]:
        raise ValueError(f"`{name}` must be an array of numbers (n ...), got {_validate.shown(x)}.")
    _validate.finite(name, [array])
    return array


def _outputs(net: Any, x: Array) -> int:
    """How many outputs the network has, 1 for a single number."""
    try:
        out = eqx.filter_eval_shape(net, jax.ShapeDtypeStruct(x.shape[1:], x.dtype))
    except Exception as error:  # whatever a network may raise
        text = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(
            f"`net` must be a function of one input of shape {x.shape[1:]}, got {text:.200}"
        ) from error
    shape, dtype = getattr(out, "shape", (0, 0)), getattr(out, "dtype", np.dtype(bool))
    if len(shape) > 1 or 0 in shape or not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(
            f"`net` must give floating outputs (classes,) for one input, got {out!r:.100}."
        )
    return shape[0] if shape else 1


def _labels(name: str, y: Any, count: int, classes: int) -> Array:
    """Labels as integers: -1 and 1 for one output, else 0 to K - 1."""
    allowed = "-1 and 1" if classes == 1 else f"integers in [0, {classes - 1}]"
    allowed = f"{count} labels, {allowed} for {classes} output{'s' if classes > 1 else ''}"
    raw = _validate.numeric(name, y, allowed).astype(float)
    values = (-1, 1) if classes == 1 else np.arange(classes)
    if raw.shape != (count,):
        raise ValueError(f"`{name}` must be {allowed}, got shape {raw.shape}.")
    wrong = raw[~np.isin(raw, values)]
    if wrong.size:
        raise ValueError(f"`{name}` must be {allowed}, got {wrong[0]:g}.")
    return jnp.asarray(raw.astype(np.int32))


def _test_set(x: Array, x_test: Any, y_test: Any, classes: int) -> tuple[Array, Array] | None:
    if (x_test is None) != (y_test is None):
        raise ValueError("`x_test` and `y_test` must both be given, or none, got one of them.")
    if x_test is None:
        return None
    inputs = _inputs("x_test", x_test)
    if inputs.shape[1:] != x.shape[1:]:
        raise ValueError(
            f"`x_test` must have inputs of shape {x.shape[1:]}, got {inputs.shape[1:]}."
        )
    return inputs, _labels("y_test", y_test, len(inputs), classes)


def _errs(out: Array, label: Array) -> Bool[Array, ""]:
    """Whether the outputs for one input are an error."""
    if out.size == 1:
        return ~(jnp.ravel(out)[0] * label.astype(out.dtype) > 0)
    # What is not known to be below the label's output (a tie and NaN) is an error.
    below = (out < out[label]) | (jnp.arange(out.shape[0], dtype=label.dtype) == label)
    return ~jnp.all(below)


def _errors(static: PyTree, batch: int, x64: bool) -> Callable[..., Bool[Array, " n"]]:
    """Where the network of some parameters errs. Blocks of `batch` samples bound the memory. It
    runs in the precision of the caller: that of the bound would be another network's."""

    @jax.jit
    def wrong(parameters, x, y):
        net: Any = eqx.combine(parameters, static)

        def one(sample):
            given, label = sample
            return _errs(net(given), label)

        with jax.enable_x64(x64):
            return jax.lax.map(one, (x, y), batch_size=min(batch, x.shape[0]))

    return wrong
