"""Checks of arguments at the door: one line that names the argument, what is allowed and what
was given. Concrete values raise `ValueError`; traced ones fail at run time (`eqx.error_if`)."""

import math
from collections.abc import Collection
from typing import Any

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array


def float_dtype() -> Any:
    """The default floating dtype: float64 if `jax_enable_x64` is set, else float32."""
    return jax.dtypes.canonicalize_dtype(float)


def is_traced(value: Any) -> bool:
    """Whether `value` is an array that JAX is tracing."""
    return isinstance(value, jax.core.Tracer)


def needs_x64(name: str) -> None:
    """Raise unless `jax_enable_x64` is set."""
    if float_dtype() != np.float64:
        raise ValueError(
            f"`{name}` must run in float64, got jax_enable_x64=False; "
            'call jax.config.update("jax_enable_x64", True) first.'
        )


def interval(low: float, high: float, open_low: bool, open_high: bool) -> str:
    """`[0, 1)`, `positive` or `a finite number`, as used in messages."""
    if math.isinf(low) and math.isinf(high):
        return "a finite number"
    if low == 0 and open_low and math.isinf(high):
        return "positive and finite"
    if math.isinf(high):
        return f"finite and {'greater than' if open_low else 'at least'} {low:g}"
    left = "(" if open_low else "["
    right = ")" if open_high else "]"
    return f"in {left}{low:g}, {high:g}{right}"


def real(
    name: str,
    value: Any,
    low: float = -math.inf,
    high: float = math.inf,
    *,
    open_low: bool = False,
    open_high: bool = False,
) -> Array:
    """`value` as a floating array, every entry finite and within the interval."""
    allowed = interval(low, high, open_low, open_high)
    traced = is_traced(value)
    try:
        if not traced and np.iscomplexobj(value):
            raise TypeError
        array = jnp.asarray(value, dtype=float_dtype())
    except (TypeError, ValueError):
        raise ValueError(f"`{name}` must be {allowed}, got {value!r}.") from None
    xp = jnp if traced else np
    # The range is tested on the value as given: float32 would round 1e-50 to 0.
    raw = array if traced else np.asarray(value, dtype=float)
    bad = ~xp.isfinite(raw)
    bad = bad | ((raw <= low) if open_low else (raw < low))
    bad = bad | ((raw >= high) if open_high else (raw > high))
    message = f"`{name}` must be {allowed}"
    if traced:
        return eqx.error_if(array, jnp.any(bad), message + ".")
    if np.any(bad):
        raise ValueError(f"{message}, got {np.ravel(raw)[np.argmax(np.ravel(bad))]:g}.")
    return array


def integer(name: str, value: Any, low: int, high: int | None = None) -> int:
    """`value` as an int within [low, high]; bools and non-integral floats are refused."""
    allowed = f"an integer of at least {low}" if high is None else f"an integer in [{low}, {high}]"
    ok = isinstance(value, (int, np.integer)) and not isinstance(value, (bool, np.bool_))
    if not ok or value < low or (high is not None and value > high):
        raise ValueError(f"`{name}` must be {allowed}, got {value!r}.")
    return int(value)


def member(name: str, value: Any, allowed: Collection[Any]) -> Any:
    """`value` if it is one of `allowed`."""
    if not any(type(value) is type(a) and value == a for a in allowed):
        listing = ", ".join(repr(a) for a in allowed)
        raise ValueError(f"`{name}` must be one of {listing}, got {value!r}.")
    return value


def scalar(name: str, value: Any, **limits: Any) -> float:
    """A single concrete number within the limits of `real`, as a Python float."""
    if np.ndim(value) != 0 or isinstance(value, (bool, np.bool_)):
        raise ValueError(f"`{name}` must be a single number, got {value!r}.")
    real(name, value, **limits)
    return float(value)


def broadcastable(arrays: dict[str, Array]) -> None:
    """Raise unless the arrays broadcast against each other."""
    shapes = {name: array.shape for name, array in arrays.items() if array.ndim}
    try:
        np.broadcast_shapes(*shapes.values())
    except ValueError:
        listing = ", ".join(f"`{name}` {shape}" for name, shape in shapes.items())
        raise ValueError(f"Shapes must broadcast against each other, got {listing}.") from None
