"""Checks of arguments at the door: one line that names the argument, what is allowed and what
was given. Concrete values raise `ValueError`; traced ones fail at run time (`eqx.error_if`)."""

import contextlib
import contextvars
import math
import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

LARGEST = 2**31 - 1  # what JAX can index with in either precision
_trusted = contextvars.ContextVar("trusted", default=False)


@contextlib.contextmanager
def trusted() -> Iterator[None]:
    """Traces without checks at run time, for arguments of this library's own making: every such
    check is a host callback, and a program that has one is not kept in JAX's compilation cache."""
    token = _trusted.set(True)
    try:
        yield
    finally:
        _trusted.reset(token)


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


def shown(value: Any) -> str:
    """`value` on one short line, as messages show it."""
    if isinstance(value, (np.ndarray, jax.Array)) and value.ndim:
        return f"an array of shape {value.shape} and dtype {value.dtype}"
    try:
        text = " ".join(repr(value.item() if isinstance(value, np.generic) else value).split())
    except ValueError:  # Python refuses to print integers of thousands of digits
        text = "a number too large to print"
    return text if len(text) <= 60 else f"{text[:57]}..."


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


def numpy_numbers(array: np.ndarray) -> np.ndarray:
    """`array`, in float64 if it is of a real type that NumPy itself does not have (those of
    ml_dtypes, as bfloat16, float8_e4m3fn and int4): NumPy sees raw bytes in them."""
    dtype = array.dtype
    foreign = dtype.kind == "V" or dtype.itemsize < 2  # float8_e5m2 says that it is a float
    if foreign and any(jnp.issubdtype(dtype, kind) for kind in (jnp.floating, jnp.integer)):
        return array if dtype.kind in "iu" else array.astype(np.float64)
    return array


def numeric(name: str, value: Any, allowed: str) -> np.ndarray:
    """A concrete `value` as an array of real numbers, or one line that says what is allowed."""
    try:
        # Beyond 2**64 NumPy would make an object of a whole number.
        if isinstance(value, list | tuple) and any(isinstance(v, jax.Array) for v in value):
            value = [np.asarray(v) for v in value]
        array = numpy_numbers(np.asarray(float(value) if isinstance(value, int) else value))
        if array.dtype.kind in "biuf":
            return array
    except (TypeError, ValueError, OverflowError):
        pass
    raise ValueError(f"`{name}` must be {allowed}, got {shown(value)}.")


def _outside(xp: Any, raw: Any, low: float, high: float, open_low: bool, open_high: bool) -> Any:
    bad = ~xp.isfinite(raw)
    bad = bad | ((raw <= low) if open_low else (raw < low))
    return bad | ((raw >= high) if open_high else (raw > high))


def _check(
    name: str, value: Any, low: float, high: float, open_low: bool = False, open_high: bool = False
) -> Any:
    """Raise unless every entry of a concrete `value` is finite and within the interval. The range
    is tested on the value as given: float32 would round 1e-50 to 0. Returns what JAX makes an
    array of."""
    allowed = interval(low, high, open_low, open_high)
    found = numeric(name, value, allowed)
    raw = found.astype(float)
    bad = np.ravel(_outside(np, raw, low, high, open_low, open_high))
    if bad.any():
        raise ValueError(f"`{name}` must be {allowed}, got {np.ravel(raw)[np.argmax(bad)]:g}.")
    return value if isinstance(value, jax.Array) and value.dtype == float_dtype() else found


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
    ends = (low, high, open_low, open_high)
    if not is_traced(value):
        found = _check(name, value, *ends)
        return _kept(name, found, jnp.asarray(found, dtype=float_dtype()), *ends)
    allowed = interval(*ends)
    try:
        array = jnp.asarray(value, dtype=float_dtype())
    except (TypeError, ValueError):
        raise ValueError(f"`{name}` must be {allowed}, got {shown(value)}.") from None
    return _checked_at_run_time(array, _outside(jnp, array, *ends), f"`{name}` must be {allowed}.")


def _kept(name: str, given: Any, array: Array, *ends: Any) -> Array:
    """`array` unless its dtype has rounded what was given out of the interval, or XLA, which takes
    subnormal numbers for 0, will."""
    low, _, open_low, _ = ends
    double = array.dtype == np.float64
    limits = np.finfo(array.dtype)
    with np.errstate(over="ignore", under="ignore"):  # by NumPy: inside a jit `array` is traced
        raw = np.asarray(given, array.dtype).astype(float)
    bad = _outside(np, raw, *ends)
    if low == 0 and (open_low or double):
        bad = bad | ((0 < raw) | open_low) & (raw < float(limits.tiny))
    bad = np.ravel(bad)
    if bad.any():
        hint = "" if double else "; jax_enable_x64 gives float64"
        raise ValueError(
            f"`{name}` must be {interval(*ends)} in {array.dtype}, whose positive numbers go "
            f"from {float(limits.tiny):.2g} to {float(limits.max):.2g}, got "
            f"{np.ravel(np.asarray(given, float))[np.argmax(bad)]!r}{hint}."
        )
    return array


def _checked_at_run_time(array: Array, bad: Array, message: str) -> Array:
    return array if _trusted.get() else eqx.error_if(array, jnp.any(bad), message)


def integer(name: str, value: Any, low: int, high: int | None = None) -> int:
    """`value` as an int within [low, high]; bools and non-integral floats are refused."""
    allowed = f"an integer of at least {low}" if high is None else f"an integer in [{low}, {high}]"
    if high is None and isinstance(value, int) and value > LARGEST:
        allowed = f"an integer in [{low}, {LARGEST}]"
    ok = isinstance(value, (int, np.integer)) and not isinstance(value, (bool, np.bool_))
    number: Any = value
    if not ok and isinstance(value, np.generic) and jnp.issubdtype(value.dtype, jnp.integer):
        number, ok = int(number), True  # of ml_dtypes, as int4
    if not ok or number < low or number > (LARGEST if high is None else high):
        raise ValueError(f"`{name}` must be {allowed}, got {shown(value)}.")
    return int(value)


def member(name: str, value: Any, allowed: Collection[Any]) -> Any:
    """`value` if it is one of `allowed`."""
    if not any(type(value) is type(a) and value == a for a in allowed):
        listing = ", ".join(repr(a) for a in allowed)
        raise ValueError(f"`{name}` must be one of {listing}, got {shown(value)}.")
    return value


def scalar(
    name: str, value: Any, low: float = -math.inf, high: float = math.inf, **ends: bool
) -> float:
    """A single concrete number within the limits of `real`, as a Python float. It makes no array
    of JAX's, so that it may run at import without starting a backend."""
    if np.ndim(value) != 0 or isinstance(value, (bool, np.bool_)):
        raise ValueError(f"`{name}` must be a single number, got {shown(value)}.")
    _check(name, value, low, high, **ends)
    return float(value)


def numbers(name: str, values: Any, low: float, high: float) -> list[float]:
    """A sequence of numbers within [low, high], perhaps none."""
    if isinstance(values, str) or not (isinstance(values, Sequence) or np.ndim(values) == 1):
        raise ValueError(f"`{name}` must be a sequence of numbers, got {shown(values)}.")
    return [scalar(name, value, low, high) for value in values]


def instance(name: str, value: Any, kind: type) -> Any:
    """`value` if it is a `kind`."""
    if not isinstance(value, kind):
        raise ValueError(f"`{name}` must be a {kind.__name__}, got {shown(value)}.")
    return value


def path(name: str, value: Any) -> Path:
    """`value` as a path."""
    if not isinstance(value, str | os.PathLike) or not str(value):
        raise ValueError(f"`{name}` must be a path, got {shown(value)}.")
    return Path(value)


def flag(name: str, value: Any) -> bool:
    """`value` if it is True or False."""
    return bool(member(name, bool(value) if isinstance(value, np.bool_) else value, (True, False)))


def chain(name: str, shapes: list[tuple[int, ...]], *, one_output: bool = True) -> None:
    """Raise unless the shapes are those of at least two matrices that fit together and, unless that
    does not matter, end in one output."""
    fit = len(shapes) >= 2 and all(len(s) == 2 and 0 not in s for s in shapes)
    fit = fit and all(a[0] == b[1] for a, b in zip(shapes[:-1], shapes[1:], strict=True))
    if not fit or one_output and shapes[-1][0] != 1:
        end = " and end in one output" if one_output else ""
        raise ValueError(
            f"`{name}` must be at least two matrices (out, in) that fit together{end}, "
            f"got shapes {shapes}."
        )


def matrices(name: str, weights: Any, *, one_output: bool = True) -> tuple[Any, ...]:
    """`weights` as a tuple of floating matrices whose shapes are a `chain`."""
    if not isinstance(weights, (tuple, list)):
        raise ValueError(f"`{name}` must be a tuple of matrices, got {shown(weights)}.")
    chain(name, [getattr(w, "shape", ()) for w in weights], one_output=one_output)
    if not all(jnp.issubdtype(w.dtype, jnp.floating) for w in weights):
        raise ValueError(
            f"`{name}` must be floating, got {', '.join(str(w.dtype) for w in weights)}."
        )
    return tuple(weights)


def at_least_zero(name: str, value: Any) -> Array:
    """`value` as an array of numbers of at least 0; `+inf` is allowed."""
    if is_traced(value):
        array = jnp.asarray(value, float)
        return _checked_at_run_time(array, ~(array >= 0), f"`{name}` must be at least 0.")
    raw = numeric(name, value, "at least 0").astype(float)
    if not (raw >= 0).all():
        raise ValueError(f"`{name}` must be at least 0, got {raw[~(raw >= 0)].ravel()[0]:g}.")
    return jnp.asarray(raw, float)


def number(
    name: str, value: Any, low: float = -math.inf, high: float = math.inf, **ends: bool
) -> Array:
    """One number within the limits of `real`, concrete or traced, as a scalar array."""
    array = real(name, value, low, high, **ends)
    if array.ndim:
        raise ValueError(f"`{name}` must be a single number, got shape {array.shape}.")
    return array


def key(name: str, value: Any) -> Any:
    """`value` if it is one JAX random key."""
    typed = isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key)
    # The older form, two unsigned integers.
    raw = getattr(value, "dtype", None) == jnp.uint32 and getattr(value, "shape", ()) == (2,)
    if not raw and not (typed and value.shape == ()):
        raise ValueError(f"`{name}` must be one JAX random key, got {shown(value)}.")
    return value


def finite(name: str, arrays: Sequence[Any]) -> None:
    """Raise if a concrete array of `arrays` has an entry that is not finite."""
    for array in arrays:
        if is_traced(array):
            continue
        bad = numpy_numbers(np.asarray(array)).ravel()
        if not np.isfinite(bad).all():
            raise ValueError(f"`{name}` must be finite, got {bad[~np.isfinite(bad)][0]}.")


def broadcastable(arrays: dict[str, Array]) -> None:
    """Raise unless the arrays broadcast against each other."""
    shapes = {name: array.shape for name, array in arrays.items() if array.ndim}
    try:
        np.broadcast_shapes(*shapes.values())
    except ValueError:
        listing = ", ".join(f"`{name}` {shape}" for name, shape in shapes.items())
        raise ValueError(f"Shapes must broadcast against each other, got {listing}.") from None
