import gc
import os
import subprocess
import sys
from pathlib import Path

# One thread a process: XLA's threads wait for each other by spinning, and where other processes
# (the other workers) want the same cores a vmapped small solve takes minutes instead of seconds.
os.environ.setdefault("NPROC", "1")

# Most of the time goes into compiling, and the command line, the notebooks and the README compile
# the same programs again and again, each in a process of its own. JAX locks a folder that has a
# size, so the workers share one.
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "jax")
)
os.environ.setdefault("JAX_COMPILATION_CACHE_MAX_SIZE", str(2**32))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")

# What a worker holds at the end of the suite, in bytes: the programs that it has compiled.
WORKER_BYTES = 6 * 2**30
# Linux lets a process have 65,530 mappings, and each compiled program takes several: a worker that
# held all programs of the suite would be ended by the system.
MAPPINGS = 30_000
# Half the time to compile, for programs that run slower: the fixture `optimized` is for what runs
# long, NLBOUND_TEST_XLA=default compiles everything as users do (`make test-all`).
NO_EMITTERS = "--xla_cpu_use_fusion_emitters=false"
if os.environ.get("NLBOUND_TEST_XLA") != "default":
    os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")


def without_emitters():
    """XLA_FLAGS with NO_EMITTERS, if this jaxlib knows it: XLA ends a process at a flag that it
    does not know."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} {NO_EMITTERS}".strip()
    command = [sys.executable, "-c", "import jax; jax.devices()"]
    tried = subprocess.run(command, env=os.environ | {"XLA_FLAGS": flags}, capture_output=True)
    return flags if tried.returncode == 0 else os.environ.get("XLA_FLAGS", "")


# The workers of pytest-xdist inherit the answer.
if os.environ.setdefault("NLBOUND_TEST_XLA", "fast") == "fast":
    os.environ |= {"XLA_FLAGS": without_emitters(), "NLBOUND_TEST_XLA": "fast, set"}

import hypothesis
import jax
import jaxtyping
import pytest

X64 = os.environ.get("JAX_ENABLE_X64", "1") == "1"
jax.config.update("jax_enable_x64", X64)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
# The same examples everywhere, however slow the machine is.
hypothesis.settings.register_profile(
    "fixed",
    deadline=None,
    derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("fixed")
if seed := os.environ.get("NLBOUND_SHAKE"):
    import shake

    shake.start(int(seed))


def memory():
    """Bytes of memory that this process may use."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    group = Path("/sys/fs/cgroup/memory.max")
    if group.exists() and group.read_text().strip().isdigit():
        limits.append(int(group.read_text()))
    return min(limits)


def pytest_xdist_auto_num_workers(config):
    """`-n auto`: as many workers as cores, as far as memory allows."""
    if sys.platform == "win32":
        return None
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min(cores, memory() // WORKER_BYTES))


def pytest_collection_modifyitems(config, items):
    """Leave out what is not for the precision of this run: see the markers in pyproject.toml."""
    other = "float64" if not X64 else "float32"
    left_out = [item for item in items if item.get_closest_marker(other)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker(other)]


def pytest_collection_finish(session):
    """What is loaded by now stays: the garbage collector need not go through it again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="module")
def room_for_programs():
    """Drop the compiled programs between two files, where there are many."""
    yield
    mappings = Path("/proc/self/maps")
    if mappings.exists() and mappings.read_bytes().count(b"\n") > MAPPINGS:
        jax.clear_caches()
        gc.collect()


@pytest.fixture(scope="session")
def mnist7():
    from nlbound_jax import tasks

    return tasks.mnist(7)


@pytest.fixture
def optimized(monkeypatch):
    """Programs that run long, here and in processes started from here, are worth compiling well."""
    before = jax.config.read("jax_disable_most_optimizations")
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "0")
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture
def no_type_checks():
    """Let a wrong type through to the library's own check, as it is for a user: the tests run
    under beartype, which would refuse it first."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
