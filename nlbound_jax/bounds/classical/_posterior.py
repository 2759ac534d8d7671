"""A Gaussian posterior over the weights: its divergence, its training, its error."""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ..._types import Weights

_Scalar = Float[Array, ""]


class Posterior(eqx.Module):
    """$N(w, \\text{diag}(s))$ over all weights; `log_deviations` is $\\frac12 \\ln s$."""

    means: Weights
    log_deviations: Weights

    def outputs(
        self, x: Float[Array, "m d"], epsilon: _Scalar, key: PRNGKeyArray
    ) -> Float[Array, " m"]:
        """The outputs of m networks, one for each sample, drawn independently of each other. Given
        a layer's input h the pre-activations of independent Gaussian weights are independent with
        mean W h and variance s h^2, so they are drawn directly (Kingma, Salimans, Welling 2015).

        **Arguments:**

        - `x`: inputs, `(m d)`.
        - `epsilon`: one minus the negative slope.
        - `key`: a key.

        **Returns:**

        `(m,)`.
        """
        h = x
        keys = jax.random.split(key, len(self.means))
        for layer, (w, r) in enumerate(zip(self.means, self.log_deviations, strict=True)):
            mean, variance = h @ w.T, h**2 @ jnp.exp(2 * r).T
            # The smallest number keeps the derivative of the root finite where h = 0.
            deviation = jnp.sqrt(variance + jnp.finfo(h.dtype).tiny)
            z = mean + deviation * jax.random.normal(keys[layer], mean.shape, mean.dtype)
            # Not `leaky_relu`, which rounds otherwise: training would take another course.
            h = z if layer == len(self.means) - 1 else z - epsilon * jnp.minimum(z, 0)
        return h[:, 0]

    def spread(self, start: Weights) -> _Scalar:
        """$\\sum (s + (w - w_0)^2)$.

        **Arguments:**

        - `start`: $w_0$.

        **Returns:**

        A scalar.
        """
        layers = zip(self.means, self.log_deviations, start, strict=True)
        return sum(jnp.sum(jnp.exp(2 * r) + (w - c) ** 2) for w, r, c in layers)  # pyright: ignore

    def divergence(self, start: Weights, variance: Float[Array, "..."]) -> Float[Array, "..."]:
        """$\\text{KL}(N(w, \\text{diag}(s)) \\| N(w_0, \\lambda I)) = \\frac12 \\sum
        (\\frac{s + (w - w_0)^2}\\lambda - 1 + \\ln\\frac\\lambda s)$.

        **Arguments:**

        - `start`: $w_0$.
        - `variance`: $\\lambda$, of any shape.

        **Returns:**

        The divergence, of the shape of `variance`.
        """
        count = sum(w.size for w in self.means)
        logs = sum(jnp.sum(r) for r in self.log_deviations)
        ratio = self.spread(start) / variance
        total = (ratio + count * (jnp.log(variance) - 1)) / 2 - logs
        return jnp.where(jnp.isnan(total), jnp.inf, total)


def objective(trained, frame, batch, key, numbers) -> _Scalar:
    """The logistic loss, which is at least the error at any temperature, plus
    $\\sqrt{(\\text{KL} + \\ln(2 \\sqrt m/\\delta))/2m}$ at the best $\\lambda$, which has a closed
    form."""
    posterior = place(trained, frame)
    x, y = batch
    scores = y * posterior.outputs(x, numbers["epsilon"], key) / numbers["output"]
    loss = jnp.mean(jax.nn.softplus(-jnp.exp(trained["temperature"]) * scores)) / jnp.log(2.0)
    count = sum(w.size for w in posterior.means)
    variance = posterior.spread(frame["start"]) / count
    divergence = posterior.divergence(frame["start"], variance)
    return loss + jnp.sqrt((divergence + numbers["confidence"]) / (2 * numbers["num_samples"]))


def begin(weights: Weights, start: Weights):
    """What is trained, in units of each layer's root mean square, and what it is relative to."""
    units = [jnp.sqrt(jnp.mean(w**2)) for w in weights]
    units = [jnp.where(u > 0, u, 1.0) for u in units]
    trained = {
        "moves": tuple(jnp.zeros_like(w) for w in weights),
        "logs": tuple(jnp.full_like(w, -2.0) for w in weights),
        "temperature": jnp.ones((), weights[0].dtype),
    }
    return trained, {"weights": weights, "start": start, "units": units}


def place(trained, frame) -> Posterior:
    """The posterior in the units of the weights."""
    layers = zip(frame["weights"], frame["units"], trained["moves"], strict=True)
    logs = zip(trained["logs"], frame["units"], strict=True)
    return Posterior(
        means=tuple(w + u * a for w, u, a in layers),
        log_deviations=tuple(r + jnp.log(u) for r, u in logs),
    )


@eqx.filter_jit
def train(
    weights: Weights, start: Weights, data, numbers, key: PRNGKeyArray, steps: int, batch_size: int
) -> Posterior:
    """`steps` steps of Adam from the trained network, on batches drawn with replacement."""
    x, y = data
    trained, frame = begin(weights, start)
    if not steps:
        return place(trained, frame)
    schedule = optax.cosine_decay_schedule(0.02, steps)
    optimizer = optax.adam(schedule)

    def step(carry, key):
        trained, state = carry
        draw, noise = jax.random.split(key)
        rows = jax.random.randint(draw, (batch_size,), 0, x.shape[0])
        slope = jax.grad(objective)(trained, frame, (x[rows], y[rows]), noise, numbers)
        with jax.numpy_dtype_promotion("standard"):  # Optax mixes its counter with floats
            updates, state = optimizer.update(slope, state)
        return (optax.apply_updates(trained, updates), state), None

    carry = (trained, optimizer.init(trained))
    (trained, _), _ = jax.lax.scan(step, carry, jax.random.split(key, steps))
    return place(trained, frame)


@eqx.filter_jit
def count_errors(
    posterior: Posterior, x: Float[Array, "m d"], y: Float[Array, " m"], epsilon, keys
) -> Int[Array, " draws"]:
    """For each key the number of samples with $y f \\le 0$, f drawn anew for each sample."""

    def errors(key):
        right = y * posterior.outputs(x, epsilon, key) > 0  # nan is wrong
        return x.shape[0] - jnp.sum(right)

    return jax.lax.map(errors, keys)
