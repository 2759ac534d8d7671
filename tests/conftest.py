import os

# One thread a process: XLA's threads wait for each other by spinning, and where other processes
# (the second worker) want the same cores a vmapped small solve takes minutes instead of seconds.
os.environ.setdefault("NPROC", "1")

import jax
import jaxtyping
import pytest

jax.config.update("jax_enable_x64", os.environ.get("JAX_ENABLE_X64", "1") == "1")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")


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
