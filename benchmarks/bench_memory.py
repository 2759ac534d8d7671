"""Peak memory of a flow on MNIST 28x28, in a process of its own."""

import json
import subprocess
import sys

import pytest

SCRIPT = """
import json, re
from pathlib import Path

import jax
jax.config.update("jax_num_cpu_devices", CORES)
from nlbound_jax import dynamics, networks, tasks

def status(name):
    return int(re.search(name + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024

task = tasks.mnist(28)
net = networks.initialize(jax.random.key(0), task.rank, 64, 2, epsilon=0.001, beta=0.001)
small = tasks.from_arrays(task.x[:2000, :8], task.y[:2000])
warm = networks.initialize(jax.random.key(0), small.rank, 64, 2, epsilon=0.001, beta=0.001)
dynamics.gradient_flow(warm, small, t1=1.0)  # what JAX itself needs
before = status("VmRSS")
Path("/proc/self/clear_refs").write_text("5")
steps = dynamics.gradient_flow(net, task, t1=8.0).stats["num_steps"]
arrays = [task.x, task.y, task.x_test, task.y_test]
print(json.dumps({
    "before": before,
    "peak": status("VmHWM"),
    "task": sum(a.nbytes for a in arrays) / 2**20,
    "flow": task.x.size * 4 / 2**20,
    "steps": int(steps),
}))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_peak_memory_of_a_flow(benchmark, table):
    from conftest import CORES

    script = SCRIPT.replace("CORES", str(CORES))

    def run():
        made = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        assert made.returncode == 0, made.stderr
        return json.loads(made.stdout)

    found = benchmark.pedantic(run, rounds=1)
    added = found["peak"] - found["before"]
    rows = [
        ["the task, float64", f"{found['task']:.0f}"],
        ["the flow's copy of the training inputs, float32", f"{found['flow']:.0f}"],
        ["resident before the flow", f"{found['before']:.0f}"],
        ["peak of the flow", f"{found['peak']:.0f}"],
        ["peak beyond what was there and the flow's copy", f"{added - found['flow']:.0f}"],
    ]
    table(
        f"Memory of a flow on MNIST 28x28, float32, {found['steps']} steps",
        ["", "MiB"],
        rows,
    )
