"""Samples shared out over several devices: a process of its own, since JAX fixes their number when
it starts."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers import run_on_three_devices
from test_flow import TASK, make

from nlbound_jax import dynamics
from nlbound_jax.cli._jax import cache_folder, heal, set_up_jax
from nlbound_jax.dynamics import make_blocks, negative_gradient

SCRIPT = """
import sys
sys.path.insert(0, "tests")

import diffrax, jax, jax.numpy as jnp, numpy as np
assert jax.local_device_count() == 3
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
from nlbound_jax import dynamics
from nlbound_jax.dynamics import make_blocks, negative_gradient, samples_mesh
from helpers import small_task
from test_flow import make

task = small_task(seed=1, m=2101, d=4)
net, one = make(task=task), jax.devices()[:1]

def close(a, b, tolerance=1e-12):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(np.asarray(x), np.asarray(y), rtol=0, atol=tolerance)

blocks = make_blocks(task, "float64", samples_mesh(None, net))
assert blocks.mesh.size == 3 and blocks.x.shape == (6, 4, 351), blocks.x.shape
assert len(blocks.x.sharding.device_set) == 3
plain = make_blocks(task, "float64")
field, whole = (negative_gradient(net.weights, net.epsilon, b) for b in (blocks, plain))
close(field, whole, 1e-15)

# Backwards too: the sum over devices must not be counted once for each of them.
def total(weights, blocks):
    return sum(jnp.sum(g**2) for g in negative_gradient(weights, net.epsilon, blocks))

close(jax.grad(total)(net.weights, blocks), jax.grad(total)(net.weights, plain))

# At a tolerance at which the steps are the same.
options = {"t1": 1.0, "stepsize_controller": diffrax.StepTo(jnp.linspace(0.0, 1.0, 9))}
everywhere = dynamics.gradient_flow(net, task, **options)
meter = diffrax.TqdmProgressMeter()
close(everywhere, dynamics.gradient_flow(net, task, progress_meter=meter, **options))
close(everywhere, dynamics.gradient_flow(net, task, devices=one, **options))
close(everywhere, dynamics.gradient_flow(net, task, devices=jax.devices()[1:], **options))
for leaf in jax.tree.leaves(everywhere):
    if isinstance(leaf, jax.Array):
        assert leaf.devices() == set(one) and not leaf.committed, leaf
again = dynamics.gradient_flow(everywhere.network(), task, **options)
assert again.weights[0].devices() == set(one)

# What is traced stays where it is.
traced = jax.jit(lambda n: dynamics.gradient_flow(n, task, **options).weights)(net)
close(everywhere.weights, traced)
with jax.default_device(jax.devices()[2]):
    placed = dynamics.gradient_flow(net, task, **options)
assert placed.weights[0].devices() == {jax.devices()[2]}

descents = [dynamics.gradient_descent(net, task, 5, step_size=0.1, devices=d) for d in (None, one)]
close(*descents)
derivatives = [
    dynamics.tau_derivative(net, task, devices=devices, **options) for devices in (None, one)
]
close(*derivatives, 1e-9)
assert int(derivatives[0].crossings[-1]) > 0
print("done")
"""


@pytest.mark.float64
def test_three_cpu_devices_give_what_one_gives():
    run_on_three_devices(SCRIPT)


@pytest.mark.parametrize("devices", [(), [], "cpu", 3, [1], [None], {0}])
def test_devices_are_checked(devices, no_type_checks):
    with pytest.raises(ValueError, match="^`devices` must be a sequence of devices"):
        dynamics.gradient_flow(make(), TASK, t1=1.0, devices=devices)


def test_devices_must_differ():
    with pytest.raises(ValueError, match="^`devices` must be different devices"):
        dynamics.gradient_descent(make(), TASK, 2, devices=jax.devices()[:1] * 2)


@pytest.mark.parametrize(("told", "expected"), [(None, "HIGHEST"), ("tensorfloat32", "HIGH")])
def test_products_are_exact_unless_told_otherwise(told, expected):
    """A GPU's default would round the factors to ten bits (TensorFloat-32)."""
    net, blocks = make(dtype="float32"), make_blocks(TASK, "float32")
    epsilon = net.epsilon.astype("float32")
    with jax.default_matmul_precision(told):
        program = jax.make_jaxpr(negative_gradient)(net.weights, epsilon, blocks)
    products = [line for line in str(program).splitlines() if "precision=" in line]
    assert products
    assert all(f"precision=Precision.{expected}" in line.replace("(", "") for line in products)


@pytest.mark.float64
def test_the_command_keeps_compiled_programs(tmp_path, monkeypatch):
    """Where the user's cache is, unless the user says otherwise; nothing where it cannot write."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "platform", "linux")
    assert cache_folder() == tmp_path / "cache" / "nlbound_jax" / "compiled"
    kept = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    script = "from nlbound_jax.cli import main; main()"
    command = [sys.executable, "-W", "error", "-c", script, "bound", "--t", "3"]
    for folder, filled in ((tmp_path / "cache", True), (tmp_path / "file", False)):
        (tmp_path / "file").write_text("")
        environment = {**kept, "XDG_CACHE_HOME": str(folder)}
        made = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert made.returncode == 0, made.stderr
        assert made.stderr == ""
        assert any((folder / "nlbound_jax").rglob("*-cache")) if filled else folder.is_file()
    # What a process that was killed leaves behind: JAX would warn at every program that it keeps.
    programs = sorted((tmp_path / "cache").rglob("*-cache"))
    unfinished, gone = programs[0], programs[1]
    Path(f"{unfinished}".removesuffix("-cache") + "-atime").unlink()
    for path in (gone, Path(f"{gone}".removesuffix("-cache") + "-atime")):
        path.unlink()  # so that there is something to keep
    environment = {**kept, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    made = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (made.returncode, made.stderr) == (0, "")
    assert sorted((tmp_path / "cache").rglob("*-cache")) == programs


def test_the_cache_is_healed_by_several_at_once_and_never_in_the_way(tmp_path):
    names = [f"{i}-{end}" for i in range(40) for end in ("cache", "atime")]
    for name in names:
        (tmp_path / name).write_bytes(b"")
    for i in range(0, 40, 2):
        (tmp_path / f"{i}-atime").unlink()
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(heal, [tmp_path] * 8)) == [None] * 8
    whole = {f"{i}-{end}" for i in range(1, 40, 2) for end in ("cache", "atime")}
    assert {path.name for path in tmp_path.iterdir()} - {".lockfile"} == whole
    heal(tmp_path / "nowhere")


@pytest.mark.float64
def test_set_up_leaves_what_is_in_use():
    before = jax.local_device_count(), jax.config.jax_compilation_cache_dir
    jax.devices()
    set_up_jax()
    assert (jax.local_device_count(), jax.config.jax_compilation_cache_dir) == before
    assert np.asarray(jax.numpy.ones(1)).dtype == np.float64
