"""How the command sets JAX up."""

import os
import sys
from pathlib import Path
from typing import Any

# Beyond this many the sums over devices cost more than they save on the data that fits a machine.
MOST_CORES = 8
CACHE_BYTES = 2**29


def set_up_jax() -> None:
    """float64, a CPU device of each core, and compiled programs kept on disk between runs.

    What the user set by JAX's own variables (`JAX_NUM_CPU_DEVICES`, `XLA_FLAGS`,
    `JAX_COMPILATION_CACHE_DIR`, `JAX_ENABLE_COMPILATION_CACHE`) stands.
    """
    import jax

    jax.config.update("jax_enable_x64", True)
    forced = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    config: Any = jax.config
    if config.jax_num_cpu_devices < 0 and not forced:
        try:
            jax.config.update("jax_num_cpu_devices", _cores())
        except RuntimeError:  # JAX is in use already
            pass
    folder = cache_folder()
    if config.jax_compilation_cache_dir is None and _writable(folder):
        heal(folder)
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_compilation_cache_max_size", CACHE_BYTES)
        # Of the time to compile a report half goes into a hundred programs of 0.03 s each.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def _cores() -> int:
    """The cores this process may use; XLA takes their number from NPROC if set."""
    affinity = getattr(os, "sched_getaffinity", None)
    there = len(affinity(0)) if affinity else os.cpu_count() or 1
    told = os.environ.get("NPROC", "")
    return min(int(told) if told.isdigit() and int(told) else there, MOST_CORES)


def cache_folder() -> Path:
    """Where compiled programs are kept."""
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "nlbound_jax" / "compiled"


def heal(folder: Path) -> None:
    """Remove the programs that a process was killed in the middle of writing: they have no time of
    last use, and JAX would complain of each whenever it keeps another program."""
    import filelock  # as JAX does

    def unfinished() -> list[str]:
        names = set(os.listdir(folder))
        keys = [name.removesuffix("-cache") for name in names if name.endswith("-cache")]
        return [f"{key}-cache" for key in keys if f"{key}-atime" not in names]

    try:
        if unfinished():
            # JAX's own lock: who holds it may be about to write the other file.
            with filelock.FileLock(folder / ".lockfile", timeout=2):
                for name in unfinished():
                    (folder / name).unlink(missing_ok=True)
    except OSError:
        pass


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)
