"""Ensembles: seconds a network, against one network by itself."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from measure import RTOL, clock, done, end, network, race, weights

from nlbound_jax import dynamics, tasks
from nlbound_jax.dynamics import default_controller, make_blocks, replicate
from nlbound_jax.sweep._ensemble import Flow, Start, local_mesh, map_lanes

ON_CPU = jax.default_backend() == "cpu"
SIZES = (8, 64) if ON_CPU else (8, 64, 256)
VMAPPED = (8,) if ON_CPU else SIZES  # slower than one by one on CPUs


def lanes(nets, t1):
    """The lanes of a sweep, with `gradient_flow`'s tolerances."""
    made = []
    for net in nets:
        control = default_controller(net.weights, RTOL)
        numbers = (t1, [t1], control.rtol, control.atol)
        t1s, ts, rtol, atol = (np.asarray(v, "float32") for v in numbers)
        made.append(Start(net.weights, np.asarray(net.epsilon, "float32"), t1s, ts, rtol, atol))
    return made


def test_ensembles_by_network(benchmark, table):
    task = tasks.mnist(7)
    t1 = end(task)
    nets = [network(task, seed=seed) for seed in range(max(SIZES))]
    mesh = local_mesh()
    blocks = replicate(make_blocks(task, "float32"), mesh)

    def flow(net):
        return dynamics.gradient_flow(net, task, t1=t1).weights

    def together(count, wanted=True):
        starts = lanes(nets[:count], t1)
        return map_lanes(Flow(4096), starts, [wanted] * count, blocks, mesh, count)

    def vmapped(count):
        stacked = jax.tree.map(lambda *a: jnp.stack(a), *nets[:count])
        return done(eqx.filter_vmap(flow), stacked)

    one = "gradient_flow of one, its samples over all devices"
    counts = {one: 1}
    taken = race({one: done(flow, nets[0])}, 5)
    for n in SIZES:
        together(n, wanted=False)  # compiles, and passes over every lane
        counts[name := f"{n} lanes of a sweep"] = n
        taken[name] = clock(functools.partial(together, n))
    for n in VMAPPED:
        counts[name := f"jax.vmap of gradient_flow over {n}"] = n
        taken |= race({name: vmapped(n)}, 1)
    benchmark.pedantic(done(flow, nets[0]), rounds=3)
    alone = weights(dynamics.gradient_flow(nets[0], task, t1=t1))
    in_it = [np.asarray(w, float) for w in together(SIZES[0]).end]
    difference = max(
        float(np.abs(a - w[0]).max() / np.abs(a).max()) for a, w in zip(alone, in_it, strict=True)
    )
    rows = [
        [
            name,
            f"{taken[name]:.2f}",
            f"{taken[name] / n:.3f}",
            f"{taken[name] / n / taken[one]:.2f}",
        ]
        for name, n in counts.items()
    ]
    table(
        "Ensembles, the problem of t*_0.9",
        ["", "seconds", "a network", "against one"],
        rows,
        f"The first network by itself and in the ensemble differ by {difference:.0e} (relative).",
    )
