import os
from pathlib import Path

# One thread a process: XLA's threads wait for each other by spinning, and where other processes
# (the second worker) want the same cores a vmapped small solve takes minutes instead of seconds.
os.environ.setdefault("NPROC", "1")

# Most of the time goes into compiling, and the command line, the notebooks and the README compile
# the same programs again and again, each in a process of its own. One folder a worker: JAX does
# not write its cache atomically.
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR",
    str(
        Path(__file__).parents[1]
        / ".pytest_cache"
        / "jax"
        / os.environ.get("PYTEST_XDIST_WORKER", "main")
    ),
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")

import jax
import jaxtyping
import pytest

X64 = os.environ.get("JAX_ENABLE_X64", "1") == "1"
jax.config.update("jax_enable_x64", X64)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")


def pytest_collection_modifyitems(config, items):
    """Leave out what is not for the precision of this run: see the markers in pyproject.toml."""
    other = "float64" if not X64 else "float32"
    left_out = [item for item in items if item.get_closest_marker(other)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker(other)]


@pytest.fixture(scope="session")
def mnist7():
    from nlbound_jax import tasks

    return tasks.mnist(7)


@pytest.fixture
def no_type_checks():
    """Let a wrong type through to the library's own check, as it is for a user: the tests run
    under beartype, which would refuse it first."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
