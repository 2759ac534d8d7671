"""A ReLU network that is trained on the split bound: Adam on the hinge loss plus
`bounds.split_penalty`. The bound holds for all weights at once, so it may be what is trained on.

    python docs/train_on_the_bound.py
"""

import argparse

import jax
import jax.numpy as jnp
import optax

from nlbound_jax import bounds, certify, networks, tasks

EPSILON = 1.0  # ReLU


def train(task, penalty, *, epochs, width=64, batch=1000, rate=5e-3, seed=0):
    """Adam with a cosine schedule; `penalty` is the factor of the regulariser, 0 for none."""
    x, y = jnp.asarray(task.x, jnp.float32), jnp.asarray(task.y, jnp.float32)
    rank, m = task.rank, task.num_samples
    start = networks.initialize(
        jax.random.key(seed), rank, width, 2, epsilon=EPSILON, beta=0.3, dtype="float32"
    )
    adam = optax.adam(optax.cosine_decay_schedule(rate, epochs * (m // batch)))

    def objective(weights, chosen):
        margins = y[chosen] * networks.LeakyMLP(weights, start.epsilon)(x[chosen])
        known = {"num_samples": m, "spectrum": task.spectrum, "exponent": 0.25}
        hinge = jnp.mean(jnp.maximum(1 - margins, 0))
        return hinge + penalty * bounds.split_penalty(weights, EPSILON, **known)

    def step(carry, chosen):
        weights, state = carry
        updates, state = adam.update(jax.grad(objective)(weights, chosen), state)
        return (optax.apply_updates(weights, updates), state), None

    @jax.jit
    def run(weights, key):
        def epoch(carry, key):
            order = jax.random.permutation(key, m)[: m // batch * batch]
            return jax.lax.scan(step, carry, order.reshape(-1, batch))[0], None

        carry = (weights, adam.init(weights))
        return jax.lax.scan(epoch, carry, jax.random.split(key, epochs))[0][0]

    return networks.LeakyMLP(run(start.weights, jax.random.key(seed + 1)), start.epsilon)


def main(task=None, *, epochs=20):
    """Trains without and with the penalty; returns both certificates."""
    task = tasks.mnist(side=7) if task is None else task
    made = {}
    for penalty in (0.0, 2.0):
        made[penalty] = found = certify(train(task, penalty, epochs=epochs), task)
        values = ", ".join(f"{row['bound']} {row['value']:.3f}" for row in found.rows)
        print(f"penalty x {penalty:g}: test error {found.test_risk:.3f}, {values}")
    return made


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=20)
    main(epochs=parser.parse_args().epochs)
