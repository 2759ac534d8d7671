"""Sweeps over devices and processes, and sweeps that are killed."""

import os
import signal
import socket
import subprocess
import sys
import time

import jax
import pytest
import xarray as xr
from helpers import TIMEOUT
from test_sweep import (  # noqa: F401
    assert_near_store,
    assert_same_store,
    config,
    marks,
    npz,
    whole,
    with_settings,
)

import nlbound_jax
from nlbound_jax.sweep import sweep_status


def write_toml(path, tables):
    """A configuration of numbers, texts and lists as a TOML file."""
    lines = []
    for name, table in tables.items():
        lines.append(f"[{name}]")
        lines += [f"{key} = {value!r}" for key, value in table.items()]
    path.write_text("\n".join(lines) + "\n")
    return path


def start(*args, code="from nlbound_jax.cli import main; main()", **env):
    """`nlbound sweep` in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", code, "sweep", *(str(a) for a in args)],
        env=os.environ | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def own_cache(folder):
    """For a process that is ended anyhow: an entry that it leaves half-written would have JAX
    complain in every process that shares the cache."""
    return {"JAX_COMPILATION_CACHE_DIR": str(folder / "compiled")}


def finish(process):
    out, err = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, err
    return out


@pytest.fixture(scope="session")
def toml(config, tmp_path_factory):  # noqa: F811
    return write_toml(tmp_path_factory.mktemp("toml") / "sweep.toml", config)


@pytest.mark.float64
@pytest.mark.slow
def test_four_devices_give_the_store_of_one(toml, whole, tmp_path):  # noqa: F811
    """Other lanes to a device, so another program."""
    out = tmp_path / "four.zarr"
    finish(start("--config", toml, "--out", out, JAX_NUM_CPU_DEVICES="4"))
    assert sweep_status(out).processes == {"shard 1/1 on cpu x 4": 4}
    assert_near_store(out, whole)


@pytest.mark.float64
@pytest.mark.slow
def test_two_processes_under_one_runtime_give_the_store_of_one(toml, whole, tmp_path):  # noqa: F811
    out = tmp_path / "two.zarr"
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    arguments = ("--config", toml, "--out", out, "--coordinator", f"localhost:{port}")
    both = [start(*arguments, "--num-processes", 2, "--process-id", i) for i in range(2)]
    said = [finish(process) for process in both]
    assert "12 of 12 flows done, 4 of 4 pieces" in said[0]
    assert said[1] == ""
    devices = f"cpu x {jax.local_device_count()}"
    shards = {f"shard 1/2 on {devices}": 2, f"shard 2/2 on {devices}": 2}
    assert sweep_status(out).processes == shards
    assert_same_store(out, whole)


# Killed when the chunks of the fourth piece are written and its mark is not.
KILLED = """
import os, signal
from nlbound_jax.cli import main
from nlbound_jax.sweep import _store

write, marks = _store.write_bytes, 0

def write_three(path, content):
    global marks
    marks += path.suffix == ".json"
    if marks == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    write(path, content)

_store.write_bytes = write_three
main()
"""


@pytest.mark.float64
@pytest.mark.skipif("NLBOUND_SHAKE" in os.environ, reason="the other process is not shaken")
def test_a_killed_sweep_goes_on_where_it_stopped(config, tmp_path):  # noqa: F811
    many = with_settings(config, axes={"epsilon": [0.01, 0.1], "seed": list(range(9))})
    out, again = tmp_path / "killed.zarr", tmp_path / "whole.zarr"
    toml = write_toml(tmp_path / "sweep.toml", many)
    process = start("--config", toml, "--out", out, code=KILLED, **own_cache(tmp_path))
    _, said = process.communicate(timeout=TIMEOUT)
    assert process.returncode == -signal.SIGKILL, said
    before = marks(out)
    assert (len(before), sweep_status(out).pieces) == (3, 6)
    nlbound_jax.sweep(many, out)
    after = marks(out)
    assert len(after) == 6
    assert {name: after[name] for name in before} == before  # nothing twice
    nlbound_jax.sweep(many, again)
    assert_same_store(out, again)
    assert not list(out.glob("*/*.partial"))


# The second piece is computed until a signal comes.
ENDLESS = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be ignored
from nlbound_jax.cli import main
from nlbound_jax.sweep._evaluate import Reports

fill = Reports.fill

def fill_again(self, piece, *args):
    counts = fill(self, piece, *args)
    while piece.number:
        fill(self, piece, *args)
    return counts

Reports.fill = fill_again
main()
"""


@pytest.mark.float64
@pytest.mark.skipif(sys.platform == "win32", reason="signals end a process there")
@pytest.mark.skipif("NLBOUND_SHAKE" in os.environ, reason="the other process is not shaken")
def test_an_interrupted_sweep_goes_on_where_it_stopped(config, toml, whole, tmp_path):  # noqa: F811
    out = tmp_path / "out.zarr"
    process = start("--config", toml, "--out", out, code=ENDLESS, **own_cache(tmp_path))
    began = time.monotonic()
    while process.poll() is None and not marks(out) and time.monotonic() - began < TIMEOUT:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 130, said
    line = "nlbound: interrupted; what is done is kept, call again to go on"
    assert said.splitlines()[-1] == line
    assert "Traceback" not in said
    before = marks(out)
    assert list(before) == ["0.json"]
    assert not list(out.glob("*/*.partial"))
    nlbound_jax.sweep(config, out)
    assert marks(out)["0.json"] == before["0.json"]  # nothing twice
    assert_same_store(out, whole)


PEAK = """
import resource, sys
import nlbound_jax
nlbound_jax.sweep({config!r}, {out!r})
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_pieces(config, optimized, tmp_path):  # noqa: F811
    """Peak of the process in MB for few and for many pieces of the same size."""
    peaks = []
    for seeds in (16, 160):
        axes = {"epsilon": [0.01, 0.1], "seed": list(range(seeds))}
        many = with_settings(config, axes=axes, compute={"chunk": 8}, width=64, num_times=40)
        code = PEAK.format(config=many, out=str(tmp_path / f"{seeds}.zarr"))
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        peaks.append(float(run.stdout))
    # The arrays of the sweep are small; what would grow are the trajectories of its flows.
    held = 160 * 2 * 40 * (64 * 3 + 64) * (4 + 8) / 2**20
    assert held > 30
    assert peaks[1] - peaks[0] < held / 2, peaks
    data = xr.open_zarr(tmp_path / "160.zarr", chunks=None)
    assert (data["result"] == 1).all()
